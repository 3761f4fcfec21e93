// Package rdma makes lanes of reliable-connected queue pairs.
//
// Requests and answers are SENDs. How the bytes of an extent travel is the lane's op:
//
//   - send: the answer carries them. They land in a slot that the receiver posted
//     before it asked, so nothing of either host is remotely readable or writable.
//   - write: the request names a slot of the receiver's ring; the sender WRITEs into
//     it and answers behind that. The ring alone is remotely writable.
//   - read: the answer names where the bytes lie, and the receiver READs them into a
//     slot. The sender's pool and its windows of the file are remotely readable.
//
// With write and read an extent can also land in the file itself (see [Sinks]).
//
// Each lane has a device context, a protection domain, a completion queue and a ring
// of its own.
package rdma

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// The ops.
const (
	OpAuto  = "auto" // the receiver chooses
	OpRead  = "read"
	OpWrite = "write"
	OpSend  = "send"
)

// Ops are the ops that a sender can be asked for.
var Ops = []string{OpAuto, OpRead, OpWrite, OpSend}

// autoOp is what auto is: with send neither host can touch the other's memory.
const autoOp = OpSend

// probeLimit bounds the first round trip over a new queue pair.
const probeLimit = 6 * time.Second

// headerRoom is what a header takes in memory, bytes: a cache line.
const headerRoom = 64

// recvID marks the work request IDs of receives: the opcode of a completion that
// failed is undefined.
const recvID = 1 << 63

// Transport makes both ends of RDMA lanes. Either end's remembers what was offered and
// found, so one Transport is for one session.
type Transport struct {
	// Memory bounds what is registered, together with every other Transport that has
	// the same Budget; nil for as much as lanes like.
	Memory *Budget
	// Selection is what this host's user chose of its devices, and Fabric what they want
	// of the network.
	Selection Selection
	Fabric    Fabric
	// Sink is where the receiving end lands extents: one of Sinks; empty for auto.
	Sink string
	// Source is where the sending end has them from: one of Sources; empty for auto.
	Source string

	// The receiving end's. Paths are looked for by one goroutine at a time, which the
	// first two belong to.
	offer  *wire.Offer // the sender's newest
	probes uint32      // that were made
	mu     sync.Mutex
	rails  map[string]*pair // that were found, by name

	// The sending end's.
	op       string // what this end's user asked for
	asked    int    // lanes, by the sending end's user; 0: what pays
	measures bool   // lanes are measured
	offering
}

// Name is "rdma".
func (*Transport) Name() string { return transfer.TransportRDMA }

// Prepare makes this end's queue pair of a path, with its whole ring posted.
func (t *Transport) Prepare(ctx context.Context, hello *wire.Hello, p transfer.LaneParams, open *wire.OpenLane) (transfer.PendingPuller, error) {
	op := hello.Op
	if !slices.Contains(Ops, op) {
		return nil, fmt.Errorf("the sender asks for --op %q; this receiver has %v", op, Ops)
	}
	if op == OpAuto {
		op = autoOp
	}
	rail := t.rail(p.Path)
	if rail == nil {
		return nil, fmt.Errorf("%w is called %q", ErrNoPath, p.Path)
	}
	pl, err := unlessHung(ctx, rail.mine.Device, func() (*puller, error) {
		return newPuller(end{rail.mine.Candidate, rail.pkey, rail.inForce(ibverbs.MTU(rail.mine.MTU))}, op, t.Sink, p, leastOf(p.Depth, hello.Measure), t.Memory)
	})
	if err != nil {
		return nil, err
	}
	open.Depth = uint16(pl.depth)
	open.RDMA = pl.res.lane()
	open.RDMA.Candidate = rail.theirs.Number
	open.RDMA.PKey = rail.theirsP
	open.RDMA.Fabric = t.Fabric.Fabric
	return pl, nil
}

// rail is one that was found.
func (t *Transport) rail(name string) *pair {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rails[name]
}

// Answer opens the sending end.
func (t *Transport) Answer(ctx context.Context, p transfer.LaneParams, open *wire.OpenLane, answer *wire.LaneAnswer) (transfer.Server, error) {
	op := open.RDMA.Op
	if !slices.Contains(Ops, op) || op == OpAuto || t.op != OpAuto && op != t.op {
		return nil, fmt.Errorf("%w: the receiver asks for op %q; the sender was told to use %s", wire.ErrMalformed, op, t.op)
	}
	c, err := t.candidate(open.RDMA.Candidate)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	var lane *wire.RDMALane
	s, err := unlessHung(ctx, c.Device, func() (*server, error) {
		s, err := newServer(end{c, open.RDMA.PKey, t.Fabric.follow(&open.RDMA.Fabric)}, op, t.Source, p, leastOf(p.Depth, t.measures), t.Memory, t.lanes())
		if err != nil {
			return nil, err
		}
		if err = s.res.agree(open.RDMA.Reads); err == nil {
			lane = s.res.lane()
			err = s.res.connect(&open.RDMA.QP)
		}
		if err != nil {
			s.Close()
			return nil, err
		}
		return s, nil
	})
	if err != nil {
		return nil, err
	}
	lane.Candidate = open.RDMA.Candidate
	answer.RDMA = lane
	return s, nil
}

// leastOf is how shallow a lane may be that is asked to have room for so many requests: one
// that is measured is to be what it is said to be, or not at all.
func leastOf(depth int, measured bool) int {
	if measured {
		return depth
	}
	return leastDepth
}

// accesses are what the peer may do to a lane's payload memory, at the receiver and at
// the sender, by op.
var accesses = map[string][2]ibverbs.Access{
	OpRead:  {0, ibverbs.AccessRemoteRead},
	OpWrite: {ibverbs.AccessRemoteWrite, 0},
	OpSend:  {0, 0},
}
