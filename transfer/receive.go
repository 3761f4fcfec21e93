package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// What a receiver asks for unless told otherwise. 16 MiB in flight keep a 100
// Gbit/s link with 1 ms of delay busy, and are what a lane's ring pins.
const (
	DefaultExtentSize = 1 << 20
	DefaultDepth      = 16
)

// stallLimit is how long requests may stay unanswered while the peer's heartbeat
// goes on.
const stallLimit = 30 * time.Second

// Receiver lands what senders offer.
type Receiver struct {
	Listener  *Listener
	Sink      Sink
	Transport string // auto, rdma or tcp
	RDMA      PullTransport
	TCP       PullTransport
	Observer  Observer
	Progress  *Progress
}

// pull is one transfer at the receiver.
type pull struct {
	*Receiver
	s       *Session
	hello   *wire.Hello
	session [16]byte
	verify  bool
	sched   *scheduler
	ctx     context.Context // of the transfer; its cause is why it ended early
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed when every file is settled

	mu       sync.Mutex
	files    map[uint32]*inbound
	open     int // files that are not settled
	manifest bool
	failures failures
	result   Result
	started  time.Time // first request
	finished time.Time // last file durable
	commits  sync.WaitGroup
	lanes    lanes
}

// Receive runs one transfer to its end and closes the session.
func (r *Receiver) Receive(ctx context.Context, s *Session) (*Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &pull{
		Receiver: r,
		s:        s,
		sched:    newScheduler(DefaultExtentSize),
		ctx:      ctx,
		cancel:   cancel,
		done:     make(chan struct{}),
		files:    make(map[uint32]*inbound),
	}
	rand.Read(p.session[:])
	p.lanes.init(p)
	err := p.run(ctx)
	// Nothing of a lane may touch a landing once it is given up.
	cancel(err)
	p.sched.end()
	p.lanes.wait()
	p.commits.Wait()
	if err == nil {
		err = p.failures.sum(p.result.Files)
		s.Close()
	} else {
		p.abandon()
		s.abort(err)
	}
	p.result.Failed = p.failures.n
	p.result.Plan = p.lanes.plan
	return &p.result, err
}

func (p *pull) run(ctx context.Context) error {
	if err := p.greet(); err != nil {
		return err
	}
	dispatched := make(chan error, 1)
	go func() { dispatched <- p.dispatch() }()
	go p.watch(ctx)

	opened := make(chan error, 1)
	go func() { opened <- p.lanes.openFirst(ctx) }()
	for {
		select {
		case err := <-opened:
			if err != nil {
				return err
			}
			opened = nil
		case err := <-dispatched:
			return err
		case <-p.done:
			return p.conclude(dispatched)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// greet reads Hello and answers it.
func (p *pull) greet() error {
	m, err := p.s.Receive()
	if err != nil {
		return err
	}
	hello, ok := m.(*wire.Hello)
	if !ok {
		return errorf(CodeOther, "%s: %w: %T before Hello", p.s.peer, wire.ErrMalformed, m)
	}
	if hello.Version != wire.Version {
		return errorf(CodeOther, "the sender speaks version %d of the protocol, the receiver %d: install the same rdmaxfer on both", hello.Version, wire.Version)
	}
	if hello.Verify != VerifyBLAKE3 && hello.Verify != VerifyNone {
		return errorf(CodeUsage, "the sender wants --verify %s, which this receiver does not have", printable(hello.Verify))
	}
	p.hello = hello
	p.verify = hello.Verify == VerifyBLAKE3
	p.result.Verify = hello.Verify
	return p.s.Send(&wire.Welcome{Version: wire.Version, Session: p.session, ExtentSize: DefaultExtentSize})
}

// dispatch handles the sender's messages until the connection ends.
func (p *pull) dispatch() error {
	for {
		m, err := p.s.Receive()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *wire.LaneAnswer:
			p.lanes.answered(m)
		case *wire.LaneDown:
			p.lanes.kill(m.ID, errors.New("the sender's end broke: "+printable(m.Reason)))
		case *wire.Entry:
			err = p.entry(m)
		case *wire.ManifestEnd:
			err = p.manifestEnd(m)
		case *wire.Digests:
			err = p.digests(m)
		case *wire.Vouch:
			err = p.vouched(m.File)
		case *wire.FileFailed:
			p.fail(m.File, errorf(Code(m.Code), "peer: %s", printable(m.Reason)), false)
		case *wire.Abort:
			err = p.s.fromPeer(m)
		default:
			err = fmt.Errorf("%w: unexpected %T", wire.ErrMalformed, m)
		}
		if err != nil {
			return err
		}
	}
}

// watch ends a lane whose requests stay unanswered.
func (p *pull) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			p.lanes.checkStalled(now)
		}
	}
}

// conclude tells the sender the result, and waits for it to hang up: closing first
// could reset the connection before the last message was read.
func (p *pull) conclude(dispatched <-chan error) error {
	p.commits.Wait()
	if p.finished.After(p.started) && !p.started.IsZero() { // else nothing landed, or empty files alone
		p.result.Elapsed = p.finished.Sub(p.started)
	}
	err := p.s.Send(&wire.Done{
		Files:       uint32(p.result.Files),
		Bytes:       p.result.Bytes,
		Nanoseconds: p.result.Elapsed.Nanoseconds(),
	})
	if err != nil {
		return err
	}
	select {
	case <-dispatched:
	case <-time.After(lingerTime):
	}
	return nil
}

// begin starts the clock at the first request.
func (p *pull) begin(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started.IsZero() {
		p.started = now
	}
}
