//go:build linux

package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// request is one message as it is posted again and again.
func (e *end) request() (ibverbs.SendWR, error) {
	wr := ibverbs.SendWR{NumSGE: 1, RemoteAddr: e.peer.Addr + uint64(e.Size), RKey: e.peer.RKey}
	wr.SGE[0] = e.mr.SGE(0, e.Size)
	switch e.Op {
	case "write":
		wr.Opcode = ibverbs.OpWrite
	case "send":
		wr.Opcode = ibverbs.OpSend
	case "read":
		wr.Opcode = ibverbs.OpRead
	default:
		return wr, fmt.Errorf("-op %s: not write, send or read", e.Op)
	}
	return wr, nil
}

// wait takes at least one completion, by polling or by events. It has no time-out, as
// perftest has none: one would be a timer for the kernel to set each time. Whoever runs
// perf ends it.
func (e *end) wait() (int, error) {
	if e.Events {
		return e.cq.WaitPoll(context.Background(), e.wcs)
	}
	for {
		if n, err := e.cq.Poll(e.wcs); n > 0 || err != nil {
			return n, err
		}
	}
}

// bandwidth keeps the queue full and answers the time from the first post to the
// last completion.
func (e *end) bandwidth() (time.Duration, error) {
	one, err := e.request()
	if err != nil {
		return 0, err
	}
	every := 1 // as perftest: every completion above 8 KiB
	if e.Size <= 8192 {
		every = min(100, e.Depth)
	}
	credits := ibverbs.NewSendCredits(e.Depth, every)
	batch := make([]ibverbs.SendWR, 0, e.Chain)
	began := time.Now()
	for posted, done := 0, 0; done < e.Iters; {
		batch = batch[:0]
		for posted+len(batch) < e.Iters && len(batch) < e.Chain && credits.Free() > 0 {
			wr := one
			if posted+len(batch) == e.Iters-1 {
				wr.Flags |= ibverbs.SendSignaled
			}
			credits.Take(&wr)
			batch = append(batch, wr)
		}
		if _, err := e.qp.PostSend(batch); err != nil {
			return 0, err
		}
		e.posts++
		if posted += len(batch); posted < e.Iters && credits.Free() > 0 {
			continue
		}
		n, err := e.wait()
		if err != nil {
			return 0, err
		}
		for i := range e.wcs[:n] {
			if err := e.wcs[i].Err(); err != nil {
				return 0, err
			}
			before := credits.Free()
			credits.Complete()
			done += credits.Free() - before
		}
	}
	return time.Since(began), nil
}

// sink takes what bandwidth sends, and posts receives again by batch.
func (e *end) sink() error {
	for got := 0; got < e.Iters; {
		n, err := e.wait()
		if err != nil {
			return err
		}
		for i := range e.wcs[:n] {
			if err := e.wcs[i].Err(); err != nil {
				return err
			}
		}
		got += n
		if _, err := e.qp.PostRecv(e.recv[:n]); err != nil {
			return err
		}
	}
	return nil
}

// latency answers a time for each round trip; of send and write half of it, as
// perftest has it.
func (e *end) latency() ([]time.Duration, error) {
	if e.Op != "read" {
		return e.pingPong(true)
	}
	wr, err := e.request()
	if err != nil {
		return nil, err
	}
	wr.Flags = ibverbs.SendSignaled
	batch := []ibverbs.SendWR{wr}
	samples := make([]time.Duration, 0, e.Iters)
	for range e.Iters {
		began := time.Now()
		if _, err := e.qp.PostSend(batch); err != nil {
			return nil, err
		}
		if _, err := e.wait(); err != nil {
			return nil, err
		}
		samples = append(samples, time.Since(began))
		if err := e.wcs[0].Err(); err != nil {
			return nil, err
		}
	}
	return samples, nil
}

// pingPong sends a message for each that comes; first says who begins.
func (e *end) pingPong(first bool) ([]time.Duration, error) {
	p := &player{end: e, arrived: (*uint32)(unsafe.Pointer(&e.mr.Bytes()[2*e.Size-4]))}
	var err error
	if p.batch[0], err = e.request(); err != nil {
		return nil, err
	}
	samples := make([]time.Duration, 0, e.Iters)
	last := time.Now()
	for i := range e.Iters {
		if first {
			if err := p.send(i); err != nil {
				return nil, err
			}
		}
		if err := p.receive(i); err != nil {
			return nil, err
		}
		if !first {
			if err := p.send(i); err != nil {
				return nil, err
			}
		}
		now := time.Now()
		samples = append(samples, now.Sub(last)/2)
		last = now
	}
	for p.outstanding > 0 { // the peer's last message waits for ours to be there
		if err := p.complete(); err != nil {
			return nil, err
		}
	}
	return samples, nil
}

// player is one end of a ping-pong.
type player struct {
	*end
	batch       [1]ibverbs.SendWR
	arrived     *uint32 // the last bytes of what comes in, for write
	outstanding int     // signalled sends
	messages    int     // received and not yet answered, for send
	taken       int     // receives to be posted again
}

// recvBatch is how many receives are posted again at a time, where perftest posts one:
// the queue is deep enough.
const recvBatch = 16

// signalEvery is how often a send is signalled: the queue must not fill up.
const signalEvery = 32

func (p *player) send(i int) error {
	wr := &p.batch[0]
	wr.Flags = 0
	if i%signalEvery == signalEvery-1 || i == p.Iters-1 {
		wr.Flags = ibverbs.SendSignaled
		p.outstanding++
	}
	if p.Op == "write" {
		*(*uint32)(unsafe.Pointer(&p.mr.Bytes()[p.Size-4])) = uint32(i + 1)
	}
	_, err := p.qp.PostSend(p.batch[:])
	return err
}

// receive waits for message i: of writes, by looking at the memory.
func (p *player) receive(i int) error {
	if p.Op == "send" {
		for p.messages == 0 {
			if err := p.complete(); err != nil {
				return err
			}
		}
		p.messages--
		return nil
	}
	for tries := 1; atomic.LoadUint32(p.arrived) != uint32(i+1); tries++ {
		if tries%(1<<14) == 0 {
			runtime.Gosched() // see yieldAfter in ibverbs
		}
	}
	if p.outstanding > 1 { // far behind: take what has completed
		return p.complete()
	}
	return nil
}

// complete takes completions, of sends and of receives.
func (p *player) complete() error {
	n, err := p.wait()
	if err != nil {
		return err
	}
	received := 0
	for j := range p.wcs[:n] {
		wc := &p.wcs[j]
		if err := wc.Err(); err != nil {
			return err
		}
		if wc.Opcode&ibverbs.WCRecv != 0 {
			received++
		} else {
			p.outstanding--
		}
	}
	p.messages += received
	if p.taken += received; p.taken >= recvBatch {
		_, err = p.qp.PostRecv(p.recv[:p.taken])
		p.taken = 0
	}
	return err
}

// quantiles names a few of the samples.
func quantiles(samples []time.Duration) map[string]time.Duration {
	slices.Sort(samples)
	at := func(q float64) time.Duration { return samples[int(q*float64(len(samples)-1))] }
	return map[string]time.Duration{"min": samples[0], "typical": at(0.5), "p99": at(0.99)}
}
