package rdma

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// How long finding paths may take. The best pairs are tried at once, those between ports
// that have no rail yet when that has not settled it within stagger. What has not answered after tryLimit counts as
// out of reach, and where others have answered, after enough: who has a rail need not
// wait long for one more.
const (
	stagger  = 150 * time.Millisecond
	enough   = 1000 * time.Millisecond
	tryLimit = 1600 * time.Millisecond
	grace    = 50 * time.Millisecond
	// silence is for how long larger messages must have stayed unacknowledged, to say that
	// they don't pass: several times sent again.
	silence = 500 * time.Millisecond
)

// sysRoot is where the administrator's settings are read.
var sysRoot = os.DirFS("/")

// Paths finds the rails between the hosts: pairs of ports, each port in one pair, over
// which packets have passed both ways. A lane on each of them carries what its device
// can, unless that is software.
func (t *Transport) Paths(ctx context.Context, q transfer.PathQuery) ([]string, *wire.Paths, error) {
	began := time.Now()
	report := new(wire.Paths)
	rails, err := t.find(ctx, &q, report)
	if err != nil {
		report.Reason = wire.Clip(err.Error())
	}
	report.Nanoseconds = time.Since(began).Nanoseconds()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rails == nil {
		t.rails = make(map[string]*pair)
	}
	var names []string
	for _, p := range rails {
		names = append(names, slices.Repeat([]string{p.name()}, p.mine.lanes())...)
		t.rails[p.name()] = p
	}
	return names, report, err
}

