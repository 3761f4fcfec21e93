package main

import (
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/rdmaxfer/rdmaxfer/compare"
	"github.com/rdmaxfer/rdmaxfer/tcpfallback"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/rdma"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// verbsOps are what bench measures the verbs alone by.
var verbsOps = append(slices.Clone(rdma.Ops[1:]), "ud")

func benchCommand() *cli.Command {
	flags := func(size string) []cli.Flag {
		return append([]cli.Flag{
			keyFileFlag(),
			&cli.StringFlag{Name: "op", Value: "write", Usage: "RDMA's " + strings.Join(verbsOps, ", ") + " (SENDs of datagrams); how a TCP lane moves the bytes: " + strings.Join(tcpfallback.Methods[1:], ", ") + "; or udp, a lane of datagrams"},
			&cli.BoolFlag{Name: "lane", Usage: "with RDMA too measure a transfer's lane, requests and all, instead of the verbs alone"},
			&cli.StringFlag{Name: "size", Value: size, Usage: "bytes a message; of a lane, up to 1M"},
			&cli.IntFlag{Name: "depth", Usage: "keep `N` messages in flight on each queue pair", DefaultText: "128, of a lane 16; of latency 1"},
			&cli.IntFlag{Name: "qps", Value: 1, Usage: "use `N` queue pairs"},
			&cli.IntFlag{Name: "chain", Value: 1, Usage: "post up to `N` messages a doorbell"},
			&cli.IntFlag{Name: "signal", Usage: "have a completion for every `N` messages", DefaultText: "perftest's: one for each doorbell of several; of up to 8 KiB every hundredth, else each"},
			&cli.IntFlag{Name: "inline", Usage: "copy messages up to `BYTES` into the request, where the device can"},
			&cli.IntFlag{Name: "buffers", Value: 1, Usage: "use the room of `N` messages in turn, a working set; 1 is the same buffer over and over"},
			&cli.BoolFlag{Name: "events", Usage: "wait on events instead of polling"},
			&cli.DurationFlag{Name: "spin", Usage: "poll for so long before a wait on events"},
			&cli.BoolFlag{Name: "both", Usage: "measure bandwidth with both hosts sending"},
			&cli.IntFlag{Name: "iters", Usage: "measure `N` messages, from the first post to the last completion", DefaultText: "what completes in --duration"},
			&cli.DurationFlag{Name: "duration", Value: 5 * time.Second, Usage: "of the measurement"},
			&cli.DurationFlag{Name: "warm-up", Usage: "before that", DefaultText: "a quarter of --duration"},
			&cli.IntFlag{Name: "rounds", Value: 1, Usage: "measure `N` times, in turn with --peers; six at least for an interval that says something"},
			peersFlag(),
			memoryFlag(),
			jsonFlag(),
		}, rdmaFlags()...)
	}
	return &cli.Command{
		Name:         "bench",
		Usage:        "measure one way of moving bytes to a host that runs rdmaxfer recv",
		OnUsageError: onUsageError,
		Subcommands: []*cli.Command{
			{Name: "bw", Usage: "how many bytes a second", ArgsUsage: "HOST[:PORT]", Flags: flags("64K"), OnUsageError: onUsageError, Action: bench},
			{Name: "lat", Usage: "how long a round trip takes", ArgsUsage: "HOST[:PORT]", Flags: flags("64"), OnUsageError: onUsageError, Action: bench},
		},
		Action: func(c *cli.Context) error { return usagef("bench takes bw or lat (see: rdmaxfer bench --help)") },
	}
}

func bench(c *cli.Context) error {
	if err := checkDuration(c.Duration("duration")); err != nil {
		return err
	}
	if c.Int("iters") == 0 { // which end it themselves
		if err := checkPeers(c); err != nil {
			return err
		}
	}
	if err := configure(c); err != nil {
		return err
	}
	op := c.String("op")
	if slices.Contains(verbsOps, op) && !c.Bool("lane") {
		return benchVerbs(c)
	}
	for _, name := range []string{"qps", "chain", "signal", "inline", "buffers", "events", "spin", "both", "iters", "warm-up", "rounds"} {
		if c.IsSet(name) {
			return usagef("--%s: of the verbs alone, and --op %s is a lane's", name, op)
		}
	}
	return benchLane(c)
}

// warmUp is a quarter of the time that is measured, unless it is told.
func warmUp(c *cli.Context) time.Duration {
	if c.IsSet("warm-up") {
		return c.Duration("warm-up")
	}
	return c.Duration("duration") / 4
}

func benchVerbs(c *cli.Context) error {
	size, err := units.RAMInBytes(c.String("size"))
	if err != nil || size < 1 || size > wire.MaxExtent {
		return usagef("--size %s: from 1 to 16M bytes, such as 64K", c.String("size"))
	}
	o := compare.VerbsOptions{
		Op: c.String("op"), Latency: c.Command.Name == "lat", Both: c.Bool("both"), Size: int(size), Depth: c.Int("depth"), QPs: c.Int("qps"), Chain: c.Int("chain"), Signal: c.Int("signal"),
		Inline: c.Int("inline"), Buffers: c.Int("buffers"), Events: c.Bool("events"), Spin: c.Duration("spin"), MTU: c.Int("mtu"),
		Iterations: c.Int("iters"), Duration: c.Duration("duration"), WarmUp: warmUp(c), Rounds: c.Int("rounds"),
	}
	for _, name := range []string{"both", "qps", "depth", "chain", "signal"} {
		if o.Latency && c.IsSet(name) {
			return usagef("--%s: bench lat has one message at a time; it is for bench bw", name)
		}
	}
	within := func(name string, v, least, most int) error {
		if v < least || v > most {
			return usagef("--%s %d: from %d to %d", name, v, least, most)
		}
		return nil
	}
	o.Settle()
	for _, b := range []struct {
		name           string
		v, least, most int
	}{{"depth", o.Depth, 1, 4096}, {"qps", o.QPs, 1, 64}, {"chain", o.Chain, 1, 64}, {"signal", o.Signal, 1, o.Depth}, {"inline", o.Inline, 0, 1024},
		{"buffers", o.Buffers, 1, 1 << 20}, {"iters", o.Iterations, 0, wire.MaxToolIterations}, {"rounds", o.Rounds, 1, 1000}, {"spin", int(o.Spin.Microseconds()), 0, wire.MaxVerbsSpin}} {
		if err := within(b.name, b.v, b.least, b.most); err != nil {
			return err
		}
	}
	if o.MTU != 0 && (o.MTUCode() < 1 || o.MTUCode() > 5 || 128<<o.MTUCode() != o.MTU) {
		return usagef("--mtu %d: 256, 512, 1024, 2048 or 4096", o.MTU)
	}
	if o.Latency && o.Op == "write" && o.Events {
		return usagef("bench lat --op write --events: who waits for a write looks for its last byte, and no event tells of it; --op send has events")
	}
	if o.WarmUp < 0 || o.WarmUp > 5*time.Minute {
		return usagef("--warm-up %v: up to 5m", o.WarmUp)
	}
	devices, err := newRDMA(c)
	if err != nil {
		return err
	}
	return withMeter(c, func(m *transfer.Meter) error {
		if o.Peers, err = peers(c, m); err != nil {
			return err
		}
		r, err := compare.BenchVerbs(c.Context, m, rdma.Verbs{Transport: devices}, o)
		if r == nil {
			return err
		}
		return errors.Join(err, writeBench(c, r))
	})
}

func withMeter(c *cli.Context, f func(*transfer.Meter) error) error {
	addr, err := onlyHost(c)
	if err != nil {
		return err
	}
	m, err := openMeter(c, addr)
	if err != nil {
		return err
	}
	defer m.Close()
	return f(m)
}

// benchLane is compare of one method and size, in one round.
func benchLane(c *cli.Context) error {
	list, err := methods(c.String("op"))
	if err != nil || len(list) != 1 {
		return usagef("--op %s: one of %s", c.String("op"), strings.Join(slices.Concat(verbsOps, tcpfallback.Methods[1:], []string{transfer.TransportUDP}), ", "))
	}
	depth := c.Int("depth")
	if depth == 0 {
		depth = map[bool]int{true: 1, false: transfer.DefaultDepth}[c.Command.Name == "lat"]
	}
	if depth < 1 || depth > 1024 {
		return usagef("--depth %d: of a lane from 1 to 1024", depth)
	}
	size, err := sizes(c.String("size"), depth)
	if err != nil || len(size) != 1 {
		return usagef("--size %s: of a lane from 1 to 1M bytes, and times --depth no more than %s", c.String("size"), units.BytesSize(transfer.MaxInFlight))
	}
	return withMeter(c, func(m *transfer.Meter) error {
		others, err := peers(c, m)
		if err != nil {
			return err
		}
		b, err := compare.Bench(c.Context, m, list[0], size[0], depth, c.Duration("duration"), others)
		if b == nil {
			return err
		}
		return errors.Join(err, writeBench(c, b))
	})
}

// writeBench writes what was measured, to the end or not.
func writeBench(c *cli.Context, report interface {
	WriteJSON(io.Writer) error
	WriteText(io.Writer) error
}) error {
	if c.Bool("json") {
		return toStandardOutput(c, report.WriteJSON)
	}
	return toStandardOutput(c, report.WriteText)
}
