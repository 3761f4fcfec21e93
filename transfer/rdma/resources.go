package rdma

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/internal/verbsperf"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// shape is what one end of a lane needs of a device.
type shape struct {
	op           string
	payload      int            // bytes: the receiver's ring, or the sender's pool
	beside       int            // bytes of the budget for what is registered beside it
	access       ibverbs.Access // what the peer may do to the payload
	headers      int            // in memory that the peer can't reach by itself
	sends, recvs int            // places of the queues
	reads        int            // READs outstanding at the most (op read)
	initiator    bool           // this end asks for READs, the other serves them
}

// resources is all that one end of a lane holds of a device.
type resources struct {
	shape
	memory *Budget // that the payload was taken from
	ctx    *ibverbs.Context
	pd     *ibverbs.PD
	data   *ibverbs.MR // payload
	heads  *ibverbs.MR // headers
	cq     *ibverbs.CQ
	prep   *ibverbs.PreparedQP
	qp     *ibverbs.QP
	cand   end
	mtu    ibverbs.MTU

	rnrTimer uint8 // what the peer is asked to wait when this end is not ready; 0 for the default
}

// acquire opens the device and makes everything up to the prepared queue pair. The
// payload's memory was taken from the budget, and goes back to it with the rest.
func acquire(c end, memory *Budget, s shape) (_ *resources, err error) {
	r := &resources{cand: c, memory: memory, shape: s}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.ctx, err = ibverbs.Open(c.Device); err != nil {
		return nil, err
	}
	if err = r.limitReads(); err != nil {
		return nil, err
	}
	pkey, err := pkeyIndex(r.ctx, &c.Candidate, c.pkey)
	if err != nil {
		return nil, err
	}
	if r.pd, err = r.ctx.AllocPD(); err != nil {
		return nil, err
	}
	if r.data, err = r.pd.AllocMROn(s.payload, ibverbs.AccessLocalWrite|s.access, memoryOn(int(c.Node))); err != nil {
		return nil, err
	}
	if r.heads, err = r.pd.AllocMR(s.headers*headerRoom, ibverbs.AccessLocalWrite); err != nil {
		return nil, err
	}
	if r.cq, err = r.ctx.CreateCQ(s.sends + s.recvs); err != nil {
		return nil, err
	}
	r.prep, err = r.pd.PrepareQP(ibverbs.QPConfig{
		SendCQ:     r.cq,
		RecvCQ:     r.cq,
		MaxSend:    s.sends,
		MaxRecv:    s.recvs,
		MaxSendSGE: 2,
		MaxRecvSGE: 2,
		Port:       int(c.Port),
		GIDIndex:   int(c.GIDIndex),
		PKeyIndex:  pkey,
		Access:     s.access,
	})
	if err == nil {
		err = stillThere(r.prep, &c.Candidate)
	}
	return r, err
}

// leastDepth is the shallowest ring, or pool, that a lane is made with when memory is short.
const leastDepth = 2

// shallower makes an end whose ring, or pool, has depth places, and half as many as long as
// its memory can't be registered: the budget knows neither what else of this process is
// pinned nor what the device has room for.
func shallower[E any](depth, least int, attempt func(depth int) (E, error)) (E, error) {
	for {
		e, err := attempt(depth)
		if !errors.Is(err, syscall.ENOMEM) || depth/2 < least {
			return e, err
		}
		depth /= 2
	}
}

// limitReads lowers the outstanding READs to what the device can ask for, or serve.
func (r *resources) limitReads() error {
	if r.op != OpRead {
		return nil
	}
	attr, err := r.ctx.QueryDevice()
	if err != nil {
		return err
	}
	return r.readsWithin(&attr)
}

// mostReads is how many READs may be outstanding, whatever the device: one more is None.
const mostReads = int(ibverbs.None) - 1

func (r *resources) readsWithin(attr *ibverbs.DeviceAttr) error {
	most := attr.MaxQPRead
	if r.initiator {
		most = attr.MaxQPInitRd
	}
	if r.reads = min(r.reads, most, mostReads); r.reads < 1 {
		return fmt.Errorf("%s has no RDMA READ (see: rdmaxfer send --op send)", r.cand.Device)
	}
	return nil
}

// agree lowers the outstanding READs to what the peer said.
func (r *resources) agree(reads uint8) error {
	if r.op != OpRead {
		return nil
	}
	if reads == 0 {
		return fmt.Errorf("%w: op read without outstanding READs", wire.ErrMalformed)
	}
	r.reads = min(r.reads, int(reads))
	return nil
}

// connect brings the queue pair up with the peer's.
func (r *resources) connect(remote *wire.QueuePair) (err error) {
	params := ibverbs.ConnectParams{MaxReads: ibverbs.None, MaxReadsServed: ibverbs.None, MinRNRTimer: r.rnrTimer}
	switch {
	case r.op != OpRead:
	case r.initiator:
		params.MaxReads = uint8(r.reads)
	default:
		params.MaxReadsServed = uint8(r.reads)
	}
	prep := r.prep
	r.prep = nil
	if r.qp, err = connectQP(prep, &r.cand.Candidate, remote, &r.cand.fabric, params); err == nil {
		r.mtu = r.qp.MTU()
	}
	return err
}

// lane is what the peer must know of this end.
func (r *resources) lane() *wire.RDMALane {
	return &wire.RDMALane{
		Device: r.cand.Device,
		Op:     r.op,
		Reads:  uint8(r.reads),
		QP:     r.cand.endpoint(r.prep.Endpoint()),
	}
}

// head is the memory of the ith header.
func (r *resources) head(i int) []byte {
	return r.heads.Bytes()[i*headerRoom:][:wire.HeaderSize]
}

func (r *resources) headSGE(i int) ibverbs.SGE { return r.heads.SGE(i*headerRoom, wire.HeaderSize) }

// disconnect destroys the queue pair: after it nothing of the lane is read or written.
func (r *resources) disconnect() error {
	var errs []error
	if r.prep != nil {
		errs = append(errs, r.prep.Close())
		r.prep = nil
	}
	if r.qp != nil {
		errs = append(errs, r.qp.Close())
		r.qp = nil
	}
	return errors.Join(errs...)
}

// close frees everything that was acquired, children first: the queue pair ends
// before the memory that it could write to.
func (r *resources) close() error {
	errs := []error{r.disconnect()}
	note := func(err error) { errs = append(errs, err) }
	if r.cq != nil {
		note(r.cq.Close())
	}
	if r.heads != nil {
		note(r.heads.Close())
	}
	if r.data != nil {
		note(r.data.Close())
	}
	if r.pd != nil {
		note(r.pd.Close())
	}
	if r.ctx != nil {
		note(r.ctx.Close())
	}
	r.memory.give(r.payload + r.beside)
	r.payload, r.beside = 0, 0 // once
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
	return fmt.Sprintf("%s gid=%d mtu=%d op=%s", verbsperf.Name(r.cand.Device), r.cand.GIDIndex, r.mtu.Bytes(), r.op)
}
