package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

func keygenCommand() *cli.Command {
	return &cli.Command{
		Name:         "keygen",
		Usage:        "make a key and keep it in FILE, readable by its owner alone",
		ArgsUsage:    "FILE",
		OnUsageError: onUsageError,
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("keygen takes one argument: the FILE to make")
			}
			path := c.Args().First()
			if err := transfer.SaveKey(path, transfer.NewKey()); err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "rdmaxfer: made %s; copy it to the other host over a channel that you trust (scp -p)\n", path)
			return nil
		},
	}
}

// readKey takes the key from a file, or asks a person for it. Never from an
// argument: those can be seen by every user of the host.
func readKey(c *cli.Context) (transfer.Key, error) {
	switch path := c.String("key-file"); path {
	case "":
	case "-":
		return orEnded(c.Context, func() (transfer.Key, error) { return transfer.ReadKey(os.Stdin) })
	default: // it may be a pipe
		return orEnded(c.Context, func() (transfer.Key, error) { return transfer.LoadKey(path) })
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return transfer.Key{}, usagef("no key: name a file with --key-file (rdmaxfer keygen makes one)")
	}
	fmt.Fprint(os.Stderr, "the receiver's twelve words: ")
	text, err := readHidden(c.Context, int(os.Stdin.Fd()))
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return transfer.Key{}, fmt.Errorf("reading the key: %w", err)
	}
	return transfer.ParseKey(string(text))
}

// readHidden reads a line from a terminal that does not show it, until ctx ends.
func readHidden(ctx context.Context, fd int) ([]byte, error) {
	was, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	text, err := orEnded(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	if ctx.Err() != nil {
		err = errors.Join(err, term.Restore(fd, was))
	}
	return text, err
}

// orEnded gives what read gives, or why ctx has ended before that: the read then goes on until
// this process ends.
func orEnded[T any](ctx context.Context, read func() (T, error)) (got T, err error) {
	type answer struct {
		got T
		err error
	}
	done := make(chan answer, 1)
	go func() {
		got, err := read()
		done <- answer{got, err}
	}()
	select {
	case a := <-done:
		return a.got, a.err
	case <-ctx.Done():
		return got, context.Cause(ctx)
	}
}

// receiverKey is readKey for the side that may also make a key for one run and
// show it, which is only safe on a terminal.
func receiverKey(c *cli.Context) (transfer.Key, error) {
	if c.IsSet("key-file") {
		return readKey(c)
	}
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return transfer.Key{}, usagef("no key: name a file with --key-file (rdmaxfer keygen makes one); without one a key is made and shown, on a terminal only")
	}
	key := transfer.NewKey()
	fmt.Fprintf(os.Stderr, "key for this run, to be typed at the sender:\n\n  %s\n\n", key.Words())
	return key, nil
}
