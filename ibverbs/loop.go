package ibverbs

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// LoopRecvID marks the ID of a receive that a [Pump] or a [PingPong] takes: it is this
// together with the index of its queue.
const LoopRecvID uint64 = 1 << 63

// MaxLoopChain is how many requests a loop posts at once at the most.
const MaxLoopChain = 64

// LoopQueue is one queue pair of a loop.
type LoopQueue struct {
	QP *QP
	// Send is posted again and again: an [OpSend], [OpWrite] or [OpRead] with one SGE, which
	// is the first place. The ID is the loop's.
	Send SendWR
	// Recv is posted again for each receive that was used, with one SGE, the first place,
	// and the ID that [LoopRecvID] describes. Of a [PingPong] of writes it is where the
	// peer's come, and is not posted.
	Recv RecvWR
	// Posted is how many receives the queue has already, from the first place on.
	Posted int
}

// LoopConfig is what a [Pump] or a [PingPong] does.
type LoopConfig struct {
	Queues []LoopQueue
	Depth  int // requests in flight, each queue pair; 0: none is ever sent
	Chain  int // requests a doorbell at the most, up to MaxLoopChain
	Signal int // a completion for every so many requests
	Repost int // receives posted again at once, up to MaxLoopChain, and to what each queue has
	// Each message takes the next of so many places, Stride bytes apart; at the peer too.
	Places, Stride int
	// Events makes it wait on them, in poll(2): the queue holds its thread
	// ([CQ.HoldThread]), and spins before that as [CQ.SetSpin] says. Else it polls.
	Events bool
	// GiveWay lets others run (sched_yield(2)) after every so many looks that found nothing;
	// 0 never does. Messages of a software device are carried by threads of the kernel, which
	// would wait for the poller's time to be over.
	GiveWay int
}

// loop mirrors struct rx_loop, and loopQueue struct rx_loop_queue (verbs.h).
type loop struct {
	cq, ch                               uintptr
	places, stride                       uint64
	spin                                 int64 // nanoseconds
	queues, depth, chain, signal, repost uint32
	giveWay                              uint32
	events, wake, armed                  int32
	stop                                 int32 // atomic
	over, failedCall                     int32
	drain                                int64 // polls
	most, posted, done, posts            int64
	counted, first, last                 int64
	failed                               WC
}

type loopQueue struct {
	qp                                     uintptr
	send                                   SendWR
	recv                                   RecvWR
	sent, done, received, answered, ringed uint64
	open, owed, ud, _                      uint32
}

// looping is a loop's state in C, and what of it Go alone knows.
type looping struct {
	cq    *CQ
	qps   []*QP
	state loop
	each  []loopQueue
}

func (q *CQ) newLoop(c *LoopConfig) (*looping, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	l := &looping{cq: q, each: make([]loopQueue, len(c.Queues)), state: loop{
		cq: uintptr(q.h), ch: uintptr(q.ch), spin: int64(q.spin), places: uint64(c.Places), stride: uint64(c.Stride), queues: uint32(len(c.Queues)),
		depth: uint32(c.Depth), chain: uint32(c.Chain), signal: uint32(c.Signal), repost: uint32(c.Repost), giveWay: uint32(c.GiveWay),
		drain: int64(q.depth),
	}}
	if c.Events {
		if q.hold == nil {
			return nil, errors.New("a loop that waits on events: its completion queue does not hold its thread (CQ.HoldThread)")
		}
		l.state.events, l.state.wake = 1, int32(q.hold.fd)
	}
	for i, from := range c.Queues {
		to := &l.each[i]
		switch {
		case from.QP == nil || from.QP.h == nil:
			return nil, fmt.Errorf("queue %d of a loop: %w", i, ErrClosed)
		case from.QP.conf.SendCQ != q || from.QP.conf.RecvCQ != q:
			return nil, fmt.Errorf("queue %d of a loop: it completes in another queue, where nobody looks", i)
		}
		if from.Posted > 0 { // more than those would be waited for, while the peer waits for a receive
			l.state.repost = min(l.state.repost, uint32(from.Posted))
		}
		to.qp, to.send, to.recv, to.ringed = uintptr(from.QP.h), from.Send, from.Recv, uint64(from.Posted)
		if from.QP.conf.Type == QPTypeUD {
			if c.Depth > 0 && from.Send.AH == 0 {
				return nil, errNoAH
			}
			to.ud = 1
		}
		l.qps = append(l.qps, from.QP)
	}
	return l, nil
}

