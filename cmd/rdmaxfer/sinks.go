package main

import (
	"context"
	"os"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// openSink opens what the flags name. When ctx ends, a reader of standard output that
// hangs is not waited for.
func openSink(ctx context.Context, c *cli.Context) (transfer.Sink, error) {
	o, err := oneOf(c, "overwrite", string(transfer.OverwriteNever), string(transfer.OverwriteNewer), string(transfer.OverwriteAlways))
	if err != nil {
		return nil, err
	}
	n := 0
	for _, flag := range []string{"into", "as", "stdout", "discard"} {
		if c.IsSet(flag) {
			n++
		}
	}
	switch {
	case n > 1:
		return nil, usagef("--into, --as, --stdout and --discard: only one of them")
	case c.Bool("discard"):
		return transfer.Discard{}, sinkStorage(c, nil)
	case c.Bool("stdout"):
		if err := sinkStorage(c, nil); err != nil {
			return nil, err
		}
		return openStdout(ctx, c)
	case c.IsSet("as"):
		f, err := transfer.OpenNamed(c.String("as"), transfer.Overwrite(o))
		if err != nil {
			return nil, err
		}
		f.NoSync = c.Bool("no-sync")
		return f, sinkStorage(c, f.Directory)
	}
	d, err := transfer.OpenDirectory(c.String("into"), transfer.Overwrite(o))
	if err != nil {
		return nil, err
	}
	d.NoSync = c.Bool("no-sync")
	return d, sinkStorage(c, d)
}

// openStdout is for the bytes alone: their reader could not tell them from anything else.
// It is a flag of its own, because - is a name that a directory may have.
func openStdout(ctx context.Context, c *cli.Context) (transfer.Sink, error) {
	switch {
	case c.Bool("json"):
		return nil, usagef("--stdout and --json: both want standard output; the exit status says how it ended")
	case term.IsTerminal(int(os.Stdout.Fd())):
		return nil, usagef("--stdout: standard output is a terminal, which may obey what comes: redirect it (rdmaxfer recv --stdout | tar x)")
	}
	return transfer.NewPipe(ctx, os.Stdout, "standard output"), nil
}