func (t *Transport) find(ctx context.Context, q *transfer.PathQuery, report *wire.Paths) ([]*pair, error) {
	host, err := Inventory()
	if err != nil {
		err = fmt.Errorf("the receiver has %w: %w", ErrNoPath, err)
		if final(err) {
			err = fmt.Errorf("%w%w", err, transfer.ErrFinal)
		}
		return nil, err
	}
	offer, err := t.theOffer(ctx, q)
	chosen := t.Selection
	if err == nil {
		chosen.PKey = cmp.Or(chosen.PKey, offer.Fabric.PKey)
	}
	mine, refused := host.Candidates(&chosen)
	report.Refused = clipped(refused)
	switch {
	case err != nil:
		return nil, err
	case len(mine) == 0:
		return nil, fmt.Errorf("the receiver has %w", Explain(refused))
	case len(offer.Candidates) == 0 && offer.Final:
		return nil, fmt.Errorf("the sender has %s%w", transfer.Printable(offer.Reason), transfer.ErrFinal)
	case len(offer.Candidates) == 0:
		return nil, fmt.Errorf("the sender has %s", transfer.Printable(offer.Reason))
	}
	if err := t.Memory.Enough(); err != nil {
		return nil, fmt.Errorf("the receiver has %w: %w", ErrNoPath, err)
	}
	fabric := t.Fabric.follow(&offer.Fabric)
	all := pairs(mine, offer.Candidates, t.chosenRails(offer), fabric.PKey)
	t.settle(all, q)
	good := hopeful
	var s search
	if q.Scout != nil {
		good = proven
		s = search{all: all, fabric: &fabric, mine: t.Fabric.Fabric, scout: q.Scout, every: q.All, first: t.probes}
		s.attempt = s.try
		s.run(ctx)
		t.probes += uint32(len(s.tried))
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	rails := match(all, good)
	for _, p := range rails {
		p.fabric = fabric
	}
	report.Rows = rows(all, rails)
	if len(rails) == 0 {
		return nil, noRail(all, len(s.tried))
	}
	return rails, nil
}

// theOffer is the sender's newest.
func (t *Transport) theOffer(ctx context.Context, q *transfer.PathQuery) (*wire.Offer, error) {
	if t.offer == nil {
		t.offer = q.Hello.RDMA
	}
	if t.offer == nil {
		return nil, errors.New("the sender offers no RDMA")
	}
	if q.Again && q.Scout != nil && !t.offer.Final {
		offer, err := q.Scout.Offer(ctx)
		if err != nil {
			return nil, fmt.Errorf("asking the sender what it has to offer: %w", err)
		}
		t.offer = offer
	}
	return t.offer, nil
}

// chosenRails are both users' choices, as this host sees them.
func (t *Transport) chosenRails(offer *wire.Offer) [][]wire.Rail {
	var theirs []wire.Rail
	for _, r := range offer.Rails {
		theirs = append(theirs, wire.Rail{Here: r.There, There: r.Here})
	}
	return [][]wire.Rail{t.Selection.Rails, theirs}
}

// settle spares those pairs the trying on which lanes run: a loaded path answers late.
func (t *Transport) settle(all []*pair, q *transfer.PathQuery) {
	if q.Up == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range all {
		if old := t.rails[p.name()]; old != nil && q.Up(p.name()) {
			p.up, p.state, p.mtu, p.took, p.reason = true, alive, old.mtu, old.took, old.reason
		}
	}
}

// search tries pairs.
type search struct {
	all    []*pair
	fabric *Fabric     // in force at this end
	mine   wire.Fabric // what this end's user said
	scout  transfer.Scout
	every  bool   // try every pair, needed or not
	first  uint32 // ID of the first probe

	attempt func(ctx context.Context, p *pair, id uint32) outcome
	benches benches
	done    chan outcome
	tried   []*pair
	expired bool // nothing more is tried
}

// outcome is what became of the probe of a pair.
type outcome struct {
	p        *pair
	mtu      ibverbs.MTU
	took     time.Duration
	silent   time.Duration // since the last acknowledgement
	err      error
	answered bool // the sender has opened its end
}

// run tries pairs until it is settled which of them the lanes run on. A probe that hangs
// in the kernel, which may look for a neighbour for seconds, is not waited for: it cleans
// up behind itself.
func (s *search) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.done = make(chan outcome, wire.MaxProbes)
	wide, soon, limit := time.NewTimer(stagger), time.NewTimer(enough), time.NewTimer(tryLimit)
	var last <-chan time.Time // for those that are cancelled to say what they have seen
	done := ctx.Done()
	expire := func() {
		cancel()
		if s.expired = true; last == nil {
			last = time.After(grace)
		}
	}
	s.start(ctx, match(s.all, s.hopeful))
	if s.every {
		s.start(ctx, s.all)
	}
	var late []outcome
	for !s.settled() {
		select {
		case o := <-s.done:
			if s.note(&o); o.p.state == failed {
				late = append(late, o)
				s.start(ctx, match(s.all, s.hopeful))
			}
		case <-wide.C:
			s.start(ctx, s.others())
		case <-soon.C:
			if slices.ContainsFunc(s.all, proven) {
				expire()
			}
		case <-limit.C:
			expire()
		case <-done:
			expire()
			done = nil // once
		case <-last:
			s.giveUp(failed, "no end of a queue pair came up in time (does no neighbour answer ARP, or neighbour discovery?)")
		}
	}
	cancel()
	s.giveUp(untried, "") // others are better
	s.ask(late)
}

// giveUp takes what is under way for something else.
func (s *search) giveUp(as progress, why string) {
	for _, p := range s.tried {
		if p.state == underway {
			p.state, p.reason = as, why
		}
	}
}

// others are the pairs of ports that have no rail yet.
func (s *search) others() (list []*pair) {
	here, there := make(map[portName]bool), make(map[portName]bool)
	for _, p := range match(s.all, proven) {
		here[nameOf(&p.mine.Candidate)], there[nameOf(p.theirs)] = true, true
	}
	for _, p := range s.all {
		if !here[nameOf(&p.mine.Candidate)] && !there[nameOf(p.theirs)] {
			list = append(list, p)
		}
	}
	return list
}

// hopeful are the pairs that may yet be chosen.
func (s *search) hopeful(p *pair) bool {
	return p.state == alive || p.state == underway || p.state == untried && !s.expired
}

// settled reports whether the choice is made.
func (s *search) settled() bool {
	list := match(s.all, s.hopeful)
	if s.every {
		list = s.all
	}
	return !slices.ContainsFunc(list, func(p *pair) bool { return p.state == underway })
}

