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
// Each lane has a device context, a protection domain, a completion queue and a ring
// of its own.
package rdma

import (
	"context"
	"fmt"
	"slices"
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

// ackTimeout is the queue pair's acknowledgement time-out, 4.096 µs × 2^15 = 134 ms.
// At the usual 67 ms (14) soft-RoCE on a busy emulated host sends again what was only
// late (hw_counters/completer_retry_err). The longer it is, the later is it noticed
// that a path is dead: 4 to 7 s with the 6 retries that are ibverbs' default.
const ackTimeout = 15

// headerRoom is what a header takes in memory, bytes: a cache line.
const headerRoom = 64

// recvID marks the work request IDs of receives: the opcode of a completion that
// failed is undefined.
const recvID = 1 << 63

// Transport makes both ends of RDMA lanes. The sending end's remembers what it
// offered, so one Transport is for one session.
type Transport struct {
	// Memory bounds what is registered, together with every other Transport that has
	// the same Budget; nil for as much as lanes like.
	Memory *Budget

	offered []Candidate
	op      string // what this end's user asked for
	lanes   int    // that there may be, as far as the sending end knows
}

// Name is "rdma".
func (*Transport) Name() string { return transfer.TransportRDMA }

// Offer lists where this host's RDMA can be reached, or says why nowhere.
func (t *Transport) Offer(hello *wire.Hello) {
	t.op = hello.Op
	list, err := Candidates()
	if err != nil {
		hello.RDMAReason = wire.Clip(err.Error())
		return
	}
	t.offered = list[:min(len(list), wire.MaxCandidates)]
	devices := make(map[string]bool)
	for _, c := range t.offered {
		hello.RDMA = append(hello.RDMA, c.wire())
		devices[c.Device] = true
	}
	// Unless the user says how many, there is one on each rail.
	if t.lanes = int(hello.Lanes); t.lanes == 0 {
		t.lanes = len(devices)
	}
}

// Prepare chooses the pair of addresses, and makes this end's queue pair with its
// whole ring posted.
func (t *Transport) Prepare(_ context.Context, hello *wire.Hello, p transfer.LaneParams, open *wire.OpenLane) (transfer.PendingPuller, error) {
	op := hello.Op
	if !slices.Contains(Ops, op) {
		return nil, fmt.Errorf("the sender asks for --op %q; this receiver has %v", op, Ops)
	}
	if op == OpAuto {
		op = autoOp
	}
	rail, err := findRail(hello, p.Path)
	if err != nil {
		return nil, err
	}
	pl, err := newPuller(*rail.mine, op, p, t.Memory)
	if err != nil {
		return nil, err
	}
	open.Depth = uint16(pl.depth)
	open.RDMA = pl.res.lane()
	open.RDMA.Candidate = rail.remote
	return pl, nil
}

// Answer opens the sending end.
func (t *Transport) Answer(_ context.Context, p transfer.LaneParams, open *wire.OpenLane, answer *wire.LaneAnswer) (transfer.Server, error) {
	op := open.RDMA.Op
	if !slices.Contains(Ops, op) || op == OpAuto || t.op != OpAuto && op != t.op {
		return nil, fmt.Errorf("%w: the receiver asks for op %q; the sender was told to use %s", wire.ErrMalformed, op, t.op)
	}
	n := int(open.RDMA.Candidate)
	if n >= len(t.offered) {
		return nil, fmt.Errorf("%w: the receiver chose address %d of %d", wire.ErrMalformed, n, len(t.offered))
	}
	s, err := newServer(t.offered[n], op, p, t.Memory, t.lanes)
	if err != nil {
		return nil, err
	}
	if err = s.res.agree(open.RDMA.Reads); err == nil {
		answer.RDMA = s.res.lane()
		answer.RDMA.Candidate = open.RDMA.Candidate
		err = s.res.connect(&open.RDMA.QP)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// accesses are what the peer may do to a lane's payload memory, at the receiver and at
// the sender, by op.
var accesses = map[string][2]ibverbs.Access{
	OpRead:  {0, ibverbs.AccessRemoteRead},
	OpWrite: {ibverbs.AccessRemoteWrite, 0},
	OpSend:  {0, 0},
}
