package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// AutoLanes is how many lanes a transport has at the most when nobody said how many: what each path
// is worth, up to this.
const AutoLanes = 8

// When lanes are missing they are opened again at growing intervals, from firstRetry
// to lastRetry; a lane that lived for steady starts that anew. Where RDMA is required
// and gone there is nothing to do meanwhile: every hurry, for mercy.
const (
	firstRetry = 2 * time.Second
	lastRetry  = 30 * time.Second
	steady     = 30 * time.Second
	hurry      = time.Second
	mercy      = 10 * time.Second
)

// maxFutile bounds how often in a row every lane may break with nothing landed in
// between.
const maxFutile = 4

// What a receiver may ask for in one session: lanes in all, each of which costs the
// sender some packets and a few words of memory, so that retries at their longest
// interval go on for hours; and lanes at once, since those hold memory: twice as many
// as agreed, when one transport takes over from the other, and some that are being
// given up. Retries leave reserve of the first to what must be opened.
const (
	maxOpened = 1024
	reserve   = 2 * wire.MaxLanes
)

func maxAlive(lanes int) int {
	if lanes == 0 {
		lanes = AutoLanes
	}
	return 2*lanes + 4
}

// keeper sees to it that there are lanes. It is one goroutine; what takes time runs
// beside it, and reports.
type keeper struct {
	l         *lanes
	ctx       context.Context
	rdma, tcp *group // nil: not to be used, or not to be had (yet)
	may       bool   // RDMA may be used, and may be looked for again
	looking   bool   // for paths
	events    chan laneEvent
	gone      chan struct{} // closed when nobody hears events any more

	retry   *time.Timer
	due     bool             // lanes are missing, and it is set for that
	wait    time.Duration    // until the next but one
	limit   time.Time        // for RDMA that is required to come back; zero when it is there
	late    <-chan time.Time // fires then, whatever hangs
	last    error            // why it could not be had again, meanwhile
	trouble string           // why there was not, or is not, what was wanted
	told    Plan
	choice  string // what both users were told of the paths
	doubt   bool   // two ports did not answer that might carry one lane more
	futile  int
	landed  int64 // when the last lane was lost before

	streaming *time.Timer // to look again at how many lanes pay
}

// laneEvent is a lane that was opened or not (feed or err), or broke (both); or what came
// of looking for paths.
type laneEvent struct {
	g    *group
	path *lanePath
	feed *laneFeed
	err  error
	seen *sighting
}

// keep opens the lanes of a transfer, pulls over them, and replaces those that
// break, until the transfer is done or ctx ends. An error is why the transfer can't
// go on.
func (l *lanes) keep(ctx context.Context) error {
	k := &keeper{l: l, ctx: ctx, events: make(chan laneEvent), gone: make(chan struct{}), retry: time.NewTimer(lastRetry), wait: firstRetry}
	k.retry.Stop()
	defer k.retry.Stop()
	k.streaming = time.NewTimer(lastRetry)
	k.streaming.Stop()
	defer k.streaming.Stop()
	defer close(k.gone)
	if err := k.begin(); err != nil {
		return err
	}
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-l.p.done:
			return nil
		case <-k.late:
			if err = k.lost(); err != nil {
				return causeOf(ctx, err)
			}
		case <-k.retry.C:
			k.again()
		case <-k.streaming.C:
			k.stream()
		case e := <-k.events:
			err = k.handle(e)
		}
		if err != nil {
			return causeOf(ctx, err)
		}
	}
}

// begin opens the first lanes.
func (k *keeper) begin() error {
	if err := k.choose(k.l.p.scout); err != nil {
		return err
	}
	first := k.tcp
	if k.rdma != nil {
		first = k.rdma
	}
	k.open(first, first.want)
	if k.may && k.rdma == nil {
		k.later()
	}
	return nil
}

// choose finds what lanes can run on. Without a scout it says what can be told without
// trying.
func (k *keeper) choose(scout Scout) error {
	wantRDMA, wantTCP, reason := k.l.policy()
	if !wantRDMA && !wantTCP {
		return errorf(CodeNoRDMA, "RDMA is required, and %s", reason)
	}
	var err error
	if wantTCP {
		if k.tcp, err = k.group(k.l.p.TCP, scout, 1); err != nil {
			return errorf(CodeConnect, "no lane: %w", err)
		}
	}
	if wantRDMA {
		// Who has nothing else waits for a host that is only slow.
		for tries := 3; ; tries-- {
			if k.rdma, err = k.group(k.l.p.RDMA, scout, AutoLanes); err == nil {
				k.may = true
				return nil
			}
			if wantTCP || scout == nil || tries == 1 || !errors.Is(err, ErrNoAnswer) {
				break
			}
		}
		k.may = !errors.Is(err, ErrFinal)
		if !wantTCP {
			return errorf(CodeNoRDMA, "RDMA is required and can't be had: %w", err)
		}
		reason = err.Error()
	}
	k.trouble = reason
	return nil
}

