package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/limit"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// openLimit bounds the opening of one lane, both ends' work and the probe.
const openLimit = 10 * time.Second

// graceForCause is how long a broken lane waits for the control connection to say
// why: a peer that was killed breaks both, and that is the better words.
const graceForCause = 500 * time.Millisecond

// lanes are the receiving ends of one transfer. Which there shall be, the keeper
// decides.
type lanes struct {
	p       *pull
	running sync.WaitGroup // the lanes, what opens them and what watches over them
	landed  atomic.Int64   // extents, over all lanes
	writing atomic.Int64   // ns that lanes wrote those for which Placed says so, or waited for their turn at a file

	mu      sync.Mutex
	last    uint32 // number of the newest lane
	opening map[uint32]openingLane
	up      map[uint32]*laneFeed
	ever    []*laneFeed // every lane that came up, in that order
	plan    Plan
	planned []*laneFeed // that plan speaks of
}

func (l *lanes) init(p *pull) {
	l.p = p
	l.opening = make(map[uint32]openingLane)
	l.up = make(map[uint32]*laneFeed)
}

// policy joins both users' wishes. Neither transport may be left.
func (l *lanes) policy() (rdma, tcp bool, reason string) {
	mine, theirs := l.p.Transport, l.p.hello.Transport
	switch {
	case mine == TransportTCP:
		return false, theirs != TransportRDMA, "the receiver was told to use tcp"
	case theirs == TransportTCP:
		return false, mine != TransportRDMA, "the sender was told to use tcp"
	case l.p.hello.Encrypt, l.p.Encrypt:
		return false, mine != TransportRDMA && theirs != TransportRDMA, "the payload is to be encrypted, and over RDMA it is clear"
	}
	return true, mine == TransportAuto && theirs == TransportAuto, ""
}

// errRetired is why a lane ends that another does as well without.
var errRetired = errors.New("it is not needed any more")

// lane is a receiving end that is up, and what it works for.
type lane struct {
	Puller
	feed *laneFeed
	ctx  context.Context // its end ends the lane
}

// openingLane is what the sender may say of a lane that is not up yet.
type openingLane struct {
	answer chan *wire.LaneAnswer
	kill   context.CancelCauseFunc
}

// open opens a lane of a transport, which hello asked for. It gives it its number.
func (l *lanes) open(ctx context.Context, t PullTransport, hello *wire.Hello, params LaneParams) (*lane, error) {
	ctx, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	l.mu.Lock()
	if l.last == maxOpened && !hello.Measure { // there each lane was asked for
		l.mu.Unlock()
		return nil, errorf(CodeConnect, "this session has opened %d lanes, and lost them: something between the hosts, or the sender, ends them", maxOpened)
	}
	l.last++
	id := l.last
	lctx, kill := context.WithCancelCause(l.p.ctx)
	answer := make(chan *wire.LaneAnswer, 1)
	l.opening[id] = openingLane{answer, kill}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.opening, id)
		l.mu.Unlock()
	}()
	defer context.AfterFunc(lctx, cancel)()

	params.ID = id
	puller, err := l.connect(ctx, t, hello, params, answer)
	if err != nil {
		err = causeOf(lctx, err)
		kill(nil)
		return nil, err
	}
	feed := &laneFeed{l: l, id: id, path: params.Path, transport: t.Name(), puller: puller, opened: time.Now(), kill: kill}
	l.mu.Lock()
	l.up[id] = feed
	l.ever = append(l.ever, feed)
	l.mu.Unlock()
	return &lane{puller, feed, lctx}, nil
}

func (l *lanes) connect(ctx context.Context, t PullTransport, hello *wire.Hello, params LaneParams, answer <-chan *wire.LaneAnswer) (puller Puller, err error) {
	open := &wire.OpenLane{ID: params.ID, Depth: uint16(params.Depth)}
	if t.Name() == TransportTCP {
		open.TCP = new(wire.TCPLane)
		rand.Read(open.TCP.Ticket[:])
		wait, forget := l.p.Listener.expect(l.p.session, params.ID, open.TCP.Ticket)
		defer forget()
		params.Conn = func(ctx context.Context, _ Control) (*net.TCPConn, error) { return wait(ctx) }
		if hello.Encrypt {
			params.Secret = laneSecret(open.TCP.Ticket, l.p.session, params.ID)
		}
	}
	if t.Name() == TransportUDP {
		if params.Here, params.There, err = l.p.s.addresses(); err != nil {
			return nil, err
		}
	}
	pending, err := t.Prepare(ctx, hello, params, open)
	if err != nil {
		return nil, err
	}
	if err := l.p.s.Send(open); err != nil {
		pending.Close()
		return nil, err
	}
	select {
	case a := <-answer:
		if a.Reason != "" {
			pending.Close()
			return nil, errors.New("the sender: " + Printable(a.Reason))
		}
		puller, err = pending.Connect(ctx, a)
	case <-ctx.Done():
		pending.Close()
		err = fmt.Errorf("the sender did not open its end of a %s lane within %v", t.Name(), openLimit)
	}
	if err != nil {
		l.down(params.ID, err)
	}
	return puller, err
}