// start tries those of the pairs that can work and were not tried.
func (s *search) start(ctx context.Context, list []*pair) {
	for _, p := range list {
		if p.why != "" || p.state != untried || s.expired {
			continue
		}
		if len(s.tried) == wire.MaxProbes {
			p.state, p.reason = failed, fmt.Sprintf("not tried, because %d others were", wire.MaxProbes)
			continue
		}
		p.state = underway
		id := s.first + uint32(len(s.tried))
		s.tried = append(s.tried, p)
		go func() { s.done <- s.attempt(ctx, p, id) }()
	}
}

func (s *search) try(ctx context.Context, p *pair, id uint32) outcome {
	o := outcome{p: p}
	fail := func(err error) outcome {
		o.err = err
		return o
	}
	wake(&p.mine.Candidate, addrOf(p.theirs))
	e, err := s.benches.newEnd(&p.mine.Candidate, p.pkey)
	if err != nil {
		return fail(fmt.Errorf("the receiver: %w", err))
	}
	defer e.close()
	a, err := s.scout.Probe(ctx, &wire.ProbePath{ID: id, Candidate: p.theirs.Number, QP: e.endpoint(s.fabric), PKey: p.theirsP, Fabric: s.mine})
	switch {
	case ctx.Err() != nil:
		return fail(errors.New("the sender did not say in time that its end is ready (no neighbour answers ARP, or neighbour discovery, from there?)"))
	case err != nil:
		return fail(err)
	case a.Reason != "":
		return fail(fmt.Errorf("the sender: %s", transfer.Printable(a.Reason)))
	}
	if err := e.connect(a.QP, s.fabric); err != nil {
		return fail(fmt.Errorf("the receiver: %w", err))
	}
	o.answered = true
	o.mtu, o.took, o.silent, o.err = e.run(ctx)
	return o
}

// note writes down what came of a probe.
func (s *search) note(o *outcome) {
	p := o.p
	p.mtu, p.took = o.mtu, o.took
	m, t := ibverbs.MTU(p.mine.MTU), ibverbs.MTU(p.theirs.MTU)
	lower := s.fabric.lower(min(m, t))
	switch {
	case o.err == nil:
		p.state = alive
		if m != t && lower == min(m, t) {
			whose, netdev := "receiver", p.mine.Netdev
			if t < m {
				whose, netdev = "sender", p.theirs.Netdev
			}
			p.reason = fmt.Sprintf("the %s's port has an MTU of %d and the other one of %d: the lower counts (%s)", whose, min(m, t).Bytes(), max(m, t).Bytes(), p.byLink("ip link set dev "+netdev+" mtu 4200", "the subnet manager gives it"))
		}
	case o.mtu > 0 && o.silent < silence:
		// Something was late, which says nothing of the MTU.
		p.state, p.mtu = alive, 0
	case o.mtu > 0:
		p.state = alive
		p.reason = fmt.Sprintf("packets of %d bytes pass and larger ones do not, though both ports have an MTU of %d: something between them has a smaller one (%s)", o.mtu.Bytes(), lower.Bytes(), p.byLink("jumbo frames on every switch?", "what MTU has the partition, in the subnet manager's partitions.conf?"))
	case o.answered:
		p.state = failed
		p.reason = "connected, but no acknowledgement (" + p.suspect() + "?)"
	default:
		p.state = failed
		p.reason = o.err.Error()
	}
}

// byLink is one of two words, by what the ports are.
func (p *pair) byLink(ethernet, infiniband string) string {
	if p.mine.Ethernet {
		return ethernet
	}
	return infiniband
}

// suspect is what may be to blame when nothing comes back.
func (p *pair) suspect() string {
	m, t := addrOf(&p.mine.Candidate), addrOf(p.theirs)
	switch {
	case !p.mine.Ethernet:
		return fmt.Sprintf("LID %d to LID %d: does the subnet manager route between them", p.mine.LID, p.theirs.LID)
	case m.IsLinkLocalUnicast():
		return fmt.Sprintf("%v and %v are both link-local: are the ports on one Ethernet", m, t)
	case ibverbs.GIDType(p.mine.GIDType) == ibverbs.GIDTypeRoCEv1:
		return fmt.Sprintf("RoCE v1 is not routed: are %v and %v on one Ethernet, whose switches pass the type 0x8915", m, t)
	case p.near == routed:
		return fmt.Sprintf("%v and %v are of different subnets: is there a route between them, and UDP port 4791 open", m, t)
	}
	return fmt.Sprintf("is UDP port 4791 open between %v and %v", m, t)
}

