//go:build linux

package verbsperf

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// longest is the longest round trip that is told from longer ones, nanoseconds.
const longest = 600e9

// lap times round trips: those after the warm-up, until there are enough. Times are since
// began.
type lap struct {
	end         *End
	trips       *hdrhistogram.Histogram
	began       time.Time
	warm, until time.Duration
	start, last time.Duration // of what is measured; start is 0 before that
	took        time.Duration // of the trip that was not recorded yet
	most        int
	posts       int64 // before the first that counts
}

func (e *End) newLap() *lap {
	return &lap{end: e, trips: hdrhistogram.New(1, longest, 3), began: time.Now(), warm: e.WarmUp, until: e.WarmUp + e.Duration, most: e.Iterations}
}

// done ends a round trip, and says whether it was the last. What is left to do about it is
// record's, when the next is under way: while a kernel's thread still looks for work it need
// not be woken, so what comes between a completion and the next post counts several times.
func (l *lap) done() bool {
	now := time.Since(l.began)
	l.took, l.last = now-l.last, now
	switch {
	case l.start == 0:
		return false
	case l.most > 0:
		return l.trips.TotalCount()+1 >= int64(l.most)
	}
	return now >= l.until
}

// record puts the last round trip into the histogram.
func (l *lap) record() error {
	if l.start > 0 {
		return l.trips.RecordValue(max(1, int64(l.took)))
	}
	if l.last > l.warm {
		l.start, l.posts = l.last, l.end.posts
	}
	return nil
}

func (l *lap) result() *Result {
	return &Result{Messages: l.trips.TotalCount(), Sent: int64(l.end.queues[0].sent), Elapsed: l.last - l.start, Posts: l.end.posts - l.posts, Trips: l.trips}
}

// yields says whether who polls for these messages would keep them from coming.
func (e *End) yields() bool { return e.Latency && !e.Events && e.software }

// latency times whole round trips, one message at a time: of reads from the post to the
// completion; else from a message that is posted to the one that the peer sends back.
func (e *End) latency(ctx context.Context) (*Result, error) {
	end := context.AfterFunc(ctx, func() { e.stop.Store(true) })
	defer end()
	if e.Op != OpRead {
		return e.pingPong(ctx, true)
	}
	q := e.queues[0]
	batch := make([]ibverbs.SendWR, 1)
	post := func() error {
		batch[0] = e.message(q, q.sent)
		batch[0].Flags |= ibverbs.SendSignaled
		q.sent++
		e.posts++
		_, err := q.qp.PostSend(batch)
		return err
	}
	l := e.newLap()
	if err := post(); err != nil {
		return nil, err
	}
	for {
		n, err := e.wait(ctx)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, context.Cause(ctx)
		}
		if err := e.wcs[0].Err(); err != nil {
			return nil, err
		}
		over := l.done()
		if !over {
			if err := post(); err != nil {
				return nil, err
			}
		}
		if err := l.record(); over || err != nil {
			return l.result(), err
		}
	}
}

// player is one end of a ping-pong.
type player struct {
	*End
	q           *queue
	batch       [1]ibverbs.SendWR
	outstanding int // signalled sends
	messages    int // received and not yet answered, where they take a receive
}

// pingPong sends a message for each that comes; first says who begins, and measures.
func (e *End) pingPong(ctx context.Context, first bool) (*Result, error) {
	p := &player{End: e, q: e.queues[0]}
	l := e.newLap()
	if first {
		if err := p.send(); err != nil {
			return nil, err
		}
	}
	for {
		came, err := p.receive(ctx)
		if err != nil {
			return nil, err
		}
		if !came { // told to end
			if first {
				return nil, context.Cause(ctx)
			}
			return &Result{}, nil
		}
		over := first && l.done()
		if !over {
			if err := p.send(); err != nil {
				return nil, err
			}
		}
		if first {
			if err := l.record(); over || err != nil {
				return l.result(), err
			}
		}
	}
}

// signalEvery is how often a message tells when it is done: the queue must not fill up.
const signalEvery = 32

// pingPongDepth is the send queue that this takes.
const pingPongDepth = 2 * signalEvery

func (p *player) send() error {
	wr := &p.batch[0]
	*wr = p.message(p.q, p.q.sent)
	p.q.sent++
	if p.q.sent%signalEvery == 0 {
		wr.Flags |= ibverbs.SendSignaled
		p.outstanding++
	}
	if p.Op == OpWrite {
		p.mr.Bytes()[(p.q.sent-1)%p.Buffers*p.stride()+p.Size-1] = byte(p.q.sent)
	}
	p.posts++
	_, err := p.q.qp.PostSend(p.batch[:])
	return err
}

// looksAClock is how many looks at the memory there are before other goroutines may run:
// see yieldAfter in ibverbs.
const looksAClock = 1 << 14

// receive waits for the next message: of writes, by looking at the last byte of it, which
// the device writes last. It answers false when this end is told to end.
func (p *player) receive(ctx context.Context) (bool, error) {
	if p.Op != OpWrite {
		for p.messages == 0 {
			if n, err := p.complete(ctx); n == 0 || err != nil {
				return false, err
			}
		}
		p.messages--
		return true, nil
	}
	last := p.in() + p.q.ringed%p.Buffers*p.stride() + p.Size - 1
	word := (*uint32)(unsafe.Pointer(&p.mr.Bytes()[last&^3]))
	p.q.ringed++
	for looks := 1; ; looks++ {
		if now := atomic.LoadUint32(word); (*[4]byte)(unsafe.Pointer(&now))[last&3] == byte(p.q.ringed) {
			break
		}
		if looks%looksAClock == 0 {
			if p.stop.Load() {
				return false, nil
			}
			runtime.Gosched()
		}
	}
	if p.outstanding > 1 { // far behind: take what has completed
		n, err := p.complete(ctx)
		return n > 0, err
	}
	return true, nil
}

// complete takes completions, of sends and of receives.
func (p *player) complete(ctx context.Context) (int, error) {
	n, err := p.wait(ctx)
	if err != nil {
		return 0, err
	}
	before := p.received
	if err := p.takeReceives(n); err != nil {
		return 0, err
	}
	got := int(p.received - before)
	p.messages += got
	p.outstanding -= n - got
	return n, nil
}
