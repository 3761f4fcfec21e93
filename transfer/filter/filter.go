// Package filter chooses what of a tree is sent, by patterns in the order of the
// command line: the first that matches an entry decides, and what none matches is sent.
// A directory that is left out is not looked into.
package filter

import (
	"fmt"
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Rules are the patterns, the first first. The zero value leaves nothing out.
type Rules struct{ list []rule }

type rule struct {
	pattern string
	include bool
	base    bool // it is the last element alone that must match
	dirs    bool // it is for directories alone
}

// Add appends a pattern. In it * stands for anything within an element of a path, ? for
// one character, [a-z] for one of several, {a,b} for either, and ** for any number of
// elements. One without a slash matches the name of any entry, one that begins with a
// slash the path from what was named on the command line on, any other one the end of
// a path. With a slash at its end it matches directories alone.
func (r *Rules) Add(pattern string, include bool) error {
	n := rule{include: include}
	n.pattern, n.dirs = strings.CutSuffix(pattern, "/")
	anchored := strings.HasPrefix(n.pattern, "/")
	switch {
	case strings.Trim(n.pattern, "/") == "" || !doublestar.ValidatePattern(n.pattern):
		return fmt.Errorf("%q is no pattern (such as *.o, build/ or /project/**/tmp)", pattern)
	case anchored:
		n.pattern = n.pattern[1:]
	case strings.Contains(n.pattern, "/"):
		n.pattern = "**/" + n.pattern
	default:
		n.base = true
	}
	r.list = append(r.list, n)
	return nil
}

// Skip reports whether an entry is left out. Its path is slash-separated and begins
// with the last element of what was named on the command line.
func (r *Rules) Skip(entry string, dir bool) bool {
	for _, n := range r.list {
		if n.dirs && !dir {
			continue
		}
		name := entry
		if n.base {
			name = path.Base(entry)
		}
		if doublestar.MatchUnvalidated(n.pattern, name) {
			return !n.include
		}
	}
	return false
}
