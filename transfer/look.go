package transfer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// sighting is what came of looking for paths while the transfer runs.
type sighting struct {
	names  []string
	report *wire.Paths
	err    error
}

// look looks for paths of RDMA beside everything else, with what both hosts have now: a
// device may have come, or gone, or a network may be whole again.
func (k *keeper) look() {
	k.looking = true
	up := make(map[string]bool)
	if k.rdma != nil {
		for _, f := range k.rdma.up {
			up[f.path] = true
		}
	}
	k.l.running.Go(func() {
		f := new(sighting)
		f.names, f.report, f.err = k.l.p.RDMA.Paths(k.ctx, PathQuery{Hello: k.l.p.hello, Scout: k.l.p.scout, Again: true, Up: func(name string) bool { return up[name] }})
		k.report(laneEvent{seen: f})
	})
}

// afterLooking takes the paths into use.
func (k *keeper) afterLooking(f *sighting) error {
	k.looking = false
	if k.ctx.Err() != nil {
		return nil
	}
	k.tell(f.report)
	if f.err != nil {
		return k.sawNothing(f.err)
	}
	if k.rdma == nil {
		k.rdma = k.newGroup(k.l.p.RDMA, AutoLanes)
	}
	k.rdma.update(f.names)
	if k.rdma.missing() > 0 {
		k.openMissing(k.rdma)
	} else if k.rdma.asked == 0 {
		k.lookLater()
	}
	return nil
}

// sawNothing goes on without a path, if there is something to go on with.
func (k *keeper) sawNothing(err error) error {
	final := errors.Is(err, ErrFinal)
	k.may = k.may && !final
	switch {
	case k.limit.IsZero() && !final:
		k.later()
	case k.limit.IsZero():
	case final || !time.Now().Add(hurry).Before(k.limit):
		k.last = err
		return k.lost()
	default:
		k.last = err
		k.in(hurry)
	}
	return nil
}

// lookLater looks for one more path when there are lanes on all that were found: soon
// where there may be one, which was only slow, now and then where one may have come.
func (k *keeper) lookLater() {
	if k.doubt {
		k.later()
	} else if !k.due {
		k.retry.Reset(lastRetry)
	}
}

// doubtful reports whether two ports, neither of which carries a lane, were tried in vain.
func doubtful(report *wire.Paths) bool {
	type port struct {
		device string
		number uint8
	}
	here, there := make(map[port]bool), make(map[port]bool)
	for _, r := range report.Rows {
		if r.State == wire.PathChosen {
			here[port{r.Receiver.Device, r.Receiver.Port}], there[port{r.Sender.Device, r.Sender.Port}] = true, true
		}
	}
	for _, r := range report.Rows {
		if r.State == wire.PathFailed && !here[port{r.Receiver.Device, r.Receiver.Port}] && !there[port{r.Sender.Device, r.Sender.Port}] {
			return true
		}
	}
	return false
}

// tell shows both users what was found, when that is news.
func (k *keeper) tell(report *wire.Paths) {
	if report == nil {
		return
	}
	k.doubt = doubtful(report)
	choice := report.Reason
	for _, r := range report.Rows {
		if r.State == wire.PathChosen {
			choice += fmt.Sprint("\n", nameOfEnd(&r.Receiver), nameOfEnd(&r.Sender), r.MTU)
		}
	}
	if k.choice == choice && choice != "" {
		return
	}
	k.choice = choice
	k.l.p.tellPaths(report)
}

func nameOfEnd(c *wire.Candidate) string { return fmt.Sprint(c.Device, "/", c.Port, "/", c.GID) }

// tellPaths shows both users a report.
func (p *pull) tellPaths(report *wire.Paths) {
	offer := p.scout.newest(p.hello.RDMA)
	p.tell(p.Observer, func(o Observer) { o.Paths(newPathReport(report, offer, true)) })
	_ = p.s.Send(report) // a broken session is noticed by who reads it
}

// pathsMessage is handle for a session that asks for paths and for nothing else.
func (p *pull) pathsMessage(m wire.Message) error {
	if m, ok := m.(*wire.Abort); ok {
		return p.s.fromPeer(m)
	}
	return fmt.Errorf("%w: unexpected %T", wire.ErrMalformed, m)
}

// servePaths finds out, for a sender that wants to know no more, what every pair of
// addresses is good for.
func (p *pull) servePaths(ended <-chan error) error {
	p.result.PathsOnly = true
	rdma, _, reason := p.lanes.policy()
	report := &wire.Paths{Reason: reason}
	if rdma {
		_, found, err := p.RDMA.Paths(p.ctx, PathQuery{Hello: p.hello, Scout: p.scout, All: true})
		switch {
		case p.ctx.Err() != nil:
			return context.Cause(p.ctx)
		case found != nil:
			report = found
		case err != nil:
			report.Reason = wire.Clip(err.Error())
		}
	}
	p.tellPaths(report)
	select {
	case err := <-ended:
		if errors.Is(err, wire.ErrMalformed) {
			return err
		}
	case <-time.After(lingerTime):
	}
	return nil // it has what it wanted, and has hung up
}
