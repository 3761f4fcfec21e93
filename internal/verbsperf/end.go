//go:build linux

package verbsperf

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// Port is where an end's queue pairs are.
type Port struct {
	Device   string
	Port     int
	GIDIndex int
}

// Hello is what each end tells the other.
type Hello struct {
	QPs  []ibverbs.Endpoint
	Addr uint64 // of what may be read and written
	RKey uint32
}

// Result is what an end measured.
type Result struct {
	Messages int64 // of its own, that completed while it was measured
	Sent     int64 // of its own, all told
	Received int64 // of the other's, that took a receive
	Elapsed  time.Duration
	Posts    int64                   // doorbells
	Trips    *hdrhistogram.Histogram // nanoseconds, of whole round trips; nil of bandwidth
}

// End is one side.
type End struct {
	Config
	software bool // the device is

	dev    *ibverbs.Context
	pd     *ibverbs.PD
	mr     *ibverbs.MR
	cq     *ibverbs.CQ
	sends  *ibverbs.CQ // where sends complete: cq, unless who polls that answers what it finds
	queues []*queue
	peer   Hello
	wcs    []ibverbs.WC

	stop     atomic.Bool // the passive end's loop shall end
	received int64
	posts    int64
}

// queue is one queue pair.
type queue struct {
	prep *ibverbs.PreparedQP
	qp   *ibverbs.QP
	ah   *ibverbs.AH

	request ibverbs.SendWR // as it is posted again and again
	credits *ibverbs.SendCredits
	batch   []ibverbs.SendWR
	recv    []ibverbs.RecvWR // those that are to be posted again
	sent    int              // messages
	ringed  int              // the place of the next receive
	// unsignaled are the messages since the last that tells when it is done.
	unsignaled int
}

// qkey is what datagrams name: it keeps out nothing but those of other programs.
const qkey = 0x11111111

// Open makes an end; its queue pairs wait for the other's.
func Open(c Config, at Port) (e *End, err error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	e = &End{Config: c, software: software(at.Device), wcs: make([]ibverbs.WC, 64)}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
			e = nil
		}
	}()
	if e.dev, err = ibverbs.Open(at.Device); err != nil {
		return e, err
	}
	if e.pd, err = e.dev.AllocPD(); err != nil {
		return e, err
	}
	if e.mr, err = e.pd.AllocMR(c.Memory(), c.access()); err != nil { // what goes out, then what comes in
		return e, err
	}
	if e.cq, err = e.dev.CreateCQ(c.QPs * (c.sends() + c.receives())); err != nil {
		return e, err
	}
	e.cq.SetSpin(c.Spin)
	e.sends = e.cq
	if c.Latency && !c.Events && (c.Op == OpSend || c.Op == OpUD) {
		if e.sends, err = e.dev.CreateCQ(c.sends()); err != nil {
			return e, err
		}
	}
	if c.Latency && c.Events { // as perftest waits
		if err := e.cq.HoldThread(); err != nil {
			return e, err
		}
		morePs()
	}
	for range c.QPs {
		q := &queue{credits: ibverbs.NewSendCredits(c.Depth, c.Signal), batch: make([]ibverbs.SendWR, 0, c.Chain)}
		e.queues = append(e.queues, q)
		conf := ibverbs.QPConfig{SendCQ: e.sends, RecvCQ: e.cq, MaxSend: c.sends(), MaxRecv: c.receives(), MaxInline: c.Inline, Port: at.Port, GIDIndex: at.GIDIndex, Access: c.access(), QKey: qkey}
		if c.Op == OpUD {
			if q.qp, err = e.pd.OpenUD(conf); err != nil {
				return e, err
			}
			if most := q.qp.Endpoint().MTU.Bytes(); c.Size > most {
				return e, fmt.Errorf("a datagram of %d bytes: %s carries %d", c.Size, at.Device, most)
			}
		} else if q.prep, err = e.pd.PrepareQP(conf); err != nil {
			return e, err
		}
	}
	return e, nil
}

// access is what the peer may do: what the op needs.
func (c *Config) access() ibverbs.Access {
	switch c.Op {
	case OpWrite:
		return ibverbs.AccessLocalWrite | ibverbs.AccessRemoteWrite
	case OpRead:
		return ibverbs.AccessLocalWrite | ibverbs.AccessRemoteRead
	}
	return ibverbs.AccessLocalWrite
}

// Hello is for the other end's Connect.
func (e *End) Hello() Hello {
	h := Hello{Addr: e.mr.Addr(0), RKey: e.mr.RKey()}
	for _, q := range e.queues {
		if q.prep != nil {
			h.QPs = append(h.QPs, q.prep.Endpoint())
		} else {
			h.QPs = append(h.QPs, q.qp.Endpoint())
		}
	}
	return h
}

// maxReads is how many READs are outstanding at the most: what rxe, and perftest on it,
// allow.
const maxReads = 16

