//go:build linux

package verbsperf

import (
	"context"
	"time"

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
	most        int
	posts       int64 // before the first that counts
}

func (e *End) newLap() *lap {
	return &lap{end: e, trips: hdrhistogram.New(1, longest, 3), began: time.Now(), warm: e.WarmUp, until: e.WarmUp + e.Duration, most: e.Iterations}
}

// final says whether the trip that is under way is the last.
func (l *lap) final() bool {
	switch {
	case l.start == 0:
		return false
	case l.most > 0:
		return l.trips.TotalCount()+1 >= int64(l.most)
	}
	return l.last >= l.until
}

// done ends a round trip. The next is under way.
func (l *lap) done() error {
	now := time.Since(l.began)
	took := now - l.last
	l.last = now
	if l.start > 0 {
		return l.trips.RecordValue(max(1, int64(took)))
	}
	if now > l.warm {
		l.start, l.posts = now, l.end.posts
	}
	return nil
}

func (l *lap) result() *Result {
	return &Result{Messages: l.trips.TotalCount(), Sent: int64(l.end.queues[0].sent), Elapsed: l.last - l.start, Posts: l.end.posts - l.posts, Trips: l.trips}
}

// yields says whether who polls for these messages would keep them from coming. Of reads
// one end polls, and the device has the processors that are left.
func (e *End) yields() bool { return e.Latency && !e.Events && e.software && e.Op != OpRead }

// player is one end of a ping-pong, or the one that reads.
type player struct {
	*End
	q           *queue
	wr          [1]ibverbs.SendWR // the next message
	outstanding int               // signalled sends
	messages    int               // received and not yet answered, where events tell of them
}

// play times whole round trips, one message at a time: of reads from the post to the
// completion; else from a message that is posted to the one that the peer sends back. The
// end that does not begin answers, until it is told to end.
func (e *End) play(ctx context.Context, begins bool) (*Result, error) {
	end := context.AfterFunc(ctx, func() { e.stop.Store(true) })
	defer end()
	p := &player{End: e, q: e.queues[0]}
	l := e.newLap()
	if begins {
		if err := p.post(); err != nil {
			return nil, err
		}
	}
	for {
		final := begins && l.final()
		came, err := p.turn(ctx, !final)
		switch {
		case err != nil:
			return nil, err
		case !came && begins:
			return nil, context.Cause(ctx)
		case !came:
			return &Result{}, nil
		case begins:
			if err := l.done(); final || err != nil {
				return l.result(), err
			}
		}
	}
}

// signalEvery is how often a message tells when it is done: the queue must not fill up.
const signalEvery = 32

// pingPongDepth is the send queue that this takes.
const pingPongDepth = 2 * signalEvery

// next is the message that comes next.
func (p *player) next() *ibverbs.SendWR {
	wr := &p.wr[0]
	*wr = p.message(p.q, p.q.sent)
	if p.Op == OpRead || (p.q.sent+1)%signalEvery == 0 {
		wr.Flags |= ibverbs.SendSignaled
	}
	return wr
}

// posted counts the message that came next.
func (p *player) posted() {
	if p.Op != OpRead && p.wr[0].Flags&ibverbs.SendSignaled != 0 {
		p.outstanding++
	}
	p.q.sent++
	p.posts++
}

// mark is the last byte of the next write: it is another one each time.
func (p *player) mark() ibverbs.Mark {
	if p.Op != OpWrite {
		return ibverbs.Mark{}
	}
	last := p.q.sent%p.Buffers*p.stride() + p.Size - 1
	return ibverbs.Mark{At: &p.mr.Bytes()[last], Is: byte(p.q.sent + 1)}
}

// post posts the next message.
func (p *player) post() error {
	p.next()
	if m := p.mark(); m.At != nil {
		*m.At = m.Is
	}
	if _, err := p.q.qp.PostSend(p.wr[:]); err != nil {
		return err
	}
	p.posted()
	return nil
}

// turn waits for the next message, and answers it. It reports false when this end is told
// to end.
func (p *player) turn(ctx context.Context, answer bool) (bool, error) {
	if p.Events && p.Op != OpWrite {
		if came, err := p.await(ctx); !came || err != nil || !answer {
			return came, err
		}
		return true, p.post()
	}
	var wr *ibverbs.SendWR
	if answer {
		wr = p.next()
	}
	for !p.stop.Load() {
		came, err := p.look(wr)
		if err != nil {
			return false, err
		}
		if came {
			if answer {
				p.posted()
			}
			return p.keepUp()
		}
	}
	return false, nil
}

// look polls for the next message, and posts the request, if there is one, where it came:
// while a kernel's thread still looks for work it need not be woken, so what lies between a
// message and the next post counts several times. Of writes it looks at the last byte,
// which the device writes last.
func (p *player) look(wr *ibverbs.SendWR) (bool, error) {
	if p.Op == OpWrite {
		last := p.in() + p.q.ringed%p.Buffers*p.stride() + p.Size - 1
		came, err := p.q.qp.PostWhen(ibverbs.Mark{At: &p.mr.Bytes()[last], Is: byte(p.q.ringed + 1)}, p.mark(), look, wr)
		if came {
			p.q.ringed++
		}
		return came, err
	}
	var n int
	var err error
	if wr == nil {
		n, err = p.cq.PollFor(p.wcs, look)
	} else {
		n, _, err = p.cq.PollPost(p.wcs, look, p.q.qp, wr)
	}
	if err != nil {
		return false, err
	}
	return n > 0, p.takeReceives(n)
}

// keepUp waits until no more than one message, which tells when it is done, is not.
func (p *player) keepUp() (bool, error) {
	for p.outstanding > 1 {
		n, err := p.sends.PollFor(p.wcs, look)
		if err != nil {
			return false, err
		}
		for i := range p.wcs[:n] {
			if err := p.wcs[i].Err(); err != nil {
				return false, err
			}
		}
		if p.outstanding -= n; n == 0 && p.stop.Load() {
			return false, nil
		}
	}
	return true, nil
}

// await waits on events for the next message.
func (p *player) await(ctx context.Context) (bool, error) {
	for p.messages == 0 {
		n, err := p.wait(ctx)
		if n == 0 || err != nil {
			return false, err
		}
		before := p.received
		if err := p.takeReceives(n); err != nil {
			return false, err
		}
		got := int(p.received - before)
		if p.Op == OpRead {
			got = n
		}
		p.messages += got
		p.outstanding -= n - got
	}
	p.messages--
	return true, nil
}
