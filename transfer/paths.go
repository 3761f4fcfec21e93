package transfer

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// PathQuery is what a [PullTransport] is asked for paths with.
type PathQuery struct {
	Hello *wire.Hello
	// Scout asks the sender. Without one nothing can be tried: the answer is what can be
	// told without a packet.
	Scout Scout
	Again bool // the sender is to be asked anew what it has to offer
	All   bool // every pair is to be tried, needed or not
	// Up reports whether a lane runs on the path of that name, so that it need not be
	// tried. It may be nil.
	Up func(name string) bool
}

// Scout asks the sender while paths are looked for. Its methods may be called from
// several goroutines, but for Offer and Over.
type Scout interface {
	// Offer asks what the sender has to offer now.
	Offer(context.Context) (*wire.Offer, error)
	// Probe asks for the sender's end of a probe.
	Probe(context.Context, *wire.ProbePath) (*wire.PathAnswer, error)
	// Over ends the sender's ends of probes whose IDs are below that, and answers of which
	// it got something.
	Over(ctx context.Context, below uint32) ([]uint32, error)
}

// PathServer is what a [ServeTransport] is too whose receiver looks for paths.
type PathServer interface {
	// Reoffer says again where this host can be reached. A candidate that was offered
	// before keeps its number.
	Reoffer() *wire.Offer
	// Probe opens this end of a probe.
	Probe(*wire.ProbePath) *wire.PathAnswer
	// EndProbes closes the ends of probes whose IDs are below that, those that are being
	// opened meanwhile as soon as they are, and answers which of them got something.
	EndProbes(below uint32) []uint32
}

// ErrFinal is matched by why there are no paths when there will be none as long as the
// programs run: nobody need look again.
var ErrFinal error = final{}

// ErrNoAnswer is matched by why there are no paths when some were tried, and nothing came
// back in time.
var ErrNoAnswer error = noAnswer{}

// Both say nothing: what they are wrapped in does.
type (
	final    struct{}
	noAnswer struct{}
)

func (final) Error() string    { return "" }
func (noAnswer) Error() string { return "" }

// PathReport is what was found out about the paths between two hosts.
type PathReport struct {
	Rows        []PathRow
	Here, There []wire.Refusal // each host's ports that are no candidates
	Reason      string         // why nothing was chosen; empty when something was
	Took        time.Duration
}

// PathRow is one pair of addresses.
type PathRow struct {
	Here, There wire.Candidate
	State       wire.PathState
	MTU         int           // bytes: what passed; 0 where nothing was tried
	Took        time.Duration // from a message to its acknowledgement
	Reason      string        // why not, or what is wrong with it all the same
}

// newPathReport is the report as the receiver (or the sender) sees it.
func newPathReport(m *wire.Paths, offer *wire.Offer, receiver bool) *PathReport {
	r := &PathReport{Reason: Printable(m.Reason), Took: time.Duration(m.Nanoseconds)}
	var theirs []wire.Refusal
	if offer != nil {
		theirs = offer.Refused
	}
	if r.Here, r.There = theirs, m.Refused; receiver {
		r.Here, r.There = m.Refused, theirs
	}
	for _, row := range m.Rows {
		p := PathRow{Here: row.Sender, There: row.Receiver, State: row.State, Took: time.Duration(row.Took), Reason: Printable(row.Reason)}
		if receiver {
			p.Here, p.There = p.There, p.Here
		}
		if row.MTU > 0 {
			p.MTU = 128 << row.MTU
		}
		r.Rows = append(r.Rows, p)
	}
	return r
}

// scout is the receiver's [Scout] of a session.
type scout struct {
	s *Session

	mu     sync.Mutex
	last   *wire.Offer // that was heard
	probes map[uint32]chan *wire.PathAnswer
	offer  chan *wire.Offer
	seen   chan *wire.ProbesSeen
}

func newScout(s *Session) *scout {
	return &scout{s: s, probes: make(map[uint32]chan *wire.PathAnswer), offer: make(chan *wire.Offer, 1), seen: make(chan *wire.ProbesSeen, 1)}
}

// scoutLimit bounds the wait for an answer that takes no packet of RDMA.
const scoutLimit = 5 * time.Second

func (c *scout) Offer(ctx context.Context) (*wire.Offer, error) {
	return askOnce(ctx, c.s, &wire.AskOffer{}, c.offer)
}

func (c *scout) Over(ctx context.Context, below uint32) ([]uint32, error) {
	m, err := askOnce(ctx, c.s, &wire.ProbesOver{Below: below}, c.seen)
	if err != nil || m.Below != below { // it is about earlier ones
		return nil, err
	}
	return m.IDs, nil
}

// askOnce sends a question of which there is one at a time. An answer to an earlier one,
// which nobody waited for any more, is dropped.
func askOnce[T any](ctx context.Context, s *Session, question wire.Message, answers chan T) (a T, err error) {
	ctx, cancel := context.WithTimeout(ctx, scoutLimit)
	defer cancel()
	select {
	case <-answers:
	default:
	}
	if err := s.Send(question); err != nil {
		return a, err
	}
	select {
	case a = <-answers:
		return a, nil
	case <-ctx.Done():
		return a, ctx.Err()
	}
}

func (c *scout) Probe(ctx context.Context, m *wire.ProbePath) (*wire.PathAnswer, error) {
	answer := make(chan *wire.PathAnswer, 1)
	c.mu.Lock()
	c.probes[m.ID] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.probes, m.ID)
	}()
	if err := c.s.Send(m); err != nil {
		return nil, err
	}
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hear takes the sender's answers. What nobody waits for came too late.
func (c *scout) hear(m wire.Message) bool {
	switch m := m.(type) {
	case *wire.PathAnswer:
		c.mu.Lock()
		defer c.mu.Unlock()
		if answer := c.probes[m.ID]; answer != nil {
			delete(c.probes, m.ID)
			answer <- m
		}
	case *wire.Offer:
		c.mu.Lock()
		c.last = m
		c.mu.Unlock()
		put(c.offer, m)
	case *wire.ProbesSeen:
		put(c.seen, m)
	default:
		return false
	}
	return true
}

