//go:build linux

package verbsperf

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// Run measures from this end. The other one has to Serve.
func (e *End) Run(ctx context.Context) (*Result, error) {
	switch {
	case e.yields():
		return givingWay(func() (*Result, error) { return e.play(ctx, true) })
	case e.Latency:
		return e.play(ctx, true)
	}
	if e.Iterations == 0 {
		return e.during(ctx)
	}
	warmed := int64(0)
	if e.WarmUp > 0 {
		var err error
		if warmed, err = e.flow(ctx, expiry(e.WarmUp), 0); err != nil {
			return nil, err
		}
	}
	posts, received := e.posts, e.received
	began := time.Now()
	n, err := e.flow(ctx, nil, int64(e.Iterations))
	return &Result{Messages: n, Sent: warmed + n, Received: e.received - received, Elapsed: time.Since(began), Posts: e.posts - posts}, err
}

// Serve does what the other end's Run needs of this one, until ctx ends.
func (e *End) Serve(ctx context.Context) (*Result, error) {
	end := context.AfterFunc(ctx, func() { e.stop.Store(true) })
	defer end()
	switch {
	case e.Latency && e.Op != OpRead:
		if e.yields() {
			return givingWay(func() (*Result, error) { return e.play(ctx, false) })
		}
		return e.play(ctx, false)
	case e.Latency:
	case e.Both:
		began := time.Now()
		n, err := e.flow(ctx, &e.stop, 0)
		return &Result{Messages: n, Sent: n, Received: e.received, Elapsed: time.Since(began), Posts: e.posts}, err
	case e.Op == OpSend || e.Op == OpUD:
		err := e.sink(ctx)
		return &Result{Received: e.received}, err
	}
	<-ctx.Done() // the device does it
	return &Result{}, nil
}

// expiry is set after that time: a look at it costs less than one at the clock.
func expiry(d time.Duration) *atomic.Bool {
	over := new(atomic.Bool)
	time.AfterFunc(d, func() { over.Store(true) })
	return over
}

// during counts what completes in Duration, once it is warm: no ramp is in it.
func (e *End) during(ctx context.Context) (*Result, error) {
	f := &flow{End: e, warm: expiry(e.WarmUp), over: expiry(e.WarmUp + e.Duration)}
	err := f.run(ctx)
	if err == nil && f.counted == 0 {
		err = errors.New("not one message completed in that time")
	}
	return &Result{Messages: f.counted, Sent: f.done, Received: e.received, Elapsed: f.last.Sub(f.first), Posts: e.posts}, err
}

// flow keeps the queues full until over, or until so many messages have completed, and
// answers how many have.
func (e *End) flow(ctx context.Context, over *atomic.Bool, messages int64) (int64, error) {
	f := &flow{End: e, over: over, most: messages}
	err := f.run(ctx)
	return f.done, err
}

type flow struct {
	*End
	warm, over *atomic.Bool
	most       int64 // messages to be sent; 0: until over

	posted, done int64
	counted      int64 // that completed between first and last
	first, last  time.Time
}

// ended says whether no more is to be posted.
func (f *flow) ended() bool {
	return f.over != nil && f.over.Load() || f.most > 0 && f.posted == f.most
}

func (f *flow) run(ctx context.Context) error {
	stopped := context.AfterFunc(ctx, func() { f.stop.Store(true) })
	defer stopped()
	for {
		for _, q := range f.queues {
			if err := f.fill(q); err != nil {
				return err
			}
		}
		if f.ended() && f.done == f.posted {
			return nil
		}
		n, err := f.wait(ctx)
		if err != nil {
			return err
		}
		if n == 0 { // the passive end is told to end: what is in flight goes with the queue pair
			if f.over == &f.stop {
				return nil
			}
			return context.Cause(ctx)
		}
		if err := f.take(n); err != nil {
			return err
		}
	}
}

// fill posts what a queue has room for, up to Chain a doorbell; and when no more is to be
// posted, a last one that tells when those before it are done, if none of them does.
func (f *flow) fill(q *queue) error {
	for q.credits.Free() > 0 {
		q.batch = q.batch[:0]
		for len(q.batch) < f.Chain && q.credits.Free() > 0 && (!f.ended() || q.unsignaled > 0) {
			wr := f.message(q, q.sent)
			q.sent++
			if f.posted++; f.ended() {
				wr.Flags |= ibverbs.SendSignaled
			}
			q.credits.Take(&wr)
			if q.unsignaled++; wr.Flags&ibverbs.SendSignaled != 0 {
				q.unsignaled = 0
			}
			q.batch = append(q.batch, wr)
		}
		if len(q.batch) == 0 {
			return nil
		}
		if _, err := q.qp.PostSend(q.batch); err != nil {
			return err
		}
		f.posts++
	}
	return nil
}

// take looks at n completions, and frees what they stand for.
func (f *flow) take(n int) error {
	if err := f.takeReceives(n); err != nil {
		return err
	}
	before := f.done
	for i := range f.wcs[:n] {
		if id := f.wcs[i].ID; id&recvID == 0 {
			c := f.queues[id].credits
			free := c.Free()
			c.Complete()
			f.done += int64(c.Free() - free)
		}
	}
	if f.warm != nil && f.done > before {
		f.count(f.done - before)
	}
	return nil
}

// count counts what completed between the first look after it was warm and the last before
// it was over.
func (f *flow) count(n int64) {
	switch {
	case f.over.Load():
	case !f.first.IsZero():
		f.counted += n
		f.last = time.Now()
	case f.warm.Load():
		f.first = time.Now()
	}
}

// sink takes what the other end sends.
func (e *End) sink(ctx context.Context) error {
	for {
		n, err := e.wait(ctx)
		if n == 0 || err != nil {
			return err
		}
		if err := e.takeReceives(n); err != nil {
			return err
		}
	}
}

// takeReceives looks at n completions, and posts the receives among them again.
func (e *End) takeReceives(n int) error {
	for i := range e.wcs[:n] {
		wc := &e.wcs[i]
		if err := wc.Err(); err != nil {
			return err
		}
		if wc.ID&recvID == 0 {
			continue
		}
		e.received++
		q := e.queues[wc.ID&^recvID]
		if q.recv = append(q.recv, e.receive(q)); len(q.recv) >= recvBatch {
			if _, err := q.qp.PostRecv(q.recv); err != nil {
				return err
			}
			q.recv = q.recv[:0]
		}
	}
	return nil
}

// recvBatch is how many receives are posted again at a time, where perftest posts one: the
// queue is deep enough.
const recvBatch = 16
