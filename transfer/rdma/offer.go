package rdma

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// offering is what a sending end has offered, and its ends of probes.
type offering struct {
	offerMu sync.Mutex
	offered []wire.Candidate // by number; what has gone keeps its own
	worth   int              // lanes, of the newest offer's ports

	probesMu sync.Mutex
	ends     map[uint32]*probeEnd
	ended    uint32 // probes below that are over
	benches  benches
}

// Offer says where this host's RDMA can be reached, or why nowhere.
func (t *Transport) Offer(hello *wire.Hello) {
	t.op, t.measures = hello.Op, hello.Measure
	t.asked = int(hello.Lanes)
	hello.RDMA = t.Reoffer()
}

// lanes is how many there may be: unless the user says how many, what each port is worth, or
// as many as may be tried, which is for the receiver's CPUs to say; this host's are as good a guess.
func (t *Transport) lanes() int {
	if t.asked > 0 {
		return t.asked
	}
	t.offerMu.Lock()
	defer t.offerMu.Unlock()
	return max(t.worth, min(transfer.AutoLanes, runtime.NumCPU()))
}

// Reoffer looks again. What was offered before keeps its number.
func (t *Transport) Reoffer() *wire.Offer {
	o := &wire.Offer{Fabric: t.Fabric.Fabric, Rails: t.Selection.Rails}
	host, err := Inventory()
	if err != nil {
		o.Reason, o.Final = wire.Clip(fmt.Errorf("%w: %w", ErrNoPath, err).Error()), final(err)
		return o
	}
	list, refused := host.Candidates(&t.Selection)
	o.Refused = clipped(refused)
	if len(list) == 0 {
		o.Reason = wire.Clip(Explain(refused).Error())
	} else if err := t.Memory.Enough(); err != nil {
		o.Reason = wire.Clip(fmt.Errorf("%w: %w", ErrNoPath, err).Error())
		return o
	}
	t.offerMu.Lock()
	defer t.offerMu.Unlock()
	ports := make(map[portName]bool)
	t.worth = 0
	for i := range list {
		c := &list[i].Candidate
		if !t.number(c) {
			continue
		}
		o.Candidates = append(o.Candidates, *c)
		if name := nameOf(c); !ports[name] {
			ports[name] = true
			t.worth += list[i].lanes()
		}
	}
	if len(o.Candidates) == 0 && o.Reason == "" {
		o.Reason = fmt.Sprintf("%v in this session any more: more than %d have come and gone", ErrNoPath, wire.MaxCandidates)
	}
	return o
}

// number gives a candidate its number, unless there are too many.
func (o *offering) number(c *wire.Candidate) bool {
	for i := range o.offered {
		old := &o.offered[i]
		if nameOf(old) == nameOf(c) && old.GID == c.GID && old.GIDType == c.GIDType && old.Netdev == c.Netdev {
			c.Number = old.Number
			*old = *c
			return true
		}
	}
	if len(o.offered) == wire.MaxCandidates {
		return false
	}
	c.Number = uint16(len(o.offered))
	o.offered = append(o.offered, *c)
	return true
}

// candidate is the one of that number.
func (o *offering) candidate(n uint16) (wire.Candidate, error) {
	o.offerMu.Lock()
	defer o.offerMu.Unlock()
	if int(n) >= len(o.offered) {
		return wire.Candidate{}, fmt.Errorf("%w: the receiver chose address %d of %d", wire.ErrMalformed, n, len(o.offered))
	}
	return o.offered[n], nil
}

// Probe opens this end of a probe.
func (t *Transport) Probe(m *wire.ProbePath) *wire.PathAnswer {
	qp, err := t.probe(m)
	if err != nil {
		return &wire.PathAnswer{ID: m.ID, Reason: wire.Clip(err.Error())}
	}
	return &wire.PathAnswer{ID: m.ID, QP: qp}
}

func (t *Transport) probe(m *wire.ProbePath) (*wire.QueuePair, error) {
	c, err := t.candidate(m.Candidate)
	if err != nil {
		return nil, err
	}
	wake(&c, ibverbs.GID(m.QP.GID).Addr())
	e, err := t.benches.newEnd(&c, m.PKey)
	if err != nil {
		return nil, err
	}
	fabric := t.Fabric.follow(&m.Fabric)
	qp := e.endpoint(&fabric)
	if err = e.receive(); err == nil {
		err = e.connect(&m.QP, &fabric)
	}
	if err == nil {
		err = t.keep(m.ID, e)
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return &qp, nil
}

// keep has an end for EndProbes to close, unless it refuses it.
func (o *offering) keep(id uint32, e *probeEnd) error {
	o.probesMu.Lock()
	defer o.probesMu.Unlock()
	switch {
	case id < o.ended:
		return errors.New("the receiver gave the probe up")
	case o.ends[id] != nil: // that one would never be closed
		return fmt.Errorf("%w: a second probe %d", wire.ErrMalformed, id)
	case o.ends == nil:
		o.ends = make(map[uint32]*probeEnd)
	}
	o.ends[id] = e
	return nil
}

// EndProbes closes this end of those below, and says which of them got something.
func (t *Transport) EndProbes(below uint32) (seen []uint32) {
	var over []*probeEnd
	t.probesMu.Lock()
	t.ended = max(t.ended, below)
	for id, e := range t.ends {
		if id >= below {
			continue
		}
		if e.seen() {
			seen = append(seen, id)
		}
		over = append(over, e)
		delete(t.ends, id)
	}
	t.probesMu.Unlock()
	go func() { // which takes longer than the receiver waits for the answer
		for _, e := range over {
			_ = e.close() // what can't be closed is of no consequence to the transfer
		}
	}()
	return seen
}

// end is one end of a lane: where it runs, and how.
type end struct {
	wire.Candidate
	pkey   uint16 // 0 for the port's first
	fabric Fabric
}

// endpoint is what the other end must know of a queue pair.
func (e *end) endpoint(local ibverbs.Endpoint) wire.QueuePair { return queuePair(local, &e.fabric) }