// Connect posts the receives, and brings the queue pairs up with the peer's.
func (e *End) Connect(peer Hello, at Port) (err error) {
	if len(peer.QPs) != len(e.queues) {
		return fmt.Errorf("the peer has %d queue pairs, and this host %d", len(peer.QPs), len(e.queues))
	}
	e.peer = peer
	for i, q := range e.queues {
		q.request = ibverbs.SendWR{ID: uint64(i), NumSGE: 1, RKey: peer.RKey}
		if err := e.fillReceives(q); err != nil {
			return err
		}
		switch e.Op {
		case OpWrite:
			q.request.Opcode = ibverbs.OpWrite
		case OpRead:
			q.request.Opcode = ibverbs.OpRead
		default:
			q.request.Opcode = ibverbs.OpSend
		}
		if e.Op == OpUD {
			if q.ah, err = e.pd.CreateAH(at.Port, at.GIDIndex, peer.QPs[i], ibverbs.Path{}); err != nil {
				return err
			}
			q.request.AH, q.request.RemoteQPN, q.request.RemoteQKey = q.ah.Ref(), peer.QPs[i].QPN, qkey
		} else {
			attr, err := e.dev.QueryDevice()
			if err != nil {
				return err
			}
			reads := uint8(min(maxReads, attr.MaxQPRead, attr.MaxQPInitRd))
			prep := q.prep
			q.prep = nil
			if q.qp, err = prep.Connect(peer.QPs[i], ibverbs.ConnectParams{MTU: e.MTU, MaxReads: reads, MaxReadsServed: reads}); err != nil {
				return err
			}
		}
		if e.Inline >= e.Size && e.Op != OpRead && q.qp.MaxInline() >= e.Size {
			q.request.Flags = ibverbs.SendInline
		}
	}
	return nil
}

// Inlined says whether messages are copied into their requests: a device may not.
func (e *End) Inlined() bool { return e.queues[0].request.Flags&ibverbs.SendInline != 0 }

// PathMTU is what packets carry, bytes.
func (e *End) PathMTU() int {
	if e.Op == OpUD {
		return e.queues[0].qp.Endpoint().MTU.Bytes()
	}
	return e.queues[0].qp.MTU().Bytes()
}

// fillReceives posts all of a queue pair's receives.
func (e *End) fillReceives(q *queue) error {
	if e.Op != OpSend && e.Op != OpUD {
		return nil
	}
	for range e.receives() {
		q.recv = append(q.recv, e.receive(q))
	}
	post := q.qp.PostRecv
	if q.prep != nil {
		post = q.prep.PostRecv
	}
	_, err := post(q.recv)
	q.recv = q.recv[:0]
	return err
}

// recvID marks the work request IDs of receives.
const recvID = 1 << 63

// receive is the next of a queue pair's receives.
func (e *End) receive(q *queue) ibverbs.RecvWR {
	wr := ibverbs.RecvWR{ID: recvID | q.request.ID, NumSGE: 1}
	room := e.Size
	if e.Op == OpUD {
		room += ibverbs.GRHSize
	}
	wr.SGE[0] = e.mr.SGE(e.in()+q.ringed*e.stride(), room)
	q.ringed = (q.ringed + 1) % e.Buffers
	return wr
}

// message is the nth of a queue pair's messages.
func (e *End) message(q *queue, n int) ibverbs.SendWR {
	wr := q.request
	at := n % e.Buffers * e.stride()
	wr.SGE[0] = e.mr.SGE(at, e.Size)
	wr.RemoteAddr = e.peer.Addr + uint64(e.in()+at)
	return wr
}

// look is how long a poller polls before it looks whether it shall end.
const look = time.Millisecond

// wait takes at least one completion, by polling or by events; none when the loop shall
// end. It has no time-out, as perftest has none: one would be a timer for the kernel to
// set each time.
func (e *End) wait(ctx context.Context) (int, error) {
	if e.Events {
		n, err := e.cq.WaitPoll(ctx, e.wcs)
		if err != nil && ctx.Err() != nil {
			return 0, nil
		}
		return n, err
	}
	for !e.stop.Load() {
		if n, err := e.cq.PollFor(e.wcs, look); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, nil
}

// Close ends everything, children first.
func (e *End) Close() error {
	var errs []error
	for _, q := range e.queues {
		if q.prep != nil {
			errs = append(errs, q.prep.Close())
		}
		if q.qp != nil {
			errs = append(errs, q.qp.Close())
		}
		if q.ah != nil {
			errs = append(errs, q.ah.Close())
		}
	}
	if e.sends != nil && e.sends != e.cq {
		errs = append(errs, e.sends.Close())
	}
	if e.cq != nil {
		errs = append(errs, e.cq.Close())
	}
	if e.mr != nil {
		errs = append(errs, e.mr.Close())
	}
	if e.pd != nil {
		errs = append(errs, e.pd.Close())
	}
	if e.dev != nil {
		errs = append(errs, e.dev.Close())
	}
	return errors.Join(errs...)
}
