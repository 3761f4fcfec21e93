package rdma

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// server is the sending end. The bytes of an extent go out of a window of the file
// where there is one, and otherwise out of the pool: registered buffers that they are
// read into.
//
// What an answer stands for, a buffer or a part of a window, is lent until the device
// has sent it (send, write: the answer's completion says so) or until the receiver has
// read it (read: its next request of the same index, or a probe, says so).
//
// The headers: one of an answer for each place of the send queue, then depth of
// requests, which are posted as receives.
type server struct {
	res    *resources
	op     string
	depth  int // requests in flight
	pool   int // buffers
	extent int
	sends  int // places of the send queue
	wants  int // of them, by an answer

	windows *windows
	credits *ibverbs.SendCredits
	posted  uint64         // answers ever posted; posted % sends is the next header
	freed   uint64         // of them, those that the device is done with
	free    []int          // buffers of the pool
	lent    []loan         // send, write: by answer % sends; read: by the request's index
	pending []wire.Request // asked for and not answered yet
	told    []told         // batched, and the source does not know yet that they are sent
	resting bool           // nothing was asked for since the last probe: no window is kept
	wcs     []ibverbs.WC
	recv    []ibverbs.RecvWR
	wrs     []ibverbs.SendWR
	scratch []byte // one extent, to take the digest of what was sent from a window
}

// loan is what an answer stands for: a part of a window, a buffer, or nothing.
type loan struct {
	window *window
	buffer int // from 1
}

type told struct {
	r wire.Request
	p []byte // nil: sent from a window
}

// newServer makes the end, as one of so many lanes that share the memory, with no fewer
// buffers than least. What is lent with read comes back when the receiver asks for more, so
// there it takes a buffer for each request; with the others a shallower pool is slower and
// no more.
func newServer(c end, op, source string, p transfer.LaneParams, least int, memory *Budget, lanes int) (*server, error) {
	if op == OpRead {
		least = p.Depth
	}
	return shallower(p.Depth, least, func(pool int) (*server, error) {
		return makeServer(c, op, source, p, pool, least, memory, lanes)
	})
}

func makeServer(c end, op, source string, p transfer.LaneParams, most, least int, memory *Budget, lanes int) (*server, error) {
	pool := memory.take(most, least, p.ExtentSize)
	if pool == 0 {
		return nil, memory.spent(least * p.ExtentSize)
	}
	s := &server{op: op, depth: p.Depth, pool: pool, extent: p.ExtentSize, wants: 1}
	if op == OpWrite {
		s.wants = 2
	}
	s.sends = s.wants * s.depth
	res, err := acquire(c, memory, shape{
		op:      op,
		payload: s.pool * s.extent,
		access:  accesses[op][1],
		headers: s.sends + s.depth,
		sends:   s.sends,
		recvs:   s.depth,
		reads:   s.depth,
	})
	if err != nil {
		return nil, err
	}
	s.res = res
	s.credits = ibverbs.NewSendCredits(s.sends, s.wants*s.pool/4) // before the pool is all lent
	s.lent = make([]loan, s.sends)
	s.wcs = make([]ibverbs.WC, 8)
	s.pending = make([]wire.Request, 0, s.depth)
	s.told = make([]told, 0, s.depth)
	s.wrs = make([]ibverbs.SendWR, 0, s.sends)
	for i := range s.pool {
		s.free = append(s.free, i+1)
	}
	for i := range s.depth {
		s.repost(i)
	}
	if _, err := res.prep.PostRecv(s.recv); err != nil {
		res.close()
		return nil, err
	}
	s.recv = s.recv[:0]
	s.windows = newWindows(res, source, accesses[op][1], lanes)
	return s, nil
}

func (s *server) repost(i int) {
	wr := ibverbs.RecvWR{ID: uint64(i) | recvID, NumSGE: 1}
	wr.SGE[0] = s.res.headSGE(s.sends + i)
	s.recv = append(s.recv, wr)
}

