package main

import (
	"github.com/urfave/cli/v2"

	"github.com/rdmaxfer/rdmaxfer/transfer/filter"
)

// pattern is the value of --include or --exclude: both add to the same rules, in the
// order in which they were given.
type pattern struct {
	rules   *filter.Rules
	include bool
}

func (p *pattern) Set(s string) error { return p.rules.Add(s, p.include) }
func (p *pattern) String() string     { return "" }

// filterFlags are --include and --exclude, which fill the rules.
func filterFlags(rules *filter.Rules) []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Name: "exclude", Value: &pattern{rules, false},
			Usage: "leave out of trees what matches `PATTERN`: *.o, build/ (directories), /project/**/tmp; the first of --exclude and --include that matches decides"},
		&cli.GenericFlag{Name: "include", Value: &pattern{rules, true}, Usage: "send what matches `PATTERN`, though an --exclude after it matches too"},
	}
}
