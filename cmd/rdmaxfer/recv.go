package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/urfave/cli/v2"

	"github.com/rdmaxfer/rdmaxfer/compare/peertool"
	"github.com/rdmaxfer/rdmaxfer/tcpfallback"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/rdma"
)

// maxTransfers bounds how many senders are served at once; the others wait.
const maxTransfers = 16

func recvCommand() *cli.Command {
	return &cli.Command{
		Name:  "recv",
		Usage: "receive files from whoever holds the key",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "listen", Value: ":" + DefaultPort, Usage: "listen on `ADDR` (host:port)"},
			&cli.StringFlag{Name: "into", Value: ".", Usage: "land files in `DIR`"},
			&cli.StringFlag{Name: "as", Usage: "land the one file or stream that comes as `FILE`, whatever the sender calls it"},
			&cli.BoolFlag{Name: "stdout", Usage: "write the one file or stream that comes to standard output, as it comes, and end; everything else goes to standard error"},
			&cli.BoolFlag{Name: "discard", Usage: "keep nothing: for measuring"},
			&cli.BoolFlag{Name: "allow-peers", Usage: "run perftest, qperf and iperf3 for compare --peers: those programs alone, while they are measured; each listens for anybody then"},
			keyFileFlag(),
			&cli.BoolFlag{Name: "once", Usage: "end after one transfer, with its exit status; dry runs, doctor and, but with --discard, what measures are none"},
			transportFlag(),
			&cli.StringFlag{Name: "overwrite", Value: string(transfer.OverwriteNever), Usage: "what exists: never, newer (replace what is older than the source) or always"},
			&cli.BoolFlag{Name: "no-sync", Usage: "leave it to the kernel when files reach the disk: faster, but a power cut may lose what has landed, and nothing is kept to go on from"},
			&cli.BoolFlag{Name: "clean", Usage: "receive nothing: remove what interrupted transfers left in the directory, but for those that run"},
			&cli.BoolFlag{Name: "dry-run", Usage: "with --clean: remove nothing, say what would be"},
			memoryFlag(),
			jsonFlag(),
			verboseFlag(),
		}, slices.Concat(storageRecvFlags(), rdmaFlags(), tcpRecvFlags())...),
		OnUsageError: onUsageError,
		Action:       recv,
	}
}

func recv(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("recv takes no arguments, and got %q", c.Args().First())
	}
	if c.Bool("clean") {
		return clean(c)
	}
	if c.Bool("dry-run") {
		return usagef("--dry-run: it goes with --clean alone")
	}
	r, err := newReceiver(c)
	if err != nil {
		return err
	}
	runMore()
	ctx, cancel := context.WithCancelCause(c.Context)
	defer cancel(nil)
	r.results = &late{ctx: ctx, out: os.Stdout}
	if c.Bool("stdout") {
		r.results.out = os.Stderr
	}
	if err = r.run(ctx, cancel, c); r.once && !r.served {
		err = r.output().failed(err)
	}
	return err
}

type receiver struct {
	once      bool
	served    bool // the one transfer, whose summary has been printed
	listener  *transfer.Listener
	sockets   transfer.Sockets
	sink      transfer.Sink
	transport string
	landing   string
	encrypt   bool
	peers     bool            // others' programs may be run to measure with
	devices   *rdma.Transport // what every session's is made like
	json      bool
	verbose   bool
	results   *late        // receipts, events and summaries, of all sessions
	sessions  atomic.Int64 // that there have been
}

// newReceiver checks the flags.
func newReceiver(c *cli.Context) (*receiver, error) {
	r := &receiver{once: c.Bool("once") || c.Bool("stdout"), peers: c.Bool("allow-peers"), json: c.Bool("json"), verbose: c.Bool("verbose")}
	var err error
	if r.transport, err = oneOf(c, "transport", transfer.TransportAuto, transfer.TransportRDMA, transfer.TransportTCP); err != nil {
		return nil, err
	}
	if r.landing, err = oneOf(c, "landing", tcpfallback.Landings...); err != nil {
		return nil, err
	}
	if r.encrypt, err = encryption(c); err != nil {
		return nil, err
	}
	if r.devices, err = newRDMA(c); err != nil {
		return nil, err
	}
	if r.devices.Sink, err = oneOf(c, "sink", rdma.Sinks...); err != nil {
		return nil, err
	}
	r.sockets, err = sockets(c)
	return r, err
}

