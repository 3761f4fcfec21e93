//go:build linux

package rdma

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/internal/verbsperf"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Verbs measures the verbs alone: a [transfer.Verbs]. The session's transport has the paths
// that were found, what this host's user wants of the network, and the bound of what is
// registered.
type Verbs struct{ *Transport }

// verbsEnd is one end, and the memory that it has taken of the budget.
type verbsEnd struct {
	*verbsperf.End
	at      verbsperf.Port
	fabric  Fabric // in force
	passive bool
	memory  *Budget
	taken   int
}

func verbsConfig(v *wire.Verbs) verbsperf.Config {
	return verbsperf.Config{
		Op: v.Op, Latency: v.Latency, Both: v.Both, Size: int(v.Size), Depth: int(v.Depth), QPs: int(v.QPs), Chain: int(v.Chain), Signal: int(v.Signal),
		Inline: int(v.Inline), Buffers: int(v.Buffers), Events: v.Events, Spin: time.Duration(v.Spin) * time.Microsecond, MTU: ibverbs.MTU(v.MTU),
	}
}

// Passive is [transfer.Verbs].Passive.
func (v Verbs) Passive(rail string, ask *wire.Verbs) (transfer.VerbsEnd, *wire.VerbsEnd, error) {
	p := v.rail(rail)
	if p == nil {
		return nil, nil, fmt.Errorf("%w is called %q", ErrNoPath, rail)
	}
	e, told, err := v.open(&p.mine.Candidate, p.pkey, verbsConfig(ask))
	if err != nil {
		return nil, nil, err
	}
	e.passive, e.fabric = true, p.inForce(ibverbs.MTU(told.QPs[0].MTU))
	told.Candidate = p.theirs.Number
	f := e.fabric.Fabric
	if p.theirsP != 0 {
		f.PKey = &p.theirsP
	}
	if f != (wire.Fabric{}) {
		told.Fabric = &f
	}
	return e, told, nil
}

// Active is [transfer.Verbs].Active.
func (v Verbs) Active(at *wire.Candidate, pkey uint16, l transfer.VerbsLoad) (transfer.VerbsEnd, *wire.VerbsEnd, error) {
	c := verbsConfig(&l.Verbs)
	c.Iterations, c.WarmUp, c.Duration = l.Iterations, l.WarmUp, l.Duration
	e, told, err := v.open(at, pkey, c)
	if err != nil {
		return nil, nil, err
	}
	e.fabric = v.Fabric
	return e, told, nil
}

// open makes an end in a partition; 0 is the port's first.
func (v Verbs) open(at *wire.Candidate, pkey uint16, c verbsperf.Config) (*verbsEnd, *wire.VerbsEnd, error) {
	if err := c.Check(); err != nil {
		return nil, nil, err
	}
	port := verbsperf.Port{Device: at.Device, Port: int(at.Port), GIDIndex: int(at.GIDIndex)}
	if pkey != 0 {
		ctx, err := ibverbs.Open(at.Device)
		if err != nil {
			return nil, nil, err
		}
		port.PKeyIndex, err = pkeyIndex(ctx, at, pkey)
		if err = errors.Join(err, ctx.Close()); err != nil {
			return nil, nil, err
		}
	}
	memory := c.Memory()
	if v.Memory.take(1, 1, memory) == 0 {
		return nil, nil, fmt.Errorf("%w", v.Memory.spent(memory))
	}
	e := &verbsEnd{at: port, memory: v.Memory, taken: memory}
	var err error
	if e.End, err = verbsperf.Open(c, e.at); err != nil {
		v.Memory.give(memory)
		return nil, nil, err
	}
	hello := e.Hello()
	told := &wire.VerbsEnd{Addr: hello.Addr, RKey: hello.RKey, Detail: fmt.Sprintf("%s gid=%d", verbsperf.Name(at.Device), at.GIDIndex)}
	if e.GivesWay() {
		told.Detail += " gives way"
	}
	for _, q := range hello.QPs {
		told.QPs = append(told.QPs, queuePair(q, new(Fabric)))
	}
	return e, told, nil
}

// Connect is [transfer.VerbsEnd].Connect.
func (e *verbsEnd) Connect(peer *wire.VerbsEnd) error {
	h := verbsperf.Hello{Addr: peer.Addr, RKey: peer.RKey}
	for _, q := range peer.QPs {
		h.QPs = append(h.QPs, endpointOf(&q))
	}
	f := e.fabric
	if peer.Fabric != nil {
		f = f.follow(peer.Fabric)
	}
	how := f.asked()
	how.MTU = f.mtu()
	return e.End.Connect(h, e.at, how)
}

// Run is [transfer.VerbsEnd].Run.
func (e *verbsEnd) Run(ctx context.Context) (*transfer.VerbsResult, error) {
	run := e.End.Run
	if e.passive {
		run = e.Serve
	}
	r, err := run(ctx)
	if err != nil {
		return nil, err
	}
	return &transfer.VerbsResult{Messages: r.Messages, Sent: r.Sent, Received: r.Received, Elapsed: r.Elapsed, Posts: r.Posts, Trips: r.Trips, Inlined: e.Inlined(), Signal: e.Signalled(), MTU: e.PathMTU()}, nil
}

// Close is [transfer.VerbsEnd].Close.
func (e *verbsEnd) Close() error {
	err := e.End.Close()
	e.memory.give(e.taken)
	return err
}