// group is what can be had of a transport: as many lanes as the sender's user
// said, or what each path is worth, up to most.
func (k *keeper) group(t PullTransport, scout Scout, most int) (*group, error) {
	names, report, err := t.Paths(k.ctx, PathQuery{Hello: k.l.p.hello, Scout: scout})
	if scout != nil {
		k.tell(report)
	}
	if err != nil {
		return nil, err
	}
	g := k.newGroup(t, most)
	g.update(names)
	return g, nil
}

// newGroup is a transport's, without paths yet. The work of a lane over RDMA is one CPU's, so
// more of them than CPUs are not tried.
func (k *keeper) newGroup(t PullTransport, most int) *group {
	g := &group{PullTransport: t, most: most, more: AutoLanes, asked: int(k.l.p.hello.Lanes)}
	if t.Name() == TransportRDMA {
		g.more = min(AutoLanes, cmp.Or(k.l.p.cpus, runtime.NumCPU()))
	}
	return g
}

// open opens lanes side by side.
func (k *keeper) open(g *group, n int) {
	ctx := k.ctx
	if !k.limit.IsZero() {
		limited, cancel := context.WithDeadline(ctx, k.limit)
		context.AfterFunc(ctx, cancel)
		ctx = limited
	}
	for range n {
		p := g.next()
		p.busy++
		g.opening++
		k.l.running.Go(func() { k.one(ctx, g, p) })
	}
}

// one opens a lane and runs it to its end.
func (k *keeper) one(ctx context.Context, g *group, p *lanePath) {
	ln, err := k.l.open(ctx, g, k.l.p.hello, LaneParams{Path: p.name, Depth: DefaultDepth, ExtentSize: DefaultExtentSize})
	if err != nil {
		k.report(laneEvent{g: g, path: p, err: err})
		return
	}
	if !k.report(laneEvent{g: g, path: p, feed: ln.feed}) {
		k.l.close(ln)
		return
	}
	if err := k.l.run(ln); err != nil {
		k.report(laneEvent{g: g, path: p, feed: ln.feed, err: err})
	}
}

func (k *keeper) report(e laneEvent) bool {
	select {
	case k.events <- e:
		return true
	case <-k.gone:
		return false
	}
}

func (k *keeper) handle(e laneEvent) error {
	if e.seen != nil {
		return k.afterLooking(e.seen)
	}
	if e.feed != nil && e.err != nil {
		return k.broke(e)
	}
	e.g.opening--
	if e.err != nil {
		e.path.busy--
		e.path.failures++
		e.g.errs = append(e.g.errs, e.err)
	} else {
		e.g.up = append(e.g.up, e.feed)
		k.cameUp(e.g, e.feed)
	}
	if e.g.opening > 0 {
		return nil
	}
	return k.settled(e.g)
}

// cameUp takes a lane into use. The first of RDMA sends TCP home.
func (k *keeper) cameUp(g *group, f *laneFeed) {
	if g == k.tcp && k.rdma != nil && len(k.rdma.up) > 0 {
		g.retireAll() // it came too late
		return
	}
	if g == k.rdma {
		k.limit, k.late, k.last = time.Time{}, nil, nil
		if k.tcp != nil && len(k.tcp.up) > 0 {
			k.tcp.retireAll()
			k.trouble = "back on rdma after: " + k.trouble
		}
	}
	if len(g.up) == 1 {
		k.announce(g, k.trouble)
		if g.asked == 0 {
			g.streams = streams{round: g.streams.round} // what it had measured was another time's
			k.streaming.Reset(streamsAfter)
		}
	}
}

// settled decides what to do when nothing of a group is being opened any more.
func (k *keeper) settled(g *group) error {
	errs := g.errs
	g.errs = nil
	if len(g.up) == 0 {
		return k.nothing(g, errs)
	}
	g.owed = false
	spared := g == k.rdma && g.spared()
	if len(errs) > 0 && spared && g.streams.trying() {
		g.streams.end()
		g.find(len(g.up))
	}
	if len(errs) > 0 && !spared && (g == k.rdma || g.asked > 0) { // else they were tried, and are not missed
		k.announce(g, fmt.Sprintf("%d of %d %s lanes can't be opened: %s", g.missing(), g.want, g.Name(), words(errs)))
	} else if !g.streams.trying() {
		k.announce(g, k.trouble)
	}
	switch {
	case g.missing() > 0 && len(errs) == 0:
		k.openMissing(g)
	case g.missing() > 0:
		k.later()
	case g == k.rdma && g.asked == 0:
		k.lookLater()
	}
	return nil
}

