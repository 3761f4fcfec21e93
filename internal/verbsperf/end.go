//go:build linux

package verbsperf

import (
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// Port is where an end's queue pairs are.
type Port struct {
	Device    string
	Port      int
	GIDIndex  int
	PKeyIndex int
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
	queues []*queue
	peer   Hello
}

// queue is one queue pair.
type queue struct {
	prep *ibverbs.PreparedQP
	qp   *ibverbs.QP
	ah   *ibverbs.AH

	request ibverbs.SendWR // as it is posted again and again
}

// qkey is what datagrams name: it keeps out nothing but those of other programs.
const qkey = 0x11111111

// Open makes an end; its queue pairs wait for the other's.
func Open(c Config, at Port) (e *End, err error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	e = &End{Config: c, software: ibverbs.Software(at.Device)}
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
	if c.Events { // as perftest waits
		if err := e.cq.HoldThread(); err != nil {
			return e, err
		}
	}
	for range c.QPs {
		q := new(queue)
		e.queues = append(e.queues, q)
		conf := ibverbs.QPConfig{SendCQ: e.cq, RecvCQ: e.cq, MaxSend: c.sends(), MaxRecv: c.receives(), MaxInline: c.Inline, Port: at.Port, GIDIndex: at.GIDIndex, PKeyIndex: at.PKeyIndex, Access: c.access(), QKey: qkey}
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

// minRNRTimer is the coded wait for a receiver that has no receive posted (10.24 ms), and
// there are six: perftest waits 0.64 ms, and for ever. On a busy machine one that polls may
// not run for longer than its receives last.
const minRNRTimer = 20

// Connect posts the receives, and brings the queue pairs up with the peer's, with what of the
// network was asked for; of its MTU, what is no larger than the ports'.
func (e *End) Connect(peer Hello, at Port, asked ibverbs.ConnectParams) (err error) {
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
			if q.ah, err = e.pd.CreateAH(at.Port, at.GIDIndex, peer.QPs[i], asked.Path); err != nil {
				return err
			}
			q.request.AH, q.request.RemoteQPN, q.request.RemoteQKey = q.ah.Ref(), peer.QPs[i].QPN, qkey
		} else {
			attr, err := e.dev.QueryDevice()
			if err != nil {
				return err
			}
			reads := uint8(min(maxReads, attr.MaxQPRead, attr.MaxQPInitRd))
			prep, how := q.prep, asked
			q.prep = nil
			how.MaxReads, how.MaxReadsServed, how.MinRNRTimer = reads, reads, minRNRTimer
			if e.MTU != 0 {
				how.MTU = e.MTU
			} else if most := min(prep.Endpoint().MTU, peer.QPs[i].MTU); how.MTU > most {
				how.MTU = most
			}
			if q.qp, err = prep.Connect(peer.QPs[i], how); err != nil {
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
	wrs := make([]ibverbs.RecvWR, e.receives())
	for i := range wrs {
		wrs[i] = e.receive(q)
		wrs[i].SGE[0].Addr += uint64(i % e.Buffers * e.stride())
	}
	post := q.qp.PostRecv
	if q.prep != nil {
		post = q.prep.PostRecv
	}
	_, err := post(wrs)
	return err
}

// receive is a queue pair's receive into the first place.
func (e *End) receive(q *queue) ibverbs.RecvWR {
	wr := ibverbs.RecvWR{ID: ibverbs.LoopRecvID | q.request.ID, NumSGE: 1}
	room := e.Size
	if e.Op == OpUD {
		room += ibverbs.GRHSize
	}
	wr.SGE[0] = e.mr.SGE(e.in(), room)
	return wr
}

// giveWay is after how many looks at a software device that found nothing the poller lets
// the kernel's threads run, which carry the messages.
const giveWay = 4

// GivesWay says whether this end does. Who reads one message at a time polls alone, and on
// two processors is in nobody's way.
func (e *End) GivesWay() bool {
	return e.software && !e.Events && !(e.Latency && e.Op == OpRead)
}

// reposted is how many receives are posted again at a time, where perftest posts one: the
// queue is deep enough.
const reposted = 16

// loop is what the queue pairs do from here: as deep as that, and a completion for every so
// many requests.
func (e *End) loop(depth, signal int) ibverbs.LoopConfig {
	c := ibverbs.LoopConfig{Depth: depth, Signal: signal, Chain: e.Chain, Repost: reposted, Places: e.Buffers, Stride: e.stride(), Events: e.Events}
	if e.GivesWay() {
		c.GiveWay = giveWay
	}
	for _, q := range e.queues {
		wr := q.request
		wr.SGE[0] = e.mr.SGE(0, e.Size)
		wr.RemoteAddr = e.peer.Addr + uint64(e.in())
		c.Queues = append(c.Queues, ibverbs.LoopQueue{QP: q.qp, Send: wr, Recv: e.receive(q), Posted: e.receives()})
	}
	return c
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