// Describe names the device, the GID, the MTU, the op, and where the bytes come from.
func (s *server) Describe() string { return s.res.describe() + " source=" + s.windows.source() }

// Close destroys the queue pair, and then frees what it could read.
func (s *server) Close() error {
	return errors.Join(s.res.disconnect(), s.windows.close(), s.res.close())
}

// Serve answers requests in the order in which they come.
func (s *server) Serve(ctx context.Context, src *transfer.Source) error {
	defer stayOn(int(s.res.cand.Node))()
	for ctx.Err() == nil { // WaitPoll sees its end when nothing has completed
		n, err := s.res.cq.WaitPoll(ctx, s.wcs)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		for i := range s.wcs[:n] {
			if err := s.completed(src, &s.wcs[i]); err != nil {
				return err
			}
		}
		// Receives go back before an answer lets the receiver ask for more.
		if _, err := s.res.qp.PostRecv(s.recv); err != nil {
			return err
		}
		s.recv = s.recv[:0]
		answered := 0
		for _, r := range s.pending {
			if len(s.free) == 0 || s.credits.Free() < s.wants {
				break
			}
			if err := s.reply(src, r); err != nil {
				return err
			}
			answered++
		}
		s.pending = append(s.pending[:0], s.pending[answered:]...)
		if err := s.flush(src); err != nil {
			return err
		}
		if s.resting { // what is lent, or made, still goes when it is back: that completes, or wakes
			s.windows.evict(src, nil)
		}
	}
	return nil
}

// completed takes a request, or takes back what answers stood for.
func (s *server) completed(src *transfer.Source, wc *ibverbs.WC) error {
	if wc.Status != ibverbs.WCSuccess {
		return s.res.failure(wc)
	}
	if wc.ID&recvID == 0 {
		s.credits.Complete()
		for ; s.freed < wc.ID; s.freed++ {
			if s.op != OpRead {
				s.takeBack(int(s.freed % uint64(s.sends)))
			}
		}
		return nil
	}
	if len(s.pending) == s.depth {
		return errors.New("the receiver has more requests in flight than it said")
	}
	i := int(wc.ID &^ recvID)
	r, err := wire.ParseRequest(s.res.head(s.sends + i)[:min(int(wc.ByteLen), wire.HeaderSize)])
	if err != nil {
		return err
	}
	if s.resting = r.Length == 0; s.resting && s.op == OpRead {
		for n := range s.lent { // by the receiver's word
			s.takeBack(n)
		}
	}
	if s.op == OpRead {
		if index(r) >= s.depth {
			return fmt.Errorf("%w: a request %d in flight of %d", wire.ErrMalformed, index(r), s.depth)
		}
		s.takeBack(index(r))
	}
	s.pending = append(s.pending, r)
	s.repost(i)
	return nil
}

// index is the low half of a request's ID: its place among those in flight.
func index(r wire.Request) int { return int(r.ID & 0xffff) }

// takeBack ends the nth loan.
func (s *server) takeBack(n int) {
	l := &s.lent[n]
	if l.window != nil {
		l.window.lent--
	}
	if l.buffer > 0 {
		s.free = append(s.free, l.buffer)
	}
	*l = loan{}
}

// reply batches the answer to one request. What comes out of the pool is posted at
// once, for the device to work while the next is read.
func (s *server) reply(src *transfer.Source, r wire.Request) error {
	a := wire.Answer{ID: r.ID}
	var sge ibverbs.SGE
	var l loan
	var err error
	if r.Length > 0 { // else it is a probe
		if sge, l, err = s.find(src, r); err != nil {
			return err
		}
		a.Length = r.Length
		if l == (loan{}) {
			a.Length, a.Status = 0, wire.StatusFailed
		}
	}
	s.post(r, a, sge, l)
	if l.buffer > 0 {
		return s.flush(src)
	}
	return nil
}

