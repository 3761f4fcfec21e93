package rdma

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// puller is the receiving end. Its ring has depth slots. Before a request goes out, a
// receive is posted for its answer, so the sender never finds the receiver not ready.
//
// With op send a receive has a slot of its own, and answers fill the slots in the order
// in which they come. With write and read slot i is of request i: the sender writes
// there, or the receiver reads into it when the answer has said from where.
//
// The headers: depth of answers, then one of a request for each place of the send
// queue. A request's is written again only when its place is free, which a completion
// says, not the answer: until then the device may send it once more.
type puller struct {
	res    *resources
	op     string
	depth  int
	extent int
	sends  int // places of the send queue

	credits *ibverbs.SendCredits
	reserve int       // credits that READs need
	posted  int       // requests ever posted; posted % sends is the next header
	asked   []request // by the low half of the request's ID
	free    []int     // indices of asked
	moved   bool      // something was asked for since the last probe
	sink    *mapped   // nil: the ring alone
	arrived []arrival // to be landed
	wcs     []ibverbs.WC
	wrs     []ibverbs.SendWR
	recv    []ibverbs.RecvWR
}

// request is what is known of a request in flight.
type request struct {
	extent transfer.Extent
	turn   uint16 // high half of its ID: an answer to an earlier one is not for this
	state  requestState
}

type requestState int

const (
	idle     requestState = iota
	waiting               // for the answer
	answered              // its bytes are read, or landed
)

// arrival says that the bytes of request i are in a slot.
type arrival struct{ i, slot int }

// arrivals is how many completions are taken in one go. More of them land one after
// the other before the next requests go out.
const arrivals = 4

// readID marks the work request IDs of READs; the rest is the request's index.
const readID = 1 << 62

// newPuller makes the end with as deep a ring as there is memory for, but with no fewer
// places than least.
func newPuller(c end, op, sink string, p transfer.LaneParams, least int, memory *Budget) (*puller, error) {
	return shallower(p.Depth, least, func(depth int) (*puller, error) {
		p.Depth = depth
		return makePuller(c, op, sink, p, least, memory)
	})
}

func makePuller(c end, op, sink string, p transfer.LaneParams, least int, memory *Budget) (*puller, error) {
	unit := p.ExtentSize
	if sink = sinkOf(sink, op); sink == SinkMapped {
		unit *= 2 // an extent may be pinned in its file, too
	}
	depth := memory.take(p.Depth, least, unit)
	if depth == 0 {
		return nil, memory.spent(least * unit)
	}
	pl := &puller{op: op, depth: depth, extent: p.ExtentSize, sends: 2 * depth}
	if op == OpRead {
		pl.reserve = pl.depth
		pl.sends += 2 * pl.depth
	}
	res, err := acquire(c, memory, shape{
		op:        op,
		payload:   pl.depth * pl.extent,
		beside:    pl.depth * (unit - pl.extent),
		access:    accesses[op][0],
		headers:   pl.depth + pl.sends,
		sends:     pl.sends,
		recvs:     pl.depth,
		reads:     pl.depth,
		initiator: true,
	})
	if err != nil {
		return nil, err
	}
	pl.res = res
	if sink == SinkMapped {
		pl.sink = newMapped(res, depth, pl.extent)
	}
	pl.credits = ibverbs.NewSendCredits(pl.sends, pl.depth/2)
	pl.asked = make([]request, pl.depth)
	pl.wcs = make([]ibverbs.WC, arrivals)
	pl.arrived = make([]arrival, 0, arrivals)
	pl.wrs = make([]ibverbs.SendWR, 0, pl.depth+arrivals)
	for i := range pl.depth {
		pl.free = append(pl.free, i)
		pl.repost(i)
	}
	if _, err := res.prep.PostRecv(pl.recv); err != nil {
		res.close()
		return nil, err
	}
	pl.recv = pl.recv[:0]
	return pl, nil
}

// repost puts a receive into the batch that is posted next.
func (pl *puller) repost(n int) {
	wr := ibverbs.RecvWR{ID: uint64(n) | recvID, NumSGE: 1}
	wr.SGE[0] = pl.res.headSGE(n)
	if pl.op == OpSend {
		wr.NumSGE = 2
		wr.SGE[1] = pl.res.data.SGE(n*pl.extent, pl.extent)
	}
	pl.recv = append(pl.recv, wr)
}

// Connect brings the queue pair up and probes it with one request for nothing.
func (pl *puller) Connect(ctx context.Context, answer *wire.LaneAnswer) (transfer.Puller, error) {
	_, err := unlessHung(ctx, pl.res.cand.Device, func() (*puller, error) {
		err := pl.connect(ctx, answer)
		if err != nil {
			pl.Close()
		}
		return pl, err
	})
	if errors.Is(err, errNotAsked) {
		pl.Close()
	}
	if err != nil {
		return nil, err
	}
	return pl, nil
}

