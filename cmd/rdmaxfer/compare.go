package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/rdmaxfer/rdmaxfer/compare"
	"github.com/rdmaxfer/rdmaxfer/compare/peertool"
	"github.com/rdmaxfer/rdmaxfer/tcpfallback"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/rdma"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

func compareCommand() *cli.Command {
	return &cli.Command{
		Name:      "compare",
		Usage:     "measure RDMA against TCP between this host and one that runs rdmaxfer recv",
		ArgsUsage: "HOST[:PORT]",
		Flags: append([]cli.Flag{
			keyFileFlag(),
			&cli.StringFlag{Name: "sizes", Value: "4K,64K,1M", Usage: "measure extents of these sizes, each up to 1M: `LIST`"},
			&cli.StringFlag{Name: "methods", Value: "rdma,tcp,udp", Usage: "of rdma (or of it read, write, send), tcp (or of it " + strings.Join(tcpfallback.Methods[1:], ", ") + ") and udp: `LIST`"},
			&cli.IntFlag{Name: "depth", Value: transfer.DefaultDepth, Usage: "keep `N` requests in flight where bandwidth is measured"},
			&cli.IntFlag{Name: "rounds", Value: 9, Usage: "measure everything `N` times, in turn; six at least for a 95 % interval, and nine for one that a single outlier does not spoil"},
			&cli.DurationFlag{Name: "duration", Value: time.Second, Usage: "of each measurement"},
			peersFlag(),
			&cli.StringFlag{Name: "fio", Usage: "measure this host's disk by fio too, in `DIR`"},
			&cli.BoolFlag{Name: "count", Usage: "have counted work in the JSON: calls into C, allocations and (where root may) system calls a GiB; counting them costs a little"},
			&cli.BoolFlag{Name: "hardware", Usage: "have both hosts' RDMA devices in the report: links, NUMA nodes, counters, drivers and kernels"},
			&cli.StringFlag{Name: "json", Usage: "write the report to `FILE`; - is standard output, instead of the table"},
			&cli.StringFlag{Name: "csv", Usage: "write a line a method and size to `FILE`"},
			&cli.StringFlag{Name: "html", Usage: "write a page with plots, which needs nothing else, to `FILE`"},
			&cli.StringFlag{Name: "hgrm", Usage: "write the round trips of each method and size into `DIR`, alone, loaded and in an open loop, for HdrHistogram's plotters"},
			&cli.StringFlag{Name: "baseline", Usage: "compare with the report in `FILE` (--json of an earlier run): exit status 10 when something is worse, or can't be measured any more"},
			memoryFlag(),
		}, rdmaFlags()...),
		OnUsageError: onUsageError,
		Action:       runCompare,
	}
}

func peersFlag() cli.Flag {
	return &cli.BoolFlag{Name: "peers", Usage: "run perftest, qperf and iperf3 (of bench those that do the same) on both hosts too, and set their figures beside ours (the receiver needs recv --allow-peers)"}
}

// peers are the programs of --peers. That the receiver runs none is found out before
// anything is measured.
func peers(c *cli.Context, m *transfer.Meter) ([]compare.Peer, error) {
	if !c.Bool("peers") {
		return nil, nil
	}
	return peertool.Peers(m), m.AllowsTools()
}

func runCompare(c *cli.Context) error {
	opt, err := compareOptions(c)
	if err != nil {
		return err
	}
	addr, err := onlyHost(c)
	if err != nil {
		return err
	}
	var baseline *compare.Report
	if path := c.String("baseline"); path != "" {
		if baseline, err = readBaseline(path); err != nil {
			return err
		}
		if baseline.Depth != opt.Depth {
			return usagef("--depth %d: %s was measured with --depth %d, which says nothing of this", opt.Depth, path, baseline.Depth)
		}
		if err := opt.Against(baseline); err != nil {
			return usagef("--baseline %s: %w", path, err)
		}
	}
	files, err := openReports(c)
	if err != nil {
		return err
	}
	defer discardReports(files)
	m, err := openMeter(c, addr)
	if err != nil {
		return err
	}
	if opt.Peers, err = peers(c, m); err != nil {
		m.Close()
		return err
	}
	if dir := c.String("fio"); dir != "" {
		disk, remove := peertool.Disk(dir)
		defer remove()
		opt.Peers = append(opt.Peers, disk...)
	}
	addHardware := func(*compare.Report) {}
	if c.Bool("hardware") {
		if addHardware, err = bothHosts(c.Context, m); err != nil {
			m.Close()
			return err
		}
	}
	stop := showSteps(opt)
	report, err := compare.Run(c.Context, m, *opt)
	stop()
	addHardware(report)
	m.Close()
	report.Peer = addr
	werr := writeReport(c, report, files)
	if err == nil {
		err = nothing(report)
	}
	if err == nil && baseline != nil {
		err = sinceBaseline(c, report, baseline, opt.Sizes)
	}
	return errors.Join(err, werr)
}

// hardware is what this host is.
func hardware() *compare.Hardware { return compare.ReadHardware(os.DirFS("/sys"), os.DirFS("/proc")) }