// find gets at the bytes of an extent. No loan means that the file has failed.
func (s *server) find(src *transfer.Source, r wire.Request) (ibverbs.SGE, loan, error) {
	if w := s.windows.find(r); w != nil {
		file, err := src.File(r)
		if file == nil || err != nil {
			return ibverbs.SGE{}, loan{}, err
		}
		w.lent++ // first: what is lent is not given up for the one ahead
		s.windows.ahead(src, w, r, file)
		s.told = append(s.told, told{r: r})
		return w.sge(r), loan{window: w}, nil
	}
	buffer := s.free[len(s.free)-1]
	at := (buffer - 1) * s.extent
	p := s.res.data.Bytes()[at:][:min(int(r.Length), s.extent)]
	var ok bool
	var err error
	s.windows.trial.read(r.Count == 0, func() int64 {
		ok, err = s.fill(src, r, p)
		return int64(len(p))
	})
	if !ok || err != nil {
		return ibverbs.SGE{}, loan{}, err
	}
	s.free = s.free[:len(s.free)-1]
	s.told = append(s.told, told{r, p})
	return s.res.data.SGE(at, len(p)), loan{buffer: buffer}, nil
}

// fill reads an extent into a buffer, and has a window made for those that follow.
func (s *server) fill(src *transfer.Source, r wire.Request, p []byte) (bool, error) {
	if !s.windows.wanted(src, r) {
		return src.Read(r, p)
	}
	file, err := src.File(r)
	if file == nil || err != nil {
		return false, err
	}
	s.windows.start(r, file)
	if _, err := file.ReadAt(p, r.Offset); err != nil {
		if !errors.Is(err, os.ErrClosed) { // else it was settled meanwhile
			src.Fail(r, err)
		}
		return false, nil
	}
	return true, nil
}

// post puts an answer into the batch. With write, the bytes go ahead of it.
func (s *server) post(r wire.Request, a wire.Answer, sge ibverbs.SGE, l loan) {
	place := int(s.posted % uint64(s.sends))
	wr := ibverbs.SendWR{ID: s.posted + 1, Opcode: ibverbs.OpSend, NumSGE: 1}
	wr.SGE[0] = s.res.headSGE(place)
	head := s.res.head(place)
	if s.op == OpRead {
		place = index(r)
	}
	switch {
	case a.Length == 0:
		// What was lent before a probe comes back with its completion, and nothing may
		// follow that would be signalled.
		wr.Flags |= ibverbs.SendSignaled
	case s.op == OpSend:
		wr.NumSGE = 2
		wr.SGE[1] = sge
	case s.op == OpWrite:
		// Should it be the one that is signalled, it says that those before it are done.
		w := ibverbs.SendWR{ID: s.posted, Opcode: ibverbs.OpWrite, RKey: r.RKey, RemoteAddr: r.Addr, NumSGE: 1}
		w.SGE[0] = sge
		s.credits.Take(&w)
		s.wrs = append(s.wrs, w)
	case s.op == OpRead:
		a.Addr, a.RKey = sge.Addr, s.rkey(l)
	}
	a.Put(head)
	s.credits.Take(&wr)
	s.wrs = append(s.wrs, wr)
	s.takeBack(place) // a receiver that uses an index twice loses what it had
	s.lent[place] = l
	s.posted++
}

// rkey names the memory of a loan to the receiver.
func (s *server) rkey(l loan) uint32 {
	if l.window != nil {
		return l.window.mr.RKey()
	}
	return s.res.data.RKey()
}

// flush posts the batch. Digests are taken after that: the device reads the bytes
// meanwhile, as the CPU does. Those of a window are read again from the file: a touch
// of the mapping is SIGBUS if that was truncated.
func (s *server) flush(src *transfer.Source) error {
	if _, err := s.res.qp.PostSend(s.wrs); err != nil {
		return err
	}
	s.wrs = s.wrs[:0]
	for _, t := range s.told {
		if t.p != nil {
			src.Sent(t.r, t.p)
			continue
		}
		if s.scratch == nil && src.Verifying() {
			s.scratch = make([]byte, s.extent)
		}
		src.Reread(t.r, s.scratch)
	}
	s.told = s.told[:0]
	return nil
}
