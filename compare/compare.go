// Package compare measures what RDMA and TCP do between two hosts, and says which does
// it better.
//
// The lanes are those of a transfer, with nothing landed and nothing hashed, so what
// differs between two measurements is the transport, and how it moves the bytes. Every
// load is measured once a round, so that what drifts hits all of them.
package compare

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Method is one way of moving an extent.
type Method struct {
	Transport string                  // rdma, tcp or udp
	Name      string                  // of RDMA the op, of TCP the method
	Serve     transfer.ServeTransport // of what goes over sockets: that moves by it
}

// String is the transport and the name, as reports have them: "rdma write".
func (m Method) String() string { return m.Transport + " " + m.Name }

// Options are what is measured.
type Options struct {
	Methods  []Method
	Sizes    []int         // of extents, bytes
	Depth    int           // requests in flight where bandwidth is measured
	Rounds   int           // how often each load is measured
	Duration time.Duration // of each, and a quarter of it before that to warm up
	Peers    []Peer        // others' programs that measure the same
	Count    bool          // count work too, which costs a little
	// Progress, if it is set, hears of each load before it is measured.
	Progress func(done, total int, what string)
}

// meter is what measures: a [transfer.Meter].
type meter interface {
	Measure(context.Context, transfer.Load) (*transfer.Measurement, error)
	Ended() error
}

// samples are what the rounds gave of one method and size.
type samples struct {
	local, remote string
	rates         []float64 // bytes a second, with Depth requests in flight
	trips         []float64 // median round trip of one request alone, seconds
	alone, loaded *hdrhistogram.Histogram
	open          *hdrhistogram.Histogram // from when requests were due
	interval      time.Duration           // between those
	cost          []cost
	work          [][2]Work       // here and there
	here, there   transfer.Memory // the most of any measurement of bandwidth
	datagrams     Datagrams
}

// cost is what processors spent on one measurement of bandwidth.
type cost struct {
	bytes       [2]float64 // by the clocks of the two ends
	here, there transfer.CPU
}

// run is a comparison that is under way.
type run struct {
	m       meter
	o       *Options
	all     map[cellKey]*samples
	peers   map[cellKey]*peerSamples
	worked  map[string]bool   // methods and peers that were measured, at whatever size
	skipped map[cellKey]error // of a method or peer; size 0: at every size
	round   int
	done    int // steps
}

func newRun(m meter, o Options) *run {
	return &run{m: m, o: &o, all: make(map[cellKey]*samples), peers: make(map[cellKey]*peerSamples), worked: make(map[string]bool), skipped: make(map[cellKey]error)}
}

// SizeError is why something can't be measured at one size, and may well be at others.
type SizeError struct{ Err error }

// Error is the text of the reason alone.
func (e *SizeError) Error() string { return e.Err.Error() }

// Unwrap gives the reason itself.
func (e *SizeError) Unwrap() error { return e.Err }

// skip leaves a method or peer out from now on: at this size alone where that is the reason,
// or may be, for it has worked at some size before; else at every size. (What has never
// worked takes its time to fail, and would take it once a size.)
func (r *run) skip(name string, size int, err error) {
	var ofSize *SizeError
	if !r.worked[name] && !errors.As(err, &ofSize) {
		size = 0
	}
	r.skipped[cellKey{name, size}] = err
}

// skips says whether a method or peer is left out at a size.
func (r *run) skips(name string, size int) bool {
	return r.skipped[cellKey{name, 0}] != nil || r.skipped[cellKey{name, size}] != nil
}

// Run measures. The report has what was measured until an error ended it, and says that
// it is not complete. A method that can't be measured is left out, everywhere or at some
// sizes, and why is said.
func Run(ctx context.Context, m meter, o Options) (*Report, error) {
	report := newReport(o)
	r := newRun(m, o)
	var err error
	for ; r.round < o.Rounds && err == nil; r.round++ {
		if err = r.measureRound(ctx); err == nil {
			report.Rounds++
		}
	}
	if err == nil {
		r.skipUntimed()
	}
	r.finish(report, err)
	return report, err
}