func (pl *puller) connect(ctx context.Context, answer *wire.LaneAnswer) error {
	if answer.RDMA == nil || answer.RDMA.Op != pl.op {
		return fmt.Errorf("%w: an RDMA lane without a queue pair, or of another op", wire.ErrMalformed)
	}
	if err := pl.res.agree(answer.RDMA.Reads); err != nil {
		return err
	}
	if err := pl.res.connect(&answer.RDMA.QP); err != nil {
		return err
	}
	return pl.probe(ctx, answer)
}

func (pl *puller) probe(ctx context.Context, answer *wire.LaneAnswer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, probeLimit, fmt.Errorf("no answer within %v", probeLimit))
	defer cancel()
	pl.post(transfer.Extent{})
	err := pl.flush()
	for err == nil && len(pl.free) < pl.depth {
		err = pl.handle(ctx, nil)
	}
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	suspect := "is UDP port 4791 open between the hosts?"
	if !pl.res.cand.Ethernet {
		suspect = "does the subnet manager route between them?"
	}
	return fmt.Errorf("queue pairs of %s (%v) and the sender's %s (%v) are connected, but nothing comes back (%s): %w",
		pl.res.cand.Device, addrOf(&pl.res.cand.Candidate), answer.RDMA.Device, ibverbs.GID(answer.RDMA.QP.GID).Addr(), suspect, err)
}

// Describe names the device, the GID, the MTU, the op, and where the bytes land.
func (pl *puller) Describe() string { return pl.res.describe() + " sink=" + pl.sink.name() }

// Close destroys the queue pair and deregisters what it could write to: after it nothing
// lands.
func (pl *puller) Close() error {
	return errors.Join(pl.res.disconnect(), pl.sink.close(), pl.res.close())
}

// Pull keeps as many requests in flight as there are slots.
func (pl *puller) Pull(ctx context.Context, f transfer.Feed) error {
	defer stayOn(int(pl.res.cand.Node))()
	pl.sink.begin(f)
	for {
		err := ctx.Err() // WaitPoll sees its end when nothing has completed
		if err == nil {
			err = pl.ask(ctx, f)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = pl.handle(ctx, f)
		}
		if err != nil {
			return err
		}
	}
}

// ask posts as many requests as there are extents, slots and places in the send
// queue, with one doorbell. It waits for an extent only when nothing is in flight; a
// probe before that tells the sender that it may let go of what it holds.
func (pl *puller) ask(ctx context.Context, f transfer.Feed) error {
	for len(pl.free) > 0 && pl.credits.Free() > pl.reserve {
		e, ok := f.TryNext()
		if !ok && len(pl.free) < pl.depth {
			break
		}
		if !ok && pl.moved {
			pl.moved = false
			pl.post(transfer.Extent{})
			break
		}
		if !ok {
			var err error
			if e, err = f.Next(ctx); err != nil {
				return err
			}
		}
		if pl.op == OpWrite && !pl.sink.place(pl.free[len(pl.free)-1], e) {
			continue // its file has failed
		}
		pl.moved = true
		pl.post(e)
	}
	return pl.flush()
}

// post puts a request into the batch. An extent of no bytes makes it a probe.
func (pl *puller) post(e transfer.Extent) {
	i := pl.free[len(pl.free)-1]
	pl.free = pl.free[:len(pl.free)-1]
	a := &pl.asked[i]
	*a = request{extent: e, turn: a.turn + 1, state: waiting}

	at := pl.depth + pl.posted%pl.sends
	r := e.Request(uint32(a.turn)<<16 | uint32(i))
	if pl.op == OpWrite {
		r.RKey, r.Addr = pl.res.data.RKey(), pl.res.data.Addr(i*pl.extent)
		if mr := pl.sink.region(i); mr != nil {
			r.RKey, r.Addr = mr.RKey(), mr.Addr(0)
		}
	}
	r.Put(pl.res.head(at))
	wr := ibverbs.SendWR{Opcode: ibverbs.OpSend, NumSGE: 1}
	wr.SGE[0] = pl.res.headSGE(at)
	pl.credits.Take(&wr)
	pl.wrs = append(pl.wrs, wr)
	pl.posted++
}