// check refuses what C would not look at again.
func (c *LoopConfig) check() error {
	switch {
	case len(c.Queues) == 0 || c.Depth < 0 || c.GiveWay < 0 || c.Places < 1 || c.Stride < 0:
		return errors.New("a loop needs a queue pair and a place, and nothing of it is negative")
	case c.Chain < 1 || c.Chain > MaxLoopChain || c.Repost < 1 || c.Repost > MaxLoopChain || c.Signal < 1:
		return fmt.Errorf("a loop posts 1 to %d requests or receives at once, and signals one in so many", MaxLoopChain)
	}
	for i := range c.Queues {
		q := &c.Queues[i]
		if op := q.Send.Opcode; c.Depth > 0 && (q.Send.NumSGE != 1 || op != OpSend && op != OpWrite && op != OpRead) {
			return fmt.Errorf("queue %d of a loop: send, write or read, with one SGE", i)
		}
		if q.Recv.NumSGE == 1 && q.Recv.ID != LoopRecvID|uint64(i) {
			return fmt.Errorf("queue %d of a loop: its receive is %#x, and not LoopRecvID with the queue's index", i, q.Recv.ID)
		}
	}
	return nil
}

// takeArmed takes over that the last WaitPoll asked for an event, which is asked for once.
func (l *looping) takeArmed() {
	if l.state.events != 0 && l.cq.armed && !l.cq.solicited {
		l.state.armed, l.cq.armed = 1, false
	}
}

// giveArmed gives it back, and a Wake that the loop slept through.
func (l *looping) giveArmed() {
	if l.state.events == 0 {
		return
	}
	l.cq.armed = l.state.armed != 0 && !l.cq.solicited
	l.state.armed = 0
	if l.cq.woken.Load() {
		l.cq.hold.interrupt()
	}
}

// until runs f, which is in C, and sees to it that the end of ctx ends that.
func (l *looping) until(ctx context.Context, f func() int) (int, error) {
	if l.stopped() {
		return 0, errors.New("a loop that was stopped does not run again")
	}
	told := make(chan struct{})
	end := context.AfterFunc(ctx, func() { l.stop(); close(told) })
	l.takeArmed()
	n := f()
	l.giveArmed()
	if !end() {
		<-told // what it wakes may be closed next, or is waited for by somebody else
	}
	switch {
	case n < 0:
		atomic.StoreInt32(&l.state.stop, 1) // what it counted may be wrong by what failed
		return 0, l.failure(n)
	case l.stopped():
		return n, context.Cause(ctx)
	}
	return n, nil
}

// stop ends the loop, for good.
func (l *looping) stop() {
	atomic.StoreInt32(&l.state.stop, 1)
	if l.state.events != 0 {
		l.cq.hold.interrupt()
	}
}

func (l *looping) stopped() bool { return atomic.LoadInt32(&l.state.stop) != 0 }

// The calls of enum rx_loop_call.
const (
	loopPoll = iota
	loopPostSend
	loopPostRecv
	loopCompletion
	loopForeign
)

func (l *looping) failure(rc int) error {
	conf := &l.qps[0].conf
	switch l.state.failedCall {
	case loopPostSend:
		return l.qps[0].postError("ibv_post_send", rc, conf.MaxSend)
	case loopPostRecv:
		return l.qps[0].postError("ibv_post_recv", rc, conf.MaxRecv)
	case loopCompletion:
		return l.state.failed.Err()
	case loopForeign:
		return errors.New("a completion that is not this loop's: its queue has to be empty when it begins, and nobody else's requests may complete there")
	}
	return l.cq.gone(opError("waiting for completions", rc))
}

// Pump keeps queue pairs busy, and takes what their peers send, as a program in C would:
// from one crossing into it until it is done. That is for those who measure. A goroutine
// that polls has Go's monitor wake up to a thousand times a second, to see whether its P
// should be taken away, and where the device is software that costs as much as messages do.
//
// Nothing looks at what comes in, and the same is sent again and again. One goroutine at a
// time runs it, and no other polls its completion queue meanwhile. That is empty when a loop is
// made, and is its own from then on. Queue pairs and queue stay open while it runs.
type Pump struct{ l *looping }

// Pumped counts what one Run of a [Pump] did, on all queue pairs together.
type Pumped struct {
	Sent     int64 // messages that completed
	Received int64 // receives that were used
	Posts    int64 // doorbells
	// Counted are those of Sent that completed in Took: between the first look after the
	// warm-up that found any and the last such within the time.
	Counted int64
	Took    time.Duration
}

