package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// openLimit bounds the opening of one lane, both ends' work and the probe.
const openLimit = 10 * time.Second

// graceForCause is how long a broken lane waits for the control connection to say
// why: a peer that was killed breaks both, and that is the better words.
const graceForCause = 500 * time.Millisecond

// maxTCPLanes bounds how often a broken TCP lane is opened again.
const maxTCPLanes = 4

// lanes are the receiving ends of one transfer.
type lanes struct {
	p *pull

	mu      sync.Mutex
	last    uint32 // number of the newest lane
	waiting map[uint32]chan *wire.LaneAnswer
	up      map[uint32]*laneFeed
	running sync.WaitGroup // and what opens lanes and watches over them
	tcpUsed int
	plan    Plan
}

func (l *lanes) init(p *pull) {
	l.p = p
	l.waiting = make(map[uint32]chan *wire.LaneAnswer)
	l.up = make(map[uint32]*laneFeed)
}

// openFirst chooses the transport and opens the first lane. What was tried and
// not taken is told to both users.
func (l *lanes) openFirst(ctx context.Context) error {
	wantRDMA, wantTCP, reason := l.policy()
	if !wantRDMA && !wantTCP {
		return errorf(CodeNoRDMA, "RDMA is required, and %s", reason)
	}
	if wantRDMA {
		err := l.open(ctx, l.p.RDMA, "")
		if err == nil || ctx.Err() != nil {
			return causeOf(ctx, err)
		}
		if !wantTCP {
			return errorf(CodeNoRDMA, "RDMA is required and can't be had: %w", err)
		}
		reason = err.Error()
	}
	if err := l.open(ctx, l.p.TCP, reason); err != nil {
		return causeOf(ctx, errorf(CodeConnect, "no lane: %w", err))
	}
	return nil
}

// policy joins both users' wishes. Neither transport may be left.
func (l *lanes) policy() (rdma, tcp bool, reason string) {
	mine, theirs := l.p.Transport, l.p.hello.Transport
	switch {
	case mine == TransportTCP:
		return false, theirs != TransportRDMA, "the receiver was told to use tcp"
	case theirs == TransportTCP:
		return false, mine != TransportRDMA, "the sender was told to use tcp"
	}
	return true, mine == TransportAuto && theirs == TransportAuto, ""
}

// open opens a lane of a transport and starts pulling over it.
func (l *lanes) open(ctx context.Context, t PullTransport, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	l.mu.Lock()
	l.last++
	id := l.last
	answer := make(chan *wire.LaneAnswer, 1)
	l.waiting[id] = answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.waiting, id)
		l.mu.Unlock()
	}()

	puller, err := l.connect(ctx, t, id, answer)
	if err != nil {
		return causeOf(l.p.ctx, err)
	}
	plan := Plan{Transport: t.Name(), Detail: puller.Describe(), Lanes: 1, Reason: reason}
	lctx, kill := context.WithCancelCause(l.p.ctx)
	feed := &laneFeed{p: l.p, id: id, kill: kill}
	l.mu.Lock()
	l.up[id] = feed
	l.plan = plan
	l.mu.Unlock()
	l.p.mu.Lock()
	l.p.Observer.Planned(plan)
	l.p.mu.Unlock()
	if err := l.p.s.Send(&wire.Plan{Transport: plan.Transport, Lane: id, Lanes: 1, Reason: wire.Clip(reason)}); err != nil {
		kill(nil)
		puller.Close()
		return err
	}
	l.running.Go(func() { l.run(lctx, t, puller, feed) })
	return nil
}

func (l *lanes) connect(ctx context.Context, t PullTransport, id uint32, answer <-chan *wire.LaneAnswer) (Puller, error) {
	params := LaneParams{ID: id, Depth: DefaultDepth, ExtentSize: DefaultExtentSize}
	open := &wire.OpenLane{ID: id, Depth: DefaultDepth}
	if t.Name() == TransportTCP {
		open.TCP = new(wire.TCPLane)
		rand.Read(open.TCP.Ticket[:])
		wait, forget := l.p.Listener.expect(l.p.session, id, open.TCP.Ticket)
		defer forget()
		params.Conn = wait
	}
	pending, err := t.Prepare(ctx, l.p.hello, params, open)
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
		return pending.Connect(ctx, a)
	case <-ctx.Done():
		pending.Close()
		return nil, fmt.Errorf("the sender did not open its end of a %s lane within %v", t.Name(), openLimit)
	}
}

