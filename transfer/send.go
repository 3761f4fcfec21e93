package transfer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Sender offers files to a receiver and serves what that asks for.
type Sender struct {
	Addr      string // host:port of the receiver
	Key       Key
	Source    *Source
	Transport string // auto, rdma or tcp
	Op        string // auto, read, write or send
	Verify    string // blake3 or none
	RDMA      ServeTransport
	TCP       ServeTransport
	Observer  Observer
	Progress  *Progress
}

// push is one transfer at the sender.
type push struct {
	*Sender
	s       *Session
	welcome *wire.Welcome
	ctx     context.Context
	cancel  context.CancelCauseFunc
	lanes   sync.WaitGroup // and everything else that runs beside converse

	// What the receiver may ask for is bounded; only converse looks at these.
	opened int
	landed map[uint32]int // how often each file

	mu       sync.Mutex
	settled  map[uint32]bool // files with a receipt, or failed
	failures failures
	result   Result
	planned  bool
	detail   map[uint32]string             // what each lane runs on, by its number
	serving  map[uint32]context.CancelFunc // ends a lane
}

// Send runs one transfer to its end.
func (s *Sender) Send(ctx context.Context) (*Result, error) {
	session, err := dialSession(ctx, s.Addr, s.Key)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	return s.over(ctx, session)
}

// over runs one transfer over a session and closes that.
func (s *Sender) over(ctx context.Context, session *Session) (*Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &push{
		Sender:  s,
		s:       session,
		ctx:     ctx,
		cancel:  cancel,
		landed:  make(map[uint32]int),
		settled: make(map[uint32]bool),
		detail:  make(map[uint32]string),
		serving: make(map[uint32]context.CancelFunc),
	}
	p.result.Verify = s.Verify
	s.Source.verify = s.Verify != VerifyNone
	s.Source.failed = p.fileFailed

	ended, gone := session.attend(p.converse)
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		session.abort(err, gone)
	}
	cancel(err)
	s.Source.giveUp()
	session.Close()
	<-gone // it starts lanes
	p.lanes.Wait()
	if err != nil {
		return &p.result, err
	}
	p.result.Failed = p.failures.n
	return &p.result, p.failures.sum(p.result.Files)
}

// converse greets the receiver and answers its messages until it is Done.
func (p *push) converse() error {
	hello := &wire.Hello{Version: wire.Version, Transport: p.Transport, Op: p.Op, Verify: p.Verify, Lanes: 1}
	if p.Transport != TransportTCP {
		p.RDMA.Offer(hello)
	}
	if err := p.s.Send(hello); err != nil {
		return err
	}
	m, err := p.s.Receive()
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *wire.Welcome:
		if m.Version != wire.Version {
			return errorf(CodeOther, "the receiver speaks version %d of the protocol, the sender %d: install the same rdmaxfer on both", m.Version, wire.Version)
		}
		p.welcome = m
		p.Source.extentSize = int64(m.ExtentSize)
	case *wire.Abort:
		return p.s.fromPeer(m)
	default:
		return fmt.Errorf("%w: %T instead of Welcome", wire.ErrMalformed, m)
	}
	for {
		m, err := p.s.Receive()
		if err != nil {
			return err
		}
		done, err := p.handle(m)
		if err != nil || done {
			return err
		}
	}
}

func (p *push) handle(m wire.Message) (done bool, err error) {
	switch m := m.(type) {
	case *wire.OpenLane:
		if p.opened++; p.opened > maxOpened {
			return false, fmt.Errorf("%w: a lane too many (%d)", wire.ErrMalformed, p.opened)
		}
		p.lanes.Go(func() { p.openLane(m) })
	case *wire.LaneDown:
		p.endLane(m.ID)
	case *wire.Plan:
		p.plan(m)
	case *wire.Landed:
		p.landed[m.File]++
		if int(m.File) >= len(p.Source.files) || p.landed[m.File] > maxAttempts {
			return false, fmt.Errorf("%w: file %d landed", wire.ErrMalformed, m.File)
		}
		p.lanes.Go(func() { p.vouch(m.File) })
	case *wire.Receipt:
		err = p.receipt(m)
	case *wire.FileFailed:
		if int(m.File) >= len(p.Source.files) {
			return false, fmt.Errorf("%w: file %d failed", wire.ErrMalformed, m.File)
		}
		p.settle(m.File, nil, errorf(peerCode(m.Code), "receiver: %s", Printable(m.Reason)))
	case *wire.Done:
		return true, p.done(m)
	case *wire.Abort:
		err = p.s.fromPeer(m)
	default:
		err = fmt.Errorf("%w: unexpected %T", wire.ErrMalformed, m)
	}
	return false, err
}

// What a receiver may ask for: lanes in all of one session, and memory that a lane
// pins, bytes. It asks for a quarter of that.
const (
	maxOpened = 24
	maxRing   = 64 << 20
)

// mayOpen says why not. What the user told this end holds, whatever the receiver
// makes of it.
func (p *push) mayOpen(open *wire.OpenLane) error {
	switch {
	case open.RDMA != nil && p.Transport == TransportTCP, open.TCP != nil && p.Transport == TransportRDMA:
		return errors.New("the sender was told to use " + p.Transport)
	case int64(open.Depth)*int64(p.welcome.ExtentSize) > maxRing:
		return fmt.Errorf("%d requests of %d bytes in flight are more than a lane may have", open.Depth, p.welcome.ExtentSize)
	}
	return nil
}

