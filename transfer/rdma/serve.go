package rdma

import (
	"context"
	"errors"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// server is the sending end: a pool of registered buffers that extents are read
// into (source "pool") and sent from. A buffer is free again when the completion
// of its send was polled.
//
// The pool's memory: depth extents, then depth answer headers, then depth request
// headers that are posted as receives.
type server struct {
	res    *resources
	depth  int
	extent int

	free    []int          // buffers
	pending []wire.Request // asked for and not answered yet
	wcs     []ibverbs.WC
	recv    []ibverbs.RecvWR
	answer  [1]ibverbs.SendWR
}

func newServer(c Candidate, p transfer.LaneParams) (*server, error) {
	s := &server{depth: p.Depth, extent: p.ExtentSize, wcs: make([]ibverbs.WC, 8)}
	res, err := acquire(c, s.depth*(s.extent+2*headerRoom), s.depth, s.depth)
	if err != nil {
		return nil, err
	}
	s.res = res
	for i := range s.depth {
		s.free = append(s.free, i)
		s.repost(i)
	}
	if _, err := res.prep.PostRecv(s.recv); err != nil {
		res.close()
		return nil, err
	}
	s.recv = s.recv[:0]
	return s, nil
}

func (s *server) answerHeader(i int) int  { return s.depth*s.extent + i*headerRoom }
func (s *server) requestHeader(i int) int { return s.answerHeader(s.depth) + i*headerRoom }

func (s *server) repost(i int) {
	wr := ibverbs.RecvWR{ID: uint64(i) | recvID, NumSGE: 1}
	wr.SGE[0] = s.res.mr.SGE(s.requestHeader(i), wire.HeaderSize)
	s.recv = append(s.recv, wr)
}

// Describe names the device, the GID and the MTU.
func (s *server) Describe() string { return s.res.describe() }

// Close destroys the queue pair and frees the pool.
func (s *server) Close() error { return s.res.close() }

// Serve answers requests in the order in which they come.
func (s *server) Serve(ctx context.Context, src *transfer.Source) error {
	for {
		n, err := s.res.cq.WaitPoll(ctx, s.wcs)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		for i := range s.wcs[:n] {
			if err := s.completed(&s.wcs[i]); err != nil {
				return err
			}
		}
		// Receives go back before an answer lets the receiver ask for more.
		if _, err := s.res.qp.PostRecv(s.recv); err != nil {
			return err
		}
		s.recv = s.recv[:0]
		for len(s.pending) > 0 && len(s.free) > 0 {
			r := s.pending[0]
			s.pending = append(s.pending[:0], s.pending[1:]...)
			if err := s.reply(src, r); err != nil {
				return err
			}
		}
	}
}

// completed takes a request, or frees the buffer of an answer.
func (s *server) completed(wc *ibverbs.WC) error {
	if wc.Status != ibverbs.WCSuccess {
		return s.res.failure(wc)
	}
	if wc.ID&recvID == 0 {
		s.free = append(s.free, int(wc.ID))
		return nil
	}
	if len(s.pending) == s.depth {
		return errors.New("the receiver has more requests in flight than it said")
	}
	i := int(wc.ID &^ recvID)
	at := s.requestHeader(i)
	r, err := wire.ParseRequest(s.res.mr.Bytes()[at:][:min(int(wc.ByteLen), wire.HeaderSize)])
	if err != nil {
		return err
	}
	s.pending = append(s.pending, r)
	s.repost(i)
	return nil
}

// reply answers one request. The digest is taken after the post: the device reads
// the buffer meanwhile, as the CPU does.
func (s *server) reply(src *transfer.Source, r wire.Request) error {
	i := s.free[len(s.free)-1]
	buf := s.res.mr.Bytes()[i*s.extent:][:min(int(r.Length), s.extent)]
	a := wire.Answer{ID: r.ID}
	sent := false
	if r.Length > 0 { // else it is a probe
		ok, err := src.Read(r, buf)
		if err != nil {
			return err
		}
		if sent = ok; ok {
			a.Length = r.Length
		} else {
			a.Status = wire.StatusFailed
		}
	}
	at := s.answerHeader(i)
	a.Put(s.res.mr.Bytes()[at:])
	wr := &s.answer[0]
	*wr = ibverbs.SendWR{ID: uint64(i), Opcode: ibverbs.OpSend, Flags: ibverbs.SendSignaled, NumSGE: 1}
	wr.SGE[0] = s.res.mr.SGE(at, wire.HeaderSize)
	if a.Length > 0 {
		wr.NumSGE = 2
		wr.SGE[1] = s.res.mr.SGE(i*s.extent, int(a.Length))
	}
	if _, err := s.res.qp.PostSend(s.answer[:]); err != nil {
		return err
	}
	s.free = s.free[:len(s.free)-1]
	if sent {
		src.Sent(r, buf)
	}
	return nil
}
