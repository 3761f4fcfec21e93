package transfer

import (
	"context"
	"errors"
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
	ctx, cancel := k.ctx, context.CancelFunc(func() {})
	if !k.limit.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, k.limit)
	}
	k.l.running.Go(func() {
		defer cancel()
		f := new(sighting)
		f.names, f.report, f.err = k.l.p.RDMA.Paths(ctx, PathQuery{Hello: k.l.p.hello, Scout: k.l.p.scout, Again: true, Up: func(name string) bool { return up[name] }})
		k.report(laneEvent{seen: f})
	})
}

// afterLooking takes the paths into use.
func (k *keeper) afterLooking(f *sighting) error {
	k.looking = false
	k.tell(f.report)
	switch {
	case f.err == nil:
	case errors.Is(f.err, ErrFinal):
		k.may = false
		return nil
	case k.limit.IsZero():
		k.later()
		return nil
	case !time.Now().Add(hurry).Before(k.limit):
		return errorf(CodeNoRDMA, "RDMA is required and was lost: %s; looking for a path: %w", k.trouble, f.err)
	default:
		k.retry.Reset(hurry)
		return nil
	}
	if k.rdma == nil {
		k.rdma = &group{PullTransport: k.l.p.RDMA, most: autoLanes, asked: int(k.l.p.hello.Lanes)}
	}
	k.rdma.update(f.names)
	if k.rdma.missing() > 0 {
		k.openMissing(k.rdma)
	} else if k.rdma.asked == 0 {
		k.lookLater()
	}
	return nil
}

// lookLater looks for one more path when there are lanes on all that were found: soon
// where there may be one, which was only slow, now and then where one may have come.
func (k *keeper) lookLater() {
	if k.doubt {
		k.later()
	} else {
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
			choice += "\n" + r.Receiver.Device + "\n" + r.Sender.Device
		}
	}
	if k.choice == choice && choice != "" {
		return
	}
	k.choice = choice
	k.l.p.tellPaths(report)
}

// tellPaths shows both users a report.
func (p *pull) tellPaths(report *wire.Paths) {
	offer := p.scout.newest(p.hello.RDMA)
	p.mu.Lock()
	p.Observer.Paths(newPathReport(report, offer, true))
	p.mu.Unlock()
	_ = p.s.Send(report) // a broken session is noticed by who reads it
}

// servePaths finds out, for a sender that wants to know no more, what every pair of
// addresses is good for.
func (p *pull) servePaths(gone <-chan struct{}) error {
	p.result.PathsOnly = true
	rdma, _, reason := p.lanes.policy()
	report := &wire.Paths{Reason: reason}
	if rdma {
		var err error
		if _, report, err = p.RDMA.Paths(p.ctx, PathQuery{Hello: p.hello, Scout: p.scout, All: true}); p.ctx.Err() != nil {
			return err
		}
	}
	p.tellPaths(report)
	linger(gone)
	return nil
}