// newest is the sender's newest offer, if there has been one since the first.
func (c *scout) newest(first *wire.Offer) *wire.Offer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return cmp.Or(c.last, first)
}

// put leaves the newest in a channel of one place.
func put[T any](c chan T, v T) {
	select {
	case <-c:
	default:
	}
	select {
	case c <- v:
	default:
	}
}

// guide answers a receiver that looks for paths: the other end of a scout.
type guide struct {
	s     *Session
	t     PathServer // nil: this end does not use RDMA
	offer *wire.Offer
	found func(*PathReport)

	mu      sync.Mutex
	asked   bool            // an offer is being made, and sent
	alive   map[uint32]bool // probes that were not ended, by ID
	opening int             // of them and of others, whose answers are not sent yet
	ending  bool            // probes are being ended, and that is being said
	below   uint32          // those that are to be ended
}

// newGuide answers for a transport, which may be nil.
func newGuide(s *Session, t ServeTransport, offer *wire.Offer, found func(*PathReport)) *guide {
	g := &guide{s: s, offer: offer, found: found, alive: make(map[uint32]bool)}
	if offer != nil {
		g.t, _ = t.(PathServer)
	}
	return g
}

// hear answers the receiver's questions. What takes time runs beside it, and is not waited
// for at the end: it may hang in the kernel. An error is a receiver that asks for what no
// receiver does.
func (g *guide) hear(m wire.Message) (mine bool, err error) {
	switch m := m.(type) {
	case *wire.ProbePath:
		err = g.probe(m)
	case *wire.ProbesOver:
		err = g.over(m.Below)
	case *wire.AskOffer:
		err = g.reoffer()
	case *wire.Paths:
		g.mu.Lock()
		report := newPathReport(m, g.offer, false)
		g.mu.Unlock()
		g.found(report)
	default:
		return false, nil
	}
	return true, err
}

func (g *guide) probe(m *wire.ProbePath) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.t == nil:
		return fmt.Errorf("%w: a probe of RDMA, which was not offered", wire.ErrMalformed)
	case m.ID < g.below: // it was on its way
		return g.s.Send(&wire.PathAnswer{ID: m.ID, Reason: "the receiver gave the probe up"})
	case g.alive[m.ID]:
		return fmt.Errorf("%w: probe %d again", wire.ErrMalformed, m.ID)
	case len(g.alive) == wire.MaxProbes:
		return fmt.Errorf("%w: more than %d probes at once", wire.ErrMalformed, wire.MaxProbes)
	}
	g.alive[m.ID] = true
	if g.opening == maxOpening {
		// Earlier ones hang in the kernel, which the receiver can't know. The word of it
		// is sent here, so that there is no goroutine for it.
		return g.s.Send(&wire.PathAnswer{ID: m.ID, Reason: "earlier probes hang in the kernel: does no neighbour answer?"})
	}
	g.opening++
	go func() {
		_ = g.s.Send(g.t.Probe(m)) // a broken session is noticed by who reads it
		g.mu.Lock()
		defer g.mu.Unlock()
		g.opening--
	}()
	return nil
}

// maxOpening bounds the probes that are being opened, those among them that were given up.
const maxOpening = 2 * wire.MaxProbes

// over ends probes. While that is under way another word of it is joined to it.
func (g *guide) over(below uint32) error {
	if g.t == nil {
		return fmt.Errorf("%w: probes of RDMA, which was not offered, are over", wire.ErrMalformed)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.alive, func(id uint32, _ bool) bool { return id < below })
	if g.below = max(g.below, below); !g.ending {
		g.ending = true
		go g.endProbes()
	}
	return nil
}

func (g *guide) endProbes() {
	for {
		g.mu.Lock()
		below := g.below
		g.mu.Unlock()
		seen := g.t.EndProbes(below)
		_ = g.s.Send(&wire.ProbesSeen{Below: below, IDs: seen[:min(len(seen), wire.MaxProbes)]})
		g.mu.Lock()
		g.ending = g.below != below
		more := g.ending
		g.mu.Unlock()
		if !more {
			return
		}
	}
}

// end closes what probes hold, and has those close that are still being opened.
func (g *guide) end() {
	if g.t != nil {
		g.t.EndProbes(math.MaxUint32)
	}
}

// candidate gives an address of this host's that the receiver chose, by its number, and what
// this host's user wants of the network.
func (g *guide) candidate(n uint16) (*wire.Candidate, wire.Fabric, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.offer == nil {
		return nil, wire.Fabric{}, fmt.Errorf("%w: an address of RDMA, which was not offered", wire.ErrMalformed)
	}
	i := slices.IndexFunc(g.offer.Candidates, func(c wire.Candidate) bool { return c.Number == n })
	if i < 0 {
		return nil, wire.Fabric{}, errorf(CodeNoRDMA, "this host's address %d is not there any more", n)
	}
	return &g.offer.Candidates[i], g.offer.Fabric, nil
}

func (g *guide) reoffer() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.t == nil {
		return fmt.Errorf("%w: an offer is asked for that there is not", wire.ErrMalformed)
	}
	if g.asked {
		return nil // the answer to the question before is that to this one
	}
	g.asked = true
	go func() {
		offer := g.t.Reoffer()
		g.mu.Lock()
		g.offer = offer
		g.mu.Unlock()
		_ = g.s.Send(offer)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.asked = false
	}()
	return nil
}