// down tells the sender that a lane is given up: its end may not have noticed, and
// holds memory for it. A broken session is noticed by who reads it.
func (l *lanes) down(id uint32, cause error) {
	_ = l.p.s.Send(&wire.LaneDown{ID: id, Reason: wire.Clip(cause.Error())})
}

// answered hands an answer to the open that waits for it.
func (l *lanes) answered(a *wire.LaneAnswer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.opening[a.ID].answer <- a:
	default: // nobody waits for it, or it came before
	}
}

// run pulls over one lane until it ends, and answers why it broke; nil when it did
// not. What it had taken goes back only when nothing of it can land any more.
func (l *lanes) run(ln *lane) error {
	err := ln.Pull(ln.ctx, ln.feed)
	if err != nil {
		err = causeOf(ln.ctx, err)
	}
	l.close(ln)
	if l.p.ctx.Err() != nil {
		return nil
	}
	if err == nil {
		if ln.feed.retired.Load() && ln.feed.transport == TransportRDMA { // its queue pair hears of no end
			l.down(ln.feed.id, errRetired)
		}
		return nil
	}
	l.p.sched.giveBack(ln.feed.rest())
	l.down(ln.feed.id, err)
	select {
	case <-l.p.ctx.Done():
	case <-l.p.done:
	case <-time.After(graceForCause):
	}
	return err
}

// close frees what a lane holds. Its Pull has returned, or was never called.
func (l *lanes) close(ln *lane) {
	ln.feed.kill(nil)
	ln.feed.gone.Store(true)
	ln.feed.ended()
	// Every byte that was asked for has landed or goes back: what can't be freed is
	// of no consequence to the transfer.
	_ = ln.Close()
	l.mu.Lock()
	delete(l.up, ln.feed.id)
	l.mu.Unlock()
}

// kill ends a lane that the sender says is broken, or gives up opening it.
func (l *lanes) kill(id uint32, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.up[id]; f != nil {
		f.kill(cause)
	} else if o, ok := l.opening[id]; ok { // this end may be about to find out why, with another code
		time.AfterFunc(graceForCause, func() { o.kill(cause) })
	}
}

// checkStalled ends the lanes that have waited too long for an answer. Where the sender's
// user set a low rate, an answer comes when all lanes had their turn.
func (l *lanes) checkStalled(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := stallLimit + atRate(limit.Rate(l.p.hello.Limit), len(l.up))
	for _, f := range l.up {
		if f.stalled(now, most) {
			f.kill(errorf(CodeConnect, "the peer lives, but has not answered a request for %v: its storage hangs, or the lane loses what it carries", most))
		}
	}
}

// atRate is how long some extents take at a rate; nothing without one.
func atRate(r limit.Rate, extents int) time.Duration {
	if r == 0 {
		return 0
	}
	return time.Duration(float64(extents) * DefaultExtentSize / float64(r) * float64(time.Second))
}

// lowRate is r if a receiver that does not know of it might take lanes for stalled, else 0.
func lowRate(r limit.Rate) limit.Rate {
	if atRate(r, wire.MaxLanes) < stallLimit/2 {
		return 0
	}
	return r
}

// used is the plan, with what its lanes turned out to run on.
func (l *lanes) used() Plan {
	l.mu.Lock()
	defer l.mu.Unlock()
	plan := l.plan
	if len(l.planned) > 0 {
		plan.Detail = describeAll(l.planned)
	}
	return plan
}

func describeAll(feeds []*laneFeed) string {
	var details []string
	for _, f := range feeds {
		details = append(details, f.describe())
	}
	return joinDetails(details)
}

// wait returns when every lane has ended.
func (l *lanes) wait() { l.running.Wait() }

// carried lists the lanes that bytes landed over, as the sender is told.
func (l *lanes) carried() (told []wire.LaneBytes, results []LaneResult) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.ever {
		if n := f.bytes.Load(); n > 0 {
			told = append(told, wire.LaneBytes{ID: f.id, Bytes: n})
			results = append(results, LaneResult{Transport: f.transport, Detail: f.describe(), Bytes: n})
		}
	}
	return told, results
}
