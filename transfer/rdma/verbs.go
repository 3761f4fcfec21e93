//go:build linux

package rdma

import (
	"context"
	"fmt"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/internal/verbsperf"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Verbs measures the verbs alone: a [transfer.Verbs].
type Verbs struct {
	// Memory bounds what is registered, as for lanes; nil for as much as is asked for.
	Memory *Budget
	// Selection is what this host's user chose of its devices.
	Selection Selection
}

// verbsEnd is one end, and the memory that it has taken of the budget.
type verbsEnd struct {
	*verbsperf.End
	at      verbsperf.Port
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
func (v Verbs) Passive(hello *wire.Hello, ask *wire.Verbs) (transfer.VerbsEnd, *wire.VerbsEnd, error) {
	mine, remote, err := Rail(hello, &v.Selection)
	if err != nil {
		return nil, nil, err
	}
	e, told, err := v.open(&mine, verbsConfig(ask))
	if err != nil {
		return nil, nil, err
	}
	e.passive = true
	told.Candidate = remote
	return e, told, nil
}

// Active is [transfer.Verbs].Active.
func (v Verbs) Active(at *wire.Candidate, l transfer.VerbsLoad) (transfer.VerbsEnd, *wire.VerbsEnd, error) {
	c := verbsConfig(&l.Verbs)
	c.Iterations, c.WarmUp, c.Duration = l.Iterations, l.WarmUp, l.Duration
	e, told, err := v.open(at, c)
	if err != nil {
		return nil, nil, err
	}
	return e, told, nil
}

func (v Verbs) open(at *wire.Candidate, c verbsperf.Config) (*verbsEnd, *wire.VerbsEnd, error) {
	if err := c.Check(); err != nil {
		return nil, nil, err
	}
	memory := c.Memory()
	if v.Memory.take(1, 1, memory) == 0 {
		return nil, nil, fmt.Errorf("%w", v.Memory.spent(memory))
	}
	e := &verbsEnd{at: verbsperf.Port{Device: at.Device, Port: int(at.Port), GIDIndex: int(at.GIDIndex)}, memory: v.Memory, taken: memory}
	var err error
	if e.End, err = verbsperf.Open(c, e.at); err != nil {
		v.Memory.give(memory)
		return nil, nil, err
	}
	hello := e.Hello()
	told := &wire.VerbsEnd{Addr: hello.Addr, RKey: hello.RKey, Detail: fmt.Sprintf("%s gid=%d", at.Device, at.GIDIndex)}
	if e.GivesWay() {
		told.Detail += " gives way"
	}
	for _, q := range hello.QPs {
		told.QPs = append(told.QPs, wire.QueuePair{QPN: q.QPN, PSN: q.PSN, GID: q.GID, LID: q.LID, MTU: uint8(q.MTU)})
	}
	return e, told, nil
}

// Connect is [transfer.VerbsEnd].Connect.
func (e *verbsEnd) Connect(peer *wire.VerbsEnd) error {
	h := verbsperf.Hello{Addr: peer.Addr, RKey: peer.RKey}
	for _, q := range peer.QPs {
		h.QPs = append(h.QPs, ibverbs.Endpoint{QPN: q.QPN, PSN: q.PSN, GID: q.GID, LID: q.LID, MTU: ibverbs.MTU(q.MTU)})
	}
	return e.End.Connect(h, e.at)
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
	return &transfer.VerbsResult{Messages: r.Messages, Sent: r.Sent, Received: r.Received, Elapsed: r.Elapsed, Posts: r.Posts, Trips: r.Trips, Inlined: e.Inlined(), MTU: e.PathMTU()}, nil
}

// Close is [transfer.VerbsEnd].Close.
func (e *verbsEnd) Close() error {
	err := e.End.Close()
	e.memory.give(e.taken)
	return err
}