// read puts the READ of request i's bytes into the batch, from where the sender says
// they are: that only leads it into our own slot, or file. The requests of which there are
// credits for leave a READ for each of them.
func (pl *puller) read(i int, a *wire.Answer) {
	if !pl.sink.place(i, pl.asked[i].extent) {
		pl.settle(i)
		return
	}
	wr := ibverbs.SendWR{ID: uint64(i) | readID, Opcode: ibverbs.OpRead, Flags: ibverbs.SendSignaled, RKey: a.RKey, RemoteAddr: a.Addr, NumSGE: 1}
	if mr := pl.sink.region(i); mr != nil {
		wr.SGE[0] = mr.SGE(0, pl.asked[i].extent.Len)
	} else {
		wr.SGE[0] = pl.res.data.SGE(i*pl.extent, pl.asked[i].extent.Len)
	}
	pl.credits.Take(&wr)
	pl.wrs = append(pl.wrs, wr)
}

// flush posts what has been batched: receives first, so that every request that
// is under way has its slot.
func (pl *puller) flush() error {
	if _, err := pl.res.qp.PostRecv(pl.recv); err != nil {
		return err
	}
	pl.recv = pl.recv[:0]
	if _, err := pl.res.qp.PostSend(pl.wrs); err != nil {
		return err
	}
	pl.wrs = pl.wrs[:0]
	return nil
}

// handle waits for completions and lands what has arrived. READs are posted before
// anything lands: the device works meanwhile.
func (pl *puller) handle(ctx context.Context, f transfer.Feed) error {
	n, err := pl.res.cq.WaitPoll(ctx, pl.wcs)
	if err != nil {
		return err
	}
	for i := range pl.wcs[:n] {
		if err := pl.completed(&pl.wcs[i], f); err != nil {
			return err
		}
	}
	if len(pl.wrs) > 0 {
		if err := pl.flush(); err != nil {
			return err
		}
	}
	for _, a := range pl.arrived {
		e := pl.asked[a.i].extent
		mapped, err := pl.sink.land(a.i, e)
		if err == nil && !mapped {
			err = f.Land(e, pl.res.data.Bytes()[a.slot*pl.extent:][:e.Len])
		}
		if err != nil {
			return err
		}
		pl.settle(a.i)
		if pl.op == OpSend {
			pl.repost(a.slot)
		}
	}
	pl.arrived = pl.arrived[:0]
	return nil
}

// settle makes an index free for another request.
func (pl *puller) settle(i int) {
	pl.asked[i].state = idle
	pl.free = append(pl.free, i)
}

func (pl *puller) completed(wc *ibverbs.WC, f transfer.Feed) error {
	switch {
	case wc.Status != ibverbs.WCSuccess:
		return pl.res.failure(wc)
	case wc.ID&recvID != 0:
		return pl.answer(int(wc.ID&^recvID), int(wc.ByteLen), f)
	}
	pl.credits.Complete()
	if wc.ID&readID != 0 {
		i := int(wc.ID &^ readID)
		pl.arrived = append(pl.arrived, arrival{i, i})
	}
	return nil
}

// answer checks that the nth receive's answer, a message of so many bytes, was asked
// for, and takes the next step with it.
func (pl *puller) answer(n, bytes int, f transfer.Feed) error {
	if bytes < wire.HeaderSize {
		return fmt.Errorf("%w: an answer of %d bytes", wire.ErrMalformed, bytes)
	}
	a, err := wire.ParseAnswer(pl.res.head(n))
	if err != nil {
		return err
	}
	i := int(a.ID & 0xffff)
	if i >= len(pl.asked) || pl.asked[i].state != waiting || pl.asked[i].turn != uint16(a.ID>>16) {
		return fmt.Errorf("%w: an answer to no request (%d)", wire.ErrMalformed, a.ID)
	}
	e := pl.asked[i].extent
	payload := 0
	if pl.op == OpSend {
		payload = int(a.Length)
	}
	if bytes != wire.HeaderSize+payload || a.Status == wire.StatusOK && int(a.Length) != e.Len {
		return fmt.Errorf("%w: an answer of %d bytes to a request for %d", wire.ErrMalformed, a.Length, e.Len)
	}
	pl.asked[i].state = answered
	switch {
	case e.Len == 0 || a.Status != wire.StatusOK:
		if e.Len > 0 {
			if err := pl.sink.end(i); err != nil {
				return err
			}
			f.Refuse(e)
		}
		pl.settle(i)
	case pl.op == OpSend:
		pl.arrived = append(pl.arrived, arrival{i, n})
		return nil // its slot is in use: the receive is posted again when that has landed
	case pl.op == OpWrite:
		pl.arrived = append(pl.arrived, arrival{i, i})
	case pl.op == OpRead:
		pl.read(i, &a)
	}
	pl.repost(n)
	return nil
}
