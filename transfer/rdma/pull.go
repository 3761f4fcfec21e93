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

// puller is the receiving end. Its ring has depth slots; before a request goes
// out, a slot is posted for its answer, so the sender never finds the receiver
// not ready. Answers fill the slots in the order in which they come.
//
// The ring's memory: depth extents, then depth answer headers, then a request
// header for each place of the send queue. A request header is written again only
// when its place is free, which a completion says, not the answer: until then the
// device may send it once more.
type puller struct {
	res    *resources
	depth  int
	extent int
	sends  int // places of the send queue

	credits *ibverbs.SendCredits
	posted  int       // requests ever posted; posted % sends is the next header
	asked   []request // by the low half of the request's ID
	free    []int     // indices of asked
	wcs     []ibverbs.WC
	wrs     []ibverbs.SendWR
	recv    []ibverbs.RecvWR
}

// request is what is known of a request in flight.
type request struct {
	extent transfer.Extent
	turn   uint16 // high half of its ID: an answer to an earlier one is not for this
	busy   bool
}

func newPuller(c Candidate, p transfer.LaneParams) (*puller, error) {
	pl := &puller{depth: p.Depth, extent: p.ExtentSize, sends: 2 * p.Depth}
	ring := pl.depth*(pl.extent+headerRoom) + pl.sends*headerRoom
	res, err := acquire(c, ring, pl.sends, pl.depth)
	if err != nil {
		return nil, err
	}
	pl.res = res
	pl.credits = ibverbs.NewSendCredits(pl.sends, pl.depth/2)
	pl.asked = make([]request, pl.depth)
	pl.wcs = make([]ibverbs.WC, 4)
	pl.wrs = make([]ibverbs.SendWR, 0, pl.depth)
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

// repost puts a slot into the batch of receives that is posted next.
func (pl *puller) repost(slot int) {
	wr := ibverbs.RecvWR{ID: uint64(slot) | recvID, NumSGE: 2}
	wr.SGE[0] = pl.res.mr.SGE(pl.answerHeader(slot), wire.HeaderSize)
	wr.SGE[1] = pl.res.mr.SGE(slot*pl.extent, pl.extent)
	pl.recv = append(pl.recv, wr)
}

// recvID marks the work request IDs of receives: the opcode of a completion that
// failed is undefined.
const recvID = 1 << 63

func (pl *puller) answerHeader(slot int) int   { return pl.depth*pl.extent + slot*headerRoom }
func (pl *puller) requestHeader(place int) int { return pl.answerHeader(pl.depth) + place*headerRoom }

// Connect brings the queue pair up and probes it with one request for nothing.
func (pl *puller) Connect(ctx context.Context, answer *wire.LaneAnswer) (transfer.Puller, error) {
	if answer.RDMA == nil {
		pl.Close()
		return nil, fmt.Errorf("%w: an RDMA lane without a queue pair", wire.ErrMalformed)
	}
	err := pl.res.connect(&answer.RDMA.QP)
	if err == nil {
		err = pl.probe(ctx, answer)
	}
	if err != nil {
		pl.Close()
		return nil, err
	}
	return pl, nil
}

func (pl *puller) probe(ctx context.Context, answer *wire.LaneAnswer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, probeLimit, fmt.Errorf("no answer within %v", probeLimit))
	defer cancel()
	pl.post(transfer.Extent{})
	err := pl.flush()
	for err == nil && len(pl.free) < pl.depth {
		err = pl.handle(ctx, probeFeed{})
	}
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("queue pairs of %s (%v) and the sender's %s (%v) are connected, but nothing comes back (is UDP port 4791 open between the hosts?): %w",
		pl.res.cand.Device, pl.res.cand.GID.Addr(), answer.RDMA.Device, ibverbs.GID(answer.RDMA.QP.GID).Addr(), err)
}

// probeFeed takes the answer to the probe.
type probeFeed struct{ transfer.Feed }