// NewPump makes a pump of queue pairs whose sends and receives complete in this queue.
func (q *CQ) NewPump(c LoopConfig) (*Pump, error) {
	l, err := q.newLoop(&c)
	if err != nil {
		return nil, err
	}
	return &Pump{l}, nil
}

// Run keeps the queues full until warm and then d have gone by, if d is not 0, or until so many
// messages were posted, if that is not 0, and waits for the last of them. With neither, or a
// depth of 0, it goes on until ctx ends; then it takes what completed before, leaves behind what
// is in flight, answers the context's cause and what was done, and can't run again. Nor can it
// after another error. A failed completion is a [*WCError].
func (p *Pump) Run(ctx context.Context, warm, d time.Duration, messages int64) (Pumped, error) {
	if warm < 0 || d < 0 || messages < 0 {
		return Pumped{}, errors.New("a pump: a negative time, or number of messages")
	}
	s := &p.l.state
	before := Pumped{Sent: s.done, Received: p.received(), Posts: s.posts}
	s.over, s.counted, s.first, s.last, s.most = 0, 0, 0, 0, 0
	if messages > 0 {
		s.most = s.posted + messages
	}
	_, err := p.l.until(ctx, func() int { return sysPump(s, p.l.each, loopTime(warm), loopTime(d)) })
	return Pumped{
		Sent: s.done - before.Sent, Received: p.received() - before.Received, Posts: s.posts - before.Posts,
		Counted: s.counted, Took: time.Duration(s.last - s.first),
	}, err
}

// loopTime is so long in nanoseconds, or so much less that a clock's reading can be added.
func loopTime(d time.Duration) int64 { return min(int64(d), 1<<61) }

func (p *Pump) received() (n int64) {
	for i := range p.l.each {
		n += int64(p.l.each[i].received)
	}
	return n
}

// PingPong is one end of a game with one message at a time, or reads one at a time, and like
// a [Pump] it stays in C. Of sends a message is there when it took a receive; of writes when
// its last byte is what the peer put there, which differs from what was there before: the
// memory is 0 at first. That a device writes that byte last is the custom of those that poll
// memory, perftest's ib_write_lat among them, and is no promise of the specification.
type PingPong struct{ l *looping }

// NewPingPong makes an end of one queue pair. Its depth is what may be posted and not be
// known to be done: several times c.Signal, so that nobody waits for that.
func (q *CQ) NewPingPong(c LoopConfig) (*PingPong, error) {
	l, err := q.newLoop(&c)
	switch {
	case err != nil:
		return nil, err
	case len(c.Queues) != 1 || c.Depth < 1:
		return nil, errors.New("a game of ping-pong is played by one queue pair, which sends")
	case c.Queues[0].Send.Opcode == OpRead && c.Signal != 1:
		return nil, errors.New("reads one at a time are signalled each")
	case c.Queues[0].Send.Opcode == OpWrite && (c.Queues[0].Recv.NumSGE != 1 || c.Events):
		return nil, errors.New("who looks for a peer's writes needs the place they come to, and no event tells of one")
	case c.Queues[0].Send.Opcode == OpWrite && (c.Queues[0].Send.SGE[0].Length == 0 || c.Queues[0].Send.SGE[0].Length != c.Queues[0].Recv.SGE[0].Length):
		return nil, errors.New("what is written back and forth has one length, of a byte or more: the last byte tells that it is there")
	}
	return &PingPong{l}, nil
}

// Play begins: it posts a message, waits for the peer's, and so on, until trips are full of
// round-trip times in nanoseconds, or d is over if that is not 0. It answers how many there
// are. The end of ctx ends it as it ends [Pump.Run].
func (p *PingPong) Play(ctx context.Context, trips []int64, d time.Duration) (int, error) {
	switch {
	case d < 0:
		return 0, errors.New("a game of ping-pong: a negative time")
	case len(trips) == 0:
		return 0, nil
	}
	return p.l.until(ctx, func() int { return sysPing(&p.l.state, p.l.each, trips, loopTime(d)) })
}

// Answer answers each message with one, until ctx ends; its error is that of ctx, or why it
// could not.
func (p *PingPong) Answer(ctx context.Context) error {
	if p.l.each[0].send.Opcode == OpRead {
		return errors.New("reads are answered by the device, not by a game")
	}
	_, err := p.l.until(ctx, func() int { return sysPong(&p.l.state, p.l.each) })
	return err
}

// Posts is how many messages were posted, one a doorbell.
func (p *PingPong) Posts() int64 { return p.l.state.posts }