// bothHosts reads what both hosts are before anything is measured. What it answers reads it
// again and adds it to the report, with those counters that have changed meanwhile; a
// receiver that is gone is what it was.
func bothHosts(ctx context.Context, m *transfer.Meter) (add func(*compare.Report), err error) {
	hereBefore := hardware()
	thereBefore, err := m.Hardware(ctx)
	if err != nil {
		return nil, err
	}
	return func(r *compare.Report) {
		r.Hardware = hardware()
		r.Hardware.Since(hereBefore)
		if r.There, err = m.Hardware(ctx); err != nil {
			r.There = thereBefore
		}
		r.There.Since(thereBefore)
	}, nil
}

func compareOptions(c *cli.Context) (*compare.Options, error) {
	o := &compare.Options{Depth: c.Int("depth"), Rounds: c.Int("rounds"), Duration: c.Duration("duration"), Count: c.Bool("count")}
	var err error
	if o.Sizes, err = sizes(c.String("sizes"), o.Depth); err != nil {
		return nil, err
	}
	if o.Methods, err = methods(c.String("methods")); err != nil {
		return nil, err
	}
	switch {
	case o.Depth < 2 || o.Depth > 1024:
		return nil, usagef("--depth %d: from 2 to 1024", o.Depth)
	case o.Rounds < 1 || o.Rounds > 1000:
		return nil, usagef("--rounds %d: from 1 to 1000", o.Rounds)
	}
	return o, errors.Join(checkDuration(o.Duration), checkPeers(c))
}

func checkDuration(d time.Duration) error {
	if d < time.Millisecond || d > 5*time.Minute {
		return usagef("--duration %v: from 1ms to 5m", d)
	}
	return nil
}

// checkPeers refuses a measurement that others' programs would be ended in the middle of.
func checkPeers(c *cli.Context) error {
	flag := "fio"
	if c.Bool("peers") {
		flag = "peers"
	}
	if d := c.Duration("duration"); d > peertool.MaxDuration && (c.Bool("peers") || c.String("fio") != "") {
		return usagef("--duration %v with --%s: up to %v, for others' programs are ended %v after they began", d, flag, peertool.MaxDuration, time.Duration(wire.MaxToolTime))
	}
	return nil
}

func sizes(list string, depth int) (all []int, err error) {
	for word := range strings.SplitSeq(list, ",") {
		n, err := units.RAMInBytes(word)
		if err != nil || n < 1 || n > transfer.DefaultExtentSize {
			return nil, usagef("%q is no size of an extent: from 1 to 1M bytes, such as 64K", word)
		}
		if n*int64(depth) > transfer.MaxInFlight {
			return nil, usagef("%s × %d in flight: more than a lane has room for, %s; ask for a lower --depth", word, depth, units.BytesSize(transfer.MaxInFlight))
		}
		all = append(all, int(n))
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// methods gives those of a list, RDMA's first.
func methods(list string) (all []compare.Method, err error) {
	words := strings.Split(list, ",")
	known := 0
	add := func(transport, name string, serve transfer.ServeTransport) {
		if slices.Contains(words, transport) || slices.Contains(words, name) {
			all = append(all, compare.Method{Transport: transport, Name: name, Serve: serve})
		}
		for _, w := range words {
			if w == name {
				known++
			}
		}
	}
	for _, op := range rdma.Ops[1:] {
		add(transfer.TransportRDMA, op, nil)
	}
	for _, m := range tcpfallback.Methods[1:] {
		add(transfer.TransportTCP, m, tcpfallback.Transport{Method: m})
	}
	add(transfer.TransportUDP, "datagram", tcpfallback.Datagrams{})
	for _, w := range words {
		if w == transfer.TransportRDMA || w == transfer.TransportTCP || w == transfer.TransportUDP {
			known++
		}
	}
	if known != len(words) {
		return nil, usagef("--methods %s: of rdma, %s, tcp, %s, udp", list, strings.Join(rdma.Ops[1:], ", "), strings.Join(tcpfallback.Methods[1:], ", "))
	}
	return all, nil
}

// onlyHost is the address that is the one argument.
func onlyHost(c *cli.Context) (string, error) {
	if c.Args().Len() != 1 {
		return "", usagef("%s takes one argument: HOST[:PORT]", c.Command.Name)
	}
	return hostPort(c.Args().First())
}

func openMeter(c *cli.Context, addr string) (*transfer.Meter, error) {
	devices, err := newRDMA(c)
	if err != nil {
		return nil, err
	}
	key, err := readKey(c)
	if err != nil {
		return nil, err
	}
	return transfer.OpenMeter(c.Context, addr, key, devices)
}

// showSteps says what is measured: on a terminal in a bar, elsewhere in a line a round.
func showSteps(o *compare.Options) (stop func()) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		told := ""
		o.Progress = func(_, _ int, what string) {
			if round, _, _ := strings.Cut(what, ","); round != told {
				told = round
				fmt.Fprintln(os.Stderr, "rdmaxfer:", round)
			}
		}
		return func() {}
	}
	var bar *progressbar.ProgressBar
	o.Progress = func(done, total int, what string) {
		if bar == nil {
			bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(20))
		}
		bar.Describe(what)
		_ = bar.Set(done) // a bar that can't be drawn is not drawn
	}
	return func() {
		if bar != nil {
			_ = bar.Finish()
		}
	}
}