// measureRound measures everything once. It is an error when the session has ended.
func (r *run) measureRound(ctx context.Context) error {
	for _, size := range r.o.Sizes {
		for _, l := range r.o.loads(size) {
			name := l.method.String()
			if r.skips(name, size) {
				continue
			}
			r.step(l.String())
			_, err := measure(ctx, r.m, *r.o, l, r.all)
			switch {
			case r.m.Ended() != nil, err != nil && ctx.Err() != nil:
				return err
			case err != nil:
				r.skip(name, size, err)
			default:
				r.worked[name] = true
			}
		}
		if err := r.measurePeers(ctx, size); err != nil {
			return err
		}
	}
	return nil
}

// step tells what comes.
func (r *run) step(what string) {
	if r.o.Progress != nil {
		r.o.Progress(r.done, r.o.steps(), fmt.Sprintf("round %d of %d, %s", r.round+1, r.o.Rounds, what))
	}
	r.done++
}

// steps is how much there is to measure, unless something is skipped.
func (o *Options) steps() int {
	return o.Rounds * len(o.Sizes) * (3*len(o.Methods) + 2*len(o.Peers))
}

// load is what is measured once a round.
type load struct {
	method      Method
	size, depth int
	open        bool // requests are due at times of their own
}

// openLoad is how much of what a method can do with one request after the other is asked of
// it in an open loop: enough to be busy, and not so much that a queue only grows.
const openLoad = 0.5

func (l load) String() string {
	if l.open {
		return fmt.Sprintf("%s, %s, open loop", l.method, Size(l.size))
	}
	return fmt.Sprintf("%s, %s, %d in flight", l.method, Size(l.size), l.depth)
}

func (o *Options) loads(size int) (list []load) {
	for _, method := range o.Methods {
		list = append(list, load{method, size, o.Depth, false}, load{method, size, 1, false}, load{method, size, o.Depth, true})
	}
	return list
}

// cellKey names a cell.
type cellKey struct {
	method string
	size   int
}

func measure(ctx context.Context, m meter, o Options, l load, all map[cellKey]*samples) (*transfer.Measurement, error) {
	ask := transfer.Load{Transport: l.method.Transport, Serve: l.method.Serve, Size: l.size, Depth: l.depth, Warmup: o.Duration / 4, Duration: o.Duration, Count: o.Count && l.depth == o.Depth && !l.open}
	if l.method.Transport == transfer.TransportRDMA {
		ask.Op = l.method.Name
	}
	key := cellKey{l.method.String(), l.size}
	if l.open {
		s := all[key]
		if s == nil || len(s.trips) == 0 {
			return nil, nil // so fast, or so slow, that nothing was timed
		}
		if s.interval == 0 { // the same in every round
			s.interval = min(wire.MaxInterval, max(1, time.Duration(s.trips[0]/openLoad*1e9)))
		}
		ask.Interval = s.interval
	}
	got, err := m.Measure(ctx, ask)
	if err != nil {
		return nil, err
	}
	s := all[key]
	if s == nil {
		s = &samples{alone: transfer.NewLatency(), loaded: transfer.NewLatency(), open: transfer.NewLatency()}
		all[key] = s
	}
	s.local, s.remote = got.Local, got.Remote
	s.datagrams.Asked += got.Datagrams
	s.datagrams.Lost += got.Lost
	if l.open {
		s.open.Merge(got.Latency)
		return got, nil
	}
	rate := float64(got.Bytes) / got.Elapsed.Seconds()
	if l.depth == o.Depth {
		s.rates = append(s.rates, rate)
		s.loaded.Merge(got.Latency)
		s.cost = append(s.cost, cost{[2]float64{rate * got.LocalTime.Seconds(), float64(got.Bytes)}, got.LocalCPU, got.Other})
		if got.LocalWork != nil {
			// This end's is of a little longer than the receiver's, as its CPU time is.
			here := rate * got.LocalTime.Seconds()
			s.work = append(s.work, [2]Work{workOf(got.LocalWork, here), workOf(got.OtherWork, float64(got.Bytes))})
		}
		s.here, s.there = most(s.here, got.LocalMemory), most(s.there, got.OtherMemory)
	}
	if l.depth == 1 {
		s.alone.Merge(got.Latency)
		if got.Latency.TotalCount() > 0 {
			s.trips = append(s.trips, float64(got.Latency.ValueAtQuantile(50))/1e9)
		}
	}
	return got, nil
}

// most is the larger of each.
func most(a, b transfer.Memory) transfer.Memory {
	return transfer.Memory{Anonymous: max(a.Anonymous, b.Anonymous), Pinned: max(a.Pinned, b.Pinned), Peak: max(a.Peak, b.Peak)}
}
