// Package rdma makes lanes of reliable-connected queue pairs.
//
// Requests and answers are SENDs. With the op "send", the one that there is so
// far, an answer carries the bytes of its extent: they land in the slot of a ring
// that the receiver posted before it asked, so nothing of either host is remotely
// readable or writable. Each lane has a device context, a protection domain, a
// completion queue and a ring of its own.
package rdma

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// OpSend is the op whose answers carry the bytes.
const OpSend = "send"

// probeLimit bounds the first round trip over a new queue pair.
const probeLimit = 6 * time.Second

// ackTimeout is the queue pair's acknowledgement time-out, 4.096 µs × 2^15 = 134 ms.
// At the usual 67 ms (14) soft-RoCE on a busy emulated host sends again what was only
// late (hw_counters/completer_retry_err). The longer it is, the later is it noticed
// that a path is dead: 4 to 7 s with the 6 retries that are ibverbs' default.
const ackTimeout = 15

// headerRoom is what a header takes in a ring, bytes: a cache line.
const headerRoom = 64

// Transport makes both ends of RDMA lanes. The sending end's remembers what it
// offered, so one Transport is for one session.
type Transport struct{ offered []Candidate }

// Name is "rdma".
func (*Transport) Name() string { return transfer.TransportRDMA }

// Offer lists where this host's RDMA can be reached, or says why nowhere.
func (t *Transport) Offer(hello *wire.Hello) {
	list, err := Candidates()
	if err != nil {
		hello.RDMAReason = wire.Clip(err.Error())
		return
	}
	t.offered = list[:min(len(list), wire.MaxCandidates)]
	for _, c := range t.offered {
		hello.RDMA = append(hello.RDMA, c.wire())
	}
}

// resources is all that one end of a lane holds of a device.
type resources struct {
	ctx  *ibverbs.Context
	pd   *ibverbs.PD
	mr   *ibverbs.MR
	cq   *ibverbs.CQ
	prep *ibverbs.PreparedQP
	qp   *ibverbs.QP
	cand Candidate
	mtu  ibverbs.MTU
}

// acquire opens the device and makes everything up to the prepared queue pair.
func acquire(c Candidate, ring, sends, recvs int) (_ *resources, err error) {
	r := &resources{cand: c}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.ctx, err = ibverbs.Open(c.Device); err != nil {
		return nil, err
	}
	if r.pd, err = r.ctx.AllocPD(); err != nil {
		return nil, err
	}
	if r.mr, err = r.pd.AllocMR(ring, ibverbs.AccessLocalWrite); err != nil {
		return nil, err
	}
	if r.cq, err = r.ctx.CreateCQ(sends + recvs); err != nil {
		return nil, err
	}
	r.prep, err = r.pd.PrepareQP(ibverbs.QPConfig{
		SendCQ:     r.cq,
		RecvCQ:     r.cq,
		MaxSend:    sends,
		MaxRecv:    recvs,
		MaxSendSGE: 2,
		MaxRecvSGE: 2,
		Port:       int(c.Port),
		GIDIndex:   int(c.GIDIndex),
	})
	return r, err
}

// connect brings the queue pair up with the peer's.
func (r *resources) connect(remote *wire.QueuePair) (err error) {
	endpoint := ibverbs.Endpoint{QPN: remote.QPN, PSN: remote.PSN, GID: remote.GID, LID: remote.LID, MTU: ibverbs.MTU(remote.MTU)}
	prep := r.prep
	r.prep = nil
	if r.qp, err = prep.Connect(endpoint, ibverbs.ConnectParams{Timeout: ackTimeout}); err == nil {
		r.mtu = r.qp.MTU()
	}
	return err
}

// lane is what the peer must know of this end.
func (r *resources) lane() *wire.RDMALane {
	e := r.prep.Endpoint()
	return &wire.RDMALane{
		Device: r.cand.Device,
		Op:     OpSend,
		QP:     wire.QueuePair{QPN: e.QPN, PSN: e.PSN, GID: e.GID, LID: e.LID, MTU: uint8(e.MTU)},
	}
}

// close frees everything that was acquired, children first: the queue pair ends
// before the memory that it could write to.
func (r *resources) close() error {
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	if r.prep != nil {
		note(r.prep.Close())
	}
	if r.qp != nil {
		note(r.qp.Close())
	}
	if r.cq != nil {
		note(r.cq.Close())
	}
	if r.mr != nil {
		note(r.mr.Close())
	}
	if r.pd != nil {
		note(r.pd.Close())
	}
	if r.ctx != nil {
		note(r.ctx.Close())
	}
	return errors.Join(errs...)
}

// failure finds the completion that explains why a queue pair is in error: a
// flush is only the echo of another one, which may still wait to be polled.
func (r *resources) failure(first *ibverbs.WC) error {
	worst := first.Err()
	wcs := make([]ibverbs.WC, 16)
	for first.Status.Class() == ibverbs.ClassFlush {
		n, err := r.cq.Poll(wcs)
		if n == 0 || err != nil {
			break
		}
		for i := range wcs[:n] {
			if s := wcs[i].Status; s != ibverbs.WCSuccess && s.Class() != ibverbs.ClassFlush {
				return fmt.Errorf("%s: %w", r.cand.Device, wcs[i].Err())
			}
		}
	}
	return fmt.Errorf("%s: %w", r.cand.Device, worst)
}

// describe names the lane as the summary line does.
func (r *resources) describe() string {
	return fmt.Sprintf("%s gid=%d mtu=%d op=%s", r.cand.Device, r.cand.GIDIndex, r.mtu.Bytes(), OpSend)
}

// Prepare chooses the pair of addresses, and makes this end's queue pair with its
// whole ring posted.
func (*Transport) Prepare(_ context.Context, hello *wire.Hello, p transfer.LaneParams, open *wire.OpenLane) (transfer.PendingPuller, error) {
	if hello.Op != "auto" && hello.Op != OpSend {
		return nil, fmt.Errorf("the sender asks for --op %q; this receiver has send", hello.Op)
	}
	rail, err := findRail(hello, p.Path)
	if err != nil {
		return nil, err
	}
	pl, err := newPuller(*rail.mine, p)
	if err != nil {
		return nil, err
	}
	open.RDMA = pl.res.lane()
	open.RDMA.Candidate = rail.remote
	return pl, nil
}

// Answer opens the sending end.
func (t *Transport) Answer(_ context.Context, p transfer.LaneParams, open *wire.OpenLane, answer *wire.LaneAnswer) (transfer.Server, error) {
	if open.RDMA.Op != OpSend {
		return nil, fmt.Errorf("the receiver asks for op %q; this sender has send", open.RDMA.Op)
	}
	n := int(open.RDMA.Candidate)
	if n >= len(t.offered) {
		return nil, fmt.Errorf("%w: the receiver chose address %d of %d", wire.ErrMalformed, n, len(t.offered))
	}
	s, err := newServer(t.offered[n], p)
	if err != nil {
		return nil, err
	}
	answer.RDMA = s.res.lane()
	answer.RDMA.Candidate = open.RDMA.Candidate
	if err := s.res.connect(&open.RDMA.QP); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}