// ask ends the sender's ends, and hears of which probes it got something: then it is the
// way back that is shut.
func (s *search) ask(late []outcome) {
	if len(s.tried) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	if !slices.ContainsFunc(late, func(o outcome) bool { return o.answered }) {
		cancel() // nobody waits for the answer
	}
	seen, err := s.scout.Over(ctx, s.first+uint32(len(s.tried)))
	if err != nil {
		return
	}
	for _, o := range late {
		id := s.first + uint32(slices.Index(s.tried, o.p))
		if o.answered && slices.Contains(seen, id) {
			m, t := addrOf(&o.p.mine.Candidate), addrOf(o.p.theirs)
			o.p.reason = fmt.Sprintf("packets reach the sender (%v), and its acknowledgements do not reach the receiver (%v): %s", t, m, o.p.byLink("is UDP port 4791 filtered on the way back?", "does the subnet manager route them back?"))
		}
	}
}

// askLimit bounds the wait for a word that makes a reason better, and no more.
const askLimit = 400 * time.Millisecond

// clipped makes refusals ones that a message may carry.
func clipped(list []wire.Refusal) []wire.Refusal {
	list = slices.Clone(list[:min(len(list), 64)])
	for i := range list {
		list[i].Reason = short(list[i].Reason)
	}
	return list
}

// short is a reason of which a message may carry many.
func short(reason string) string {
	reason = wire.Clip(reason)
	return strings.ToValidUTF8(reason[:min(len(reason), 512)], "")
}

// rows is the report of the pairs. Two ports of which one pair of addresses can work
// have no rows for those that can't: they are of no interest. Where there are too many, it
// is those that were not tried which are left out.
func rows(all, rails []*pair) (list []wire.PathRow) {
	type ports struct{ a, b portName }
	shown := make(map[ports]bool)
	add := func(p *pair) {
		between := ports{nameOf(&p.mine.Candidate), nameOf(p.theirs)}
		if p.why != "" && shown[between] {
			return
		}
		shown[between] = true
		r := wire.PathRow{Receiver: p.mine.Candidate, Sender: *p.theirs, MTU: uint8(p.mtu), Took: p.took.Nanoseconds(), Reason: p.why}
		switch {
		case slices.Contains(rails, p):
			r.State = wire.PathChosen
		case p.state == alive:
			r.State = wire.PathSpare
		case p.state == failed:
			r.State = wire.PathFailed
		}
		if p.reason != "" {
			r.Reason = p.reason
		}
		r.Reason = short(r.Reason)
		list = append(list, r)
	}
	for _, p := range all {
		if len(all) <= maxRows || p.state != untried {
			add(p)
		}
	}
	for _, p := range all {
		if len(all) > maxRows && p.state == untried && len(list) < maxRows {
			add(p)
		}
	}
	return list[:min(len(list), maxRows)]
}

// maxRows bounds a report.
const maxRows = 128

// noRail says why none of the pairs is one that lanes can run on: what came of those
// that were tried, or why none could be.
func noRail(all []*pair, tried int) error {
	var words []string
	for _, p := range all {
		why := p.reason
		if why == "" {
			why = p.why
		}
		between := fmt.Sprintf("%s/%d to %s/%d: ", p.mine.Device, p.mine.Port, transfer.Printable(p.theirs.Device), p.theirs.Port)
		if why != "" && !slices.Contains(words, between+why) && len(words) < 4 && !(p.why != "" && all[0].why == "") {
			words = append(words, between+why)
		}
	}
	could := 0
	for _, p := range all {
		could += one(p.why == "")
	}
	if tried == wire.MaxProbes && could > tried {
		words = append(words, fmt.Sprintf("%d of %d pairs were tried (--device or --rail leaves fewer)", tried, could))
	}
	err := fmt.Errorf("%w between the hosts: %s", ErrNoPath, strings.Join(words, "; "))
	if slices.ContainsFunc(all, func(p *pair) bool { return p.state == failed }) {
		err = fmt.Errorf("%w%w", err, transfer.ErrNoAnswer)
	}
	return err
}