// run listens, and serves who comes. cancel ends ctx when nobody can come any more.
func (r *receiver) run(ctx context.Context, cancel context.CancelCauseFunc, c *cli.Context) error {
	if r.transport == transfer.TransportRDMA {
		// What can't work is said before anybody sends.
		if _, err := rdma.Candidates(&r.devices.Selection); err != nil {
			return &transfer.Error{Code: transfer.CodeNoRDMA, Err: fmt.Errorf("RDMA is required: %w", err)}
		}
	}
	var err error
	if r.sink, err = openSink(ctx, c); err != nil {
		return err
	}
	defer r.sink.Close()
	key, err := receiverKey(c)
	if err != nil {
		return err
	}
	l, err := r.sockets.Listen(ctx, c.String("listen"), key)
	if err != nil {
		return err
	}
	defer l.Close()
	l.Refused = func(addr net.Addr, err error) {
		complain(fmt.Errorf("refused a connection from %v: %w", addr, err))
	}
	go func() {
		if err := l.Serve(ctx); err != nil {
			cancel(err)
		}
	}()
	r.listener = l
	r.output().listening(l.Addr(), r.sink)
	go hugeHeap() // there is nothing else to do, and of what comes nothing is known
	if r.once {
		return r.one(ctx)
	}
	return r.all(ctx)
}

func (r *receiver) output() *output {
	out := newOutput(r.results.ctx, "recv", r.json)
	out.results, out.verbose = r.results, r.verbose
	return out
}

// one serves one transfer. Dry runs before it are none, nor is what measures, unless nothing is
// kept here anyhow, which is for measuring.
func (r *receiver) one(ctx context.Context) error {
	_, measures := r.sink.(transfer.Discard)
	for {
		s, err := r.listener.Accept(ctx)
		if err != nil {
			return causeOr(ctx, err)
		}
		out, result, err := r.serve(ctx, s)
		none := result.DryRun || result.PathsOnly || result.Measuring && !measures
		r.served = !none
		err = out.summary(result, err)
		if !none {
			return err
		}
		if ctx.Err() != nil {
			return causeOr(ctx, ctx.Err())
		}
		if err != nil {
			complain(err)
		}
	}
}

// all serves transfers until it is stopped. A failed one is reported and does not
// end the others; being stopped while nothing runs is the normal end,
// though its exit code is the signal's.
func (r *receiver) all(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	places := make(chan struct{}, maxTransfers)
	for {
		s, err := r.listener.Accept(ctx)
		if err != nil {
			return causeOr(ctx, err)
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			s.Close()
			return causeOr(ctx, ctx.Err())
		}
		running.Go(func() {
			out, result, err := r.serve(ctx, s)
			<-places // a summary may wait to be read, and no sender for that
			if err := out.summary(result, err); err != nil {
				complain(err)
			}
		})
	}
}

// serve gives what came of a session, and what is to tell of it.
func (r *receiver) serve(ctx context.Context, s *transfer.Session) (*output, *transfer.Result, error) {
	out := r.output()
	out.session, out.peer = int(r.sessions.Add(1)), s.Peer()
	out.moved = out.progress.Moved.Load
	devices := &rdma.Transport{Memory: r.devices.Memory, Selection: r.devices.Selection, Fabric: r.devices.Fabric, Sink: r.devices.Sink}
	observer := &batched{output: out}
	defer observer.ended()
	engine := &transfer.Receiver{
		Listener:  r.listener,
		Sink:      r.sink,
		Transport: r.transport,
		Encrypt:   r.encrypt,
		RDMA:      devices,
		Verbs:     rdma.Verbs{Transport: devices},
		TCP:       tcpfallback.Transport{Landing: r.landing},
		UDP:       tcpfallback.Datagrams{},
		Hardware:  hardware,
		Observer:  observer,
		Progress:  &out.progress,
	}
	if r.peers {
		engine.Tools = peertool.Server{Rail: devices.Rail}
	}
	stop := out.showProgress()
	result, err := engine.Receive(ctx, s)
	stop()
	return out, result, err
}

// causeOr prefers why ctx ended to what that made of an operation.
func causeOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}