// answered hands an answer to the open that waits for it.
func (l *lanes) answered(a *wire.LaneAnswer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.waiting[a.ID]; c != nil {
		delete(l.waiting, a.ID)
		c <- a
	}
}

// run pulls over one lane until it ends. A lane that broke gives its extents back
// only when nothing of it can land any more.
func (l *lanes) run(ctx context.Context, t PullTransport, puller Puller, feed *laneFeed) {
	err := puller.Pull(ctx, feed)
	if err != nil {
		err = causeOf(ctx, err)
	}
	feed.kill(nil)
	if cerr := puller.Close(); cerr != nil && err == nil {
		err = cerr
	}
	l.mu.Lock()
	delete(l.up, feed.id)
	l.mu.Unlock()
	if err == nil || l.p.ctx.Err() != nil {
		return
	}
	l.p.sched.giveBack(feed.taken)
	// Its end may not have noticed, and holds memory for it. A broken session is
	// noticed by who reads it.
	_ = l.p.s.Send(&wire.LaneDown{ID: feed.id, Reason: wire.Clip(err.Error())})
	l.replace(t, err)
}

// replace goes on without a lane that broke: over TCP where that is allowed.
func (l *lanes) replace(t PullTransport, cause error) {
	select {
	case <-l.p.ctx.Done():
		return
	case <-l.p.done:
		return
	case <-time.After(graceForCause):
	}
	l.mu.Lock()
	l.tcpUsed++
	tries := l.tcpUsed
	l.mu.Unlock()
	_, mayTCP, _ := l.policy()
	switch {
	case !mayTCP:
		l.p.cancel(errorf(CodeNoRDMA, "RDMA is required and was lost: %w", cause))
		return
	case tries > maxTCPLanes:
		l.p.cancel(errorf(CodeConnect, "%d lanes broke one after the other; the last: %w", tries, cause))
		return
	}
	reason := fmt.Sprintf("%s lane lost: %v", t.Name(), cause)
	if err := l.open(l.p.ctx, l.p.TCP, reason); err != nil && l.p.ctx.Err() == nil {
		l.p.cancel(errorf(CodeConnect, "%s, and no TCP lane: %w", reason, err))
	}
}

// kill ends a lane that the sender says is broken.
func (l *lanes) kill(id uint32, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.up[id]; f != nil {
		f.kill(cause)
	}
}

// checkStalled ends the lanes that have waited too long for an answer.
func (l *lanes) checkStalled(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.up {
		if f.stalled(now) {
			f.kill(errorf(CodeConnect, "the peer lives, but has not answered a request for %v: its storage hangs, or the lane loses what it carries", stallLimit))
		}
	}
}

// wait returns when every lane has ended.
func (l *lanes) wait() { l.running.Wait() }

// laneFeed is one lane's Feed. It remembers what the lane has taken and not
// landed, which is what the others get when it dies.
type laneFeed struct {
	p    *pull
	id   uint32
	kill context.CancelCauseFunc

	mu    sync.Mutex
	taken []Extent
	since time.Time // of the last progress, while something is taken
}

func (f *laneFeed) take(e Extent) {
	now := time.Now()
	f.mu.Lock()
	if len(f.taken) == 0 {
		f.since = now
	}
	f.taken = append(f.taken, e)
	f.mu.Unlock()
	f.p.asks(e, now)
}

func (f *laneFeed) untake(e Extent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.taken, e); i >= 0 {
		f.taken = slices.Delete(f.taken, i, i+1)
	}
	f.since = time.Now()
}

func (f *laneFeed) stalled(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.taken) > 0 && now.Sub(f.since) > stallLimit
}

// Next is [Feed].Next.
func (f *laneFeed) Next(ctx context.Context) (Extent, error) {
	e, err := f.p.sched.next(ctx)
	if err == nil {
		f.take(e)
	}
	return e, err
}

// TryNext is [Feed].TryNext.
func (f *laneFeed) TryNext() (Extent, bool) {
	e, ok := f.p.sched.tryNext()
	if ok {
		f.take(e)
	}
	return e, ok
}

// Land is [Feed].Land.
func (f *laneFeed) Land(e Extent, b []byte) error {
	if len(b) != e.Len {
		return fmt.Errorf("%w: %d bytes for an extent of %d", wire.ErrMalformed, len(b), e.Len)
	}
	err := f.p.land(e, b)
	f.untake(e)
	return err
}

// Refuse is [Feed].Refuse. Why, the sender owes on the control connection; the files of
// a pack are asked for one by one, to find the one that it means.
func (f *laneFeed) Refuse(e Extent) {
	f.p.refused(e)
	f.untake(e)
}