// nothing is what to do when no lane of a group could be opened and none is left.
func (k *keeper) nothing(g *group, errs []error) error {
	if len(errs) == 0 {
		return nil // what came up was retired, or lost again, which was dealt with
	}
	err := errors.New(words(errs))
	if g == k.tcp {
		switch {
		case k.rdma != nil && (len(k.rdma.up) > 0 || k.rdma.opening > 0):
			return nil // that is heard of next
		case g.owed: // what could not be had was asked for before the last one broke
			g.owed = false
			k.open(g, g.want)
			return nil
		case k.trouble == "":
			return errorf(codeOfLanes(errs), "no lane: %w", err)
		}
		return errorf(codeOfLanes(errs), "%s, and no TCP lane: %w", k.trouble, err)
	}
	switch {
	case k.tcp != nil && (len(k.tcp.up) > 0 || k.tcp.opening > 0):
		k.later()
	case k.tcp != nil:
		k.trouble = err.Error()
		k.open(k.tcp, k.tcp.want)
		k.later()
	case k.limit.IsZero():
		return errorf(CodeNoRDMA, "RDMA is required and can't be had: %w", err)
	case !time.Now().Add(hurry).Before(k.limit):
		k.last = err
		return k.lost()
	default:
		k.last = err
		k.in(hurry)
	}
	return nil
}

// lost is the error of a transfer that requires RDMA when that did not come back in time.
func (k *keeper) lost() error {
	if k.limit.IsZero() {
		return nil // it did
	}
	if k.last == nil {
		k.last = errors.New("the kernel does not answer")
	}
	return errorf(CodeNoRDMA, "RDMA is required and was lost: %s; opening it again: %w", k.trouble, k.last)
}

// broke replaces a lane.
func (k *keeper) broke(e laneEvent) error {
	if e.feed.retired.Load() {
		return nil
	}
	g := e.g
	e.path.busy--
	e.path.failures++
	g.up = slices.DeleteFunc(g.up, func(f *laneFeed) bool { return f == e.feed })
	k.trouble = fmt.Sprintf("%s lane lost: %v", g.Name(), e.err)
	if time.Since(e.feed.opened) > steady {
		k.wait = firstRetry
	}
	if len(g.up) > 0 {
		k.announce(g, k.trouble)
		k.soon(g)
		return nil
	}
	g.giveUpTrying()
	if landed := k.l.landed.Load(); landed != k.landed {
		k.landed, k.futile = landed, 0
	}
	if k.futile++; k.futile > maxFutile {
		if k.tcp == nil {
			return errorf(CodeNoRDMA, "RDMA is required and was lost: all lanes broke %d times and nothing landed; the last: %w", k.futile, e.err)
		}
		return errorf(CodeConnect, "all lanes broke %d times and nothing landed; the last: %w", k.futile, e.err)
	}
	switch {
	case k.tcp == nil:
		if k.limit.IsZero() {
			k.limit, k.late = time.Now().Add(mercy), time.After(mercy)
		}
		if g.opening == 0 {
			k.open(g, min(g.want, len(g.paths)))
		}
	default:
		if k.tcp.owed = k.tcp.opening > 0; !k.tcp.owed {
			k.open(k.tcp, k.tcp.want)
		}
		if k.rdma != nil {
			k.soon(k.rdma)
		}
	}
	return nil
}

// soon opens what is missing at once where there is a path that is not in use and
// has done no wrong, and after another look where there is none.
func (k *keeper) soon(g *group) {
	if p := g.next(); p.busy == 0 && p.failures == 0 && !p.gone {
		k.openMissing(g)
		return
	}
	k.later()
}

// later opens what is missing after a while, the next time after a longer one. However many
// lanes are lost at once, that is one time.
func (k *keeper) later() {
	if !k.due {
		k.in(k.wait)
		k.wait = min(2*k.wait, lastRetry)
	}
}

// in opens what is missing then.
func (k *keeper) in(d time.Duration) {
	k.due = true
	k.retry.Reset(d)
}

// again opens lanes that there should be: of RDMA at any time, after another look at
// what there is, of TCP while that is in use.
func (k *keeper) again() {
	k.due = false
	if k.may && !k.looking && (k.rdma == nil || k.rdma.missing() > 0 || k.rdma.asked == 0) {
		k.look()
	}
	if k.tcp != nil && len(k.tcp.up) > 0 {
		k.openMissing(k.tcp)
	}
}

// openMissing opens no more than one lane on each path: it may be in vain.
func (k *keeper) openMissing(g *group) {
	k.l.mu.Lock()
	last := k.l.last
	k.l.mu.Unlock()
	if n := min(g.missing(), len(g.paths)); n > 0 && int(last)+n <= maxOpened-reserve {
		k.open(g, n)
	}
}

// announce tells both users what carries the data, when that is news.
func (k *keeper) announce(g *group, reason string) {
	plan := Plan{Transport: g.Name(), Lanes: len(g.up), Reason: reason}
	m := &wire.Plan{Transport: plan.Transport, Reason: wire.Clip(reason)}
	for _, f := range g.up {
		m.Lanes = append(m.Lanes, f.id)
	}
	plan.Detail = describeAll(g.up)
	old := k.told
	if old.Transport == plan.Transport && old.Lanes == plan.Lanes && (old.Reason != "" || reason == "") {
		return
	}
	k.told = plan
	k.l.mu.Lock()
	k.l.plan, k.l.planned = plan, slices.Clone(g.up)
	k.l.mu.Unlock()
	k.l.p.tell(k.l.p.Observer, func(o Observer) { o.Planned(plan) })
	_ = k.l.p.s.Send(m) // a broken session is noticed by who reads it
}