// answer opens the sending end of a lane.
func (p *push) answer(open *wire.OpenLane, answer *wire.LaneAnswer) (Server, error) {
	if err := p.mayOpen(open); err != nil {
		return nil, err
	}
	t := p.TCP
	params := LaneParams{ID: open.ID, Depth: int(open.Depth), ExtentSize: int(p.welcome.ExtentSize)}
	if open.RDMA != nil {
		t = p.RDMA
	} else {
		params.Conn = func(ctx context.Context) (*net.TCPConn, error) {
			return dialLane(ctx, p.Addr, p.welcome.Session, open.ID, open.TCP.Ticket)
		}
	}
	ctx, cancel := context.WithTimeout(p.ctx, openLimit)
	defer cancel()
	return t.Answer(ctx, params, open, answer)
}

// openLane opens the sending end of a lane and serves it until it ends.
func (p *push) openLane(open *wire.OpenLane) {
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	answer := &wire.LaneAnswer{ID: open.ID}
	server, err := p.answer(open, answer)
	if err != nil {
		answer = &wire.LaneAnswer{ID: open.ID, Reason: wire.Clip(err.Error())}
	} else {
		p.mu.Lock()
		p.detail[open.ID] = server.Describe()
		p.serving[open.ID] = cancel
		p.mu.Unlock()
	}
	if serr := p.s.Send(answer); serr != nil {
		p.cancel(serr)
	}
	if err != nil {
		return
	}
	err = server.Serve(ctx, p.Source)
	server.Close()
	if err != nil && ctx.Err() == nil {
		// The receiver decides what becomes of it.
		_ = p.s.Send(&wire.LaneDown{ID: open.ID, Reason: wire.Clip(err.Error())})
	}
}

// endLane frees what a lane holds that the receiver has given up.
func (p *push) endLane(id uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cancel := p.serving[id]; cancel != nil {
		cancel()
	}
}

// plan notes what carries the data and, the first time, sends the manifest.
func (p *push) plan(m *wire.Plan) {
	plan := Plan{Transport: Printable(m.Transport), Lanes: int(m.Lanes), Reason: Printable(m.Reason)}
	p.mu.Lock()
	plan.Detail = p.detail[m.Lane]
	first := !p.planned
	p.planned = true
	p.result.Plan = plan
	p.Observer.Planned(plan)
	p.mu.Unlock()
	if first {
		p.lanes.Go(p.manifest)
	}
}

func (p *push) manifest() {
	if p.Progress != nil {
		p.Progress.Total.Store(p.Source.Bytes())
	}
	for _, f := range p.Source.files {
		if err := p.s.Send(&f.entry); err != nil {
			p.cancel(err)
			return
		}
	}
	end := &wire.ManifestEnd{Files: uint32(len(p.Source.files)), Bytes: p.Source.Bytes()}
	if err := p.s.Send(end); err != nil {
		p.cancel(err)
	}
}

// digestsAMessage keeps a Digests message well below a frame.
const digestsAMessage = 8192

// vouch sends the digests of a file that has landed and says that it is still the
// one of the manifest. A file that is not has failed, and was reported.
func (p *push) vouch(file uint32) {
	have, ok := p.Source.vouch(file)
	if !ok {
		return
	}
	extents := make([]int, 0, len(have))
	for n := range have {
		extents = append(extents, n)
	}
	slices.Sort(extents)
	for group := range slices.Chunk(extents, digestsAMessage) {
		m := &wire.Digests{File: file}
		for _, n := range group {
			d := have[n]
			m.Extents = append(m.Extents, uint32(n))
			m.Sums = append(m.Sums, d[:]...)
		}
		if err := p.s.Send(m); err != nil {
			p.cancel(err)
			return
		}
	}
	if err := p.s.Send(&wire.Vouch{File: file}); err != nil {
		p.cancel(err)
	}
}

// fileFailed tells the receiver that a source can't be read any more.
func (p *push) fileFailed(file uint32, err error) {
	p.settle(file, nil, err)
	msg := &wire.FileFailed{File: file, Code: uint8(CodeOf(err)), Reason: wire.Clip(err.Error())}
	if serr := p.s.Send(msg); serr != nil {
		p.cancel(serr)
	}
}

func (p *push) receipt(m *wire.Receipt) error {
	if int(m.File) >= len(p.Source.files) {
		return fmt.Errorf("%w: a receipt for file %d", wire.ErrMalformed, m.File)
	}
	var digest *Digest
	if len(m.Digest) > 0 {
		digest = (*Digest)(m.Digest)
	}
	p.settle(m.File, digest, nil)
	return nil
}

// settle reports one file's end, once.
func (p *push) settle(file uint32, digest *Digest, err error) {
	f := p.Source.files[file]
	p.mu.Lock()
	first := !p.settled[file]
	if first {
		p.settled[file] = true
		if err != nil {
			p.failures.add(err)
		}
		p.Observer.File(FileResult{Path: f.path, Size: f.entry.Size, Digest: digest, Err: err})
	}
	p.mu.Unlock()
	if first {
		f.release()
	}
}

func (p *push) done(m *wire.Done) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.result.Files = int(m.Files)
	p.result.Bytes = m.Bytes
	p.result.Elapsed = time.Duration(m.Nanoseconds)
	if n := len(p.settled); n != len(p.Source.files) {
		return errorf(CodeOther, "%w: done after %d of %d files", wire.ErrMalformed, n, len(p.Source.files))
	}
	if n := len(p.settled) - p.failures.n; n != p.result.Files {
		return errorf(CodeOther, "%w: %d files landed, and there are receipts for %d", wire.ErrMalformed, p.result.Files, n)
	}
	return nil
}