func (probeFeed) Land(_ transfer.Extent, p []byte) error {
	if len(p) != 0 {
		return fmt.Errorf("%w: a probe was answered with data", wire.ErrMalformed)
	}
	return nil
}

func (probeFeed) Refuse(transfer.Extent) {}

// Describe names the device, the GID and the MTU.
func (pl *puller) Describe() string { return pl.res.describe() }

// Close destroys the queue pair and deregisters the ring: after it nothing lands.
func (pl *puller) Close() error { return pl.res.close() }

// Pull keeps as many requests in flight as there are slots.
func (pl *puller) Pull(ctx context.Context, f transfer.Feed) error {
	for {
		err := pl.ask(ctx, f)
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
// queue, with one doorbell. It waits for an extent only when nothing is in flight.
func (pl *puller) ask(ctx context.Context, f transfer.Feed) error {
	for len(pl.free) > 0 && pl.credits.Free() > 0 {
		e, ok := f.TryNext()
		if !ok && len(pl.free) < pl.depth {
			break
		}
		if !ok {
			var err error
			if e, err = f.Next(ctx); err != nil {
				return err
			}
		}
		pl.post(e)
	}
	return pl.flush()
}

// post puts a request into the batch.
func (pl *puller) post(e transfer.Extent) {
	i := pl.free[len(pl.free)-1]
	pl.free = pl.free[:len(pl.free)-1]
	a := &pl.asked[i]
	*a = request{extent: e, turn: a.turn + 1, busy: true}

	at := pl.requestHeader(pl.posted % pl.sends)
	r := e.Request(uint32(a.turn)<<16 | uint32(i))
	r.Put(pl.res.mr.Bytes()[at:])
	wr := ibverbs.SendWR{Opcode: ibverbs.OpSend, NumSGE: 1}
	wr.SGE[0] = pl.res.mr.SGE(at, wire.HeaderSize)
	pl.credits.Take(&wr)
	pl.wrs = append(pl.wrs, wr)
	pl.posted++
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

// handle waits for completions and lands what has arrived.
func (pl *puller) handle(ctx context.Context, f transfer.Feed) error {
	n, err := pl.res.cq.WaitPoll(ctx, pl.wcs)
	if err != nil {
		return err
	}
	for i := range pl.wcs[:n] {
		wc := &pl.wcs[i]
		if wc.Status != ibverbs.WCSuccess {
			return pl.res.failure(wc)
		}
		if wc.ID&recvID == 0 {
			pl.credits.Complete()
			continue
		}
		slot := int(wc.ID &^ recvID)
		if err := pl.land(f, slot, int(wc.ByteLen)); err != nil {
			return err
		}
		pl.repost(slot)
	}
	return nil
}

// land checks that the answer in a slot was asked for and hands its bytes on.
func (pl *puller) land(f transfer.Feed, slot, n int) error {
	if n < wire.HeaderSize {
		return fmt.Errorf("%w: an answer of %d bytes", wire.ErrMalformed, n)
	}
	at := pl.answerHeader(slot)
	a, err := wire.ParseAnswer(pl.res.mr.Bytes()[at : at+wire.HeaderSize])
	if err != nil {
		return err
	}
	i := int(a.ID & 0xffff)
	if i >= len(pl.asked) || !pl.asked[i].busy || pl.asked[i].turn != uint16(a.ID>>16) {
		return fmt.Errorf("%w: an answer to no request (%d)", wire.ErrMalformed, a.ID)
	}
	e := pl.asked[i].extent
	if int(a.Length) != n-wire.HeaderSize || a.Status == wire.StatusOK && int(a.Length) != e.Len {
		return fmt.Errorf("%w: an answer of %d bytes to a request for %d", wire.ErrMalformed, a.Length, e.Len)
	}
	pl.asked[i].busy = false
	pl.free = append(pl.free, i)
	if a.Status != wire.StatusOK {
		f.Refuse(e)
		return nil
	}
	return f.Land(e, pl.res.mr.Bytes()[slot*pl.extent:][:a.Length])
}
