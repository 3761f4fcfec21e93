// Command rdmaxfer moves files between Linux hosts over RDMA, and over TCP where
// there is no RDMA.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// DefaultPort is the one port that a receiver listens on.
const DefaultPort = "18700"

func main() {
	collectLate()
	// A reader of standard output or error that has ended is an error of the write, and not
	// this program's end. (Ignored, it would be for the programs that this one runs, too.)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := untilSignal()
	err := newApp().RunContext(ctx, os.Args)
	stop()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
			err = cause
		}
		complain(err)
	}
	os.Exit(int(exitCode(err)))
}

// complain writes an error the way every line of this program's diagnostics begins.
func complain(err error) { fmt.Fprintf(os.Stderr, "rdmaxfer: %v\n", err) }

// exitCode is the exit status of the contract.
func exitCode(err error) transfer.Code {
	var usage usageError
	if errors.As(err, &usage) {
		return transfer.CodeUsage
	}
	return transfer.CodeOf(err)
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// untilSignal gives a context that ends by SIGINT or SIGTERM, with the exit status
// of the contract as its cause. A second signal kills at once.
func untilSignal() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		sig := (<-c).(syscall.Signal)
		signal.Stop(c)
		cancel(&transfer.Error{Code: transfer.Code(128 + int(sig)), Err: fmt.Errorf("stopped by a signal (%v)", sig)})
	}()
	return ctx, func() { signal.Stop(c) }
}

func newApp() *cli.App {
	commands := []*cli.Command{recvCommand(), sendCommand(), compareCommand(), benchCommand(), devicesCommand(), doctorCommand(), keygenCommand()}
	for _, c := range commands {
		tidy(c)
	}
	cli.VersionFlag = &cli.BoolFlag{Name: "version", Usage: "print which rdmaxfer this is, and the protocol's version, in which both hosts must agree", DisableDefaultText: true}
	return &cli.App{
		Name:     "rdmaxfer",
		HelpName: "rdmaxfer",
		Usage:    "move files between hosts over RDMA, verified; over TCP where there is none",
		Description: "Exit status: 0 ok, 1 other, 2 usage, 3 the keys differ, 4 no connection or the peer is gone, 5 some files did not arrive, " +
			"6 damaged, 7 local I/O or a source that changed, 8 exists, 9 RDMA required and not to be had, 10 worse than the baseline, 130 and 143 signals.",
		Version:         version(),
		HideHelpCommand: true,
		Commands:        commands,
		OnUsageError:    onUsageError,
		// Errors are printed and turned into an exit status by main alone.
		ExitErrHandler: func(*cli.Context, error) {},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("no command %q (see: rdmaxfer --help)", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
	}
}

// version says what this binary was built from, as Go recorded it (a tag, or the commit), with
// what else decides whether two hosts can talk: the protocol, and whether verbs are in it.
func version() string {
	built, verbs := "unknown", "verbs"
	if info, ok := debug.ReadBuildInfo(); ok {
		built = cmp.Or(info.Main.Version, built)
		if slices.Contains(info.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "0"}) {
			verbs = "no verbs"
		}
	}
	return fmt.Sprintf("%s (protocol %d, %s, %s/%s, %s)", built, wire.Version, verbs, runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// tidy leaves help to the flag, for a file, or a host, may be called help, or h; and it does
// not say of each switch that it is off by default.
func tidy(c *cli.Command) {
	c.HideHelpCommand = true
	for _, f := range c.Flags {
		if f, ok := f.(*cli.BoolFlag); ok {
			f.DisableDefaultText = true
		}
	}
	for _, sub := range c.Subcommands {
		tidy(sub)
	}
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	return usagef("%w (see: %s --help)", err, c.Command.HelpName)
}

// Flags that several commands have.
func keyFileFlag() *cli.StringFlag {
	return &cli.StringFlag{Name: "key-file", Usage: "read the shared key from `FILE`; - is standard input"}
}

func transportFlag() *cli.StringFlag {
	return &cli.StringFlag{Name: "transport", Value: transfer.TransportAuto, Usage: "auto, rdma or tcp; rdma fails where auto would take tcp"}
}

func jsonFlag() *cli.BoolFlag {
	return &cli.BoolFlag{Name: "json", Usage: "print one JSON object an event to standard output"}
}

func verboseFlag() *cli.BoolFlag {
	return &cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "say how RDMA reaches the other host: each pair of addresses, and why it is used or not"}
}

// oneOf checks a flag that has a fixed set of values.
func oneOf(c *cli.Context, flag string, values ...string) (string, error) {
	v := c.String(flag)
	for _, ok := range values {
		if v == ok {
			return v, nil
		}
	}
	return "", usagef("--%s %s: it must be one of %s", flag, v, strings.Join(values, ", "))
}
