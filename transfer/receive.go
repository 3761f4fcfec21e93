package transfer

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// What a receiver asks for unless told otherwise. 16 MiB in flight keep a 100
// Gbit/s link with 1 ms of delay busy, and are what a lane's ring pins.
const (
	DefaultExtentSize = 1 << 20
	DefaultDepth      = 16
)

// stallLimit is how long requests may stay unanswered, and the sender may owe a
// word about a file, while its heartbeat goes on.
const stallLimit = 30 * time.Second

// helloLimit is how long a peer that has proved the key may take to say what it
// wants.
const helloLimit = 10 * time.Second

// Receiver lands what senders offer.
type Receiver struct {
	Listener  *Listener
	Sink      Sink
	Transport string // auto, rdma or tcp
	Encrypt   bool   // senders whose payload is clear are refused
	RDMA      PullTransport
	TCP       PullTransport
	UDP       PullTransport         // to measure with; nil: there is none
	Hardware  func() *wire.Hardware // what the host tells of itself; nil: nothing
	Verbs     Verbs                 // to measure with; nil: there is no RDMA
	Tools     ToolServer            // runs others' programs to measure with; nil: they are refused
	Observer  Observer
	Progress  *Progress

	cpus   int                  // that lanes over RDMA may take, where nobody says how many; 0: all
	spares func() time.Duration // how long processors had nothing to do, together; nil: as the host says
}

// pull is one transfer at the receiver.
type pull struct {
	*Receiver
	s       *Session
	hello   *wire.Hello
	session [16]byte
	verify  digest.Kind
	hashing hashing
	sched   *scheduler
	ctx     context.Context // of the transfer; its cause is why it ended early
	cancel  context.CancelCauseFunc
	greeted chan struct{} // closed when there is a Hello
	scout   *scout
	// measures are what a session that measures is asked for; closed after the last.
	measures    chan wire.Message
	verbsSaid   chan wire.Message // by the sender while its verbs are measured
	toolDone    chan struct{}     // the sender's end of a tool is over
	measuredAll bool              // it is; converse's alone
	rail        string            // of RDMA, that is measured
	looked      bool              // for one
	done        chan struct{}     // closed when every file is settled

	dest       Destination
	outlook    Outlook // of a dry run, instead
	commits    commits
	receipts   receipts
	committing sync.WaitGroup
	teller

	mu       sync.Mutex
	files    map[uint32]*inbound  // that have not settled
	owed     map[uint32]time.Time // files about which the sender owes a word, since when
	open     int                  // len(files), or -1 when done is closed
	manifest manifest
	failures failures
	result   Result
	started  time.Time // first request
	end      time.Time // last entry durable
	told     Result    // of earlier batches
	lanes    lanes
}

// Receive runs one transfer to its end and closes the session.
func (r *Receiver) Receive(ctx context.Context, s *Session) (*Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, s.hurry)()
	p := &pull{
		Receiver:  r,
		s:         s,
		sched:     newScheduler(DefaultExtentSize),
		ctx:       ctx,
		cancel:    cancel,
		done:      make(chan struct{}),
		files:     make(map[uint32]*inbound),
		manifest:  newManifest(),
		owed:      make(map[uint32]time.Time),
		greeted:   make(chan struct{}),
		measures:  make(chan wire.Message, 1),
		toolDone:  make(chan struct{}, 1),
		verbsSaid: make(chan wire.Message, 1),
		scout:     newScout(s),
	}
	rand.Read(p.session[:])
	p.lanes.init(p)
	p.commits.init()
	ended, gone := s.attend(func() error {
		err := p.converse()
		if err != nil && p.hello != nil && p.hello.Measure { // what is measured for the sender ends with it
			cancel(err)
		}
		return err
	})
	err := p.run(ctx, ended, gone)
	cancel(err)
	p.sched.end()
	p.lanes.wait()
	if err != nil {
		s.abort(err, gone)
	}
	s.Close()
	// Nothing of a lane, and no message, may touch a landing once it is given up.
	<-gone
	p.finishCommits()
	p.abandon()
	if p.dest != nil {
		p.result.Storage = p.dest.Storage()
		p.result.Hashing = p.hashing.time()
		if cerr := p.dest.Close(err != nil || p.failures.passing); cerr != nil && err == nil {
			err = cerr
		}
	}
	if p.outlook != nil {
		err = cmp.Or(err, p.outlook.Close())
	}
	if err == nil {
		err = p.failures.sum(p.result.Files)
	}
	p.result.Failed = p.failures.n
	p.result.Plan = p.lanes.used()
	_, p.result.Lanes = p.lanes.carried()
	return &p.result, err
}

func (p *pull) run(ctx context.Context, ended <-chan error, gone <-chan struct{}) error {
	select {
	case <-p.greeted:
	case err := <-ended:
		return err
	case <-time.After(helloLimit):
		return errorf(CodeConnect, "peer %s has the key and says nothing: is it an rdmaxfer send?", p.s.peer)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	switch {
	case p.hello.Measure:
		return p.serveMeasures(ended)
	case p.hello.PathsOnly:
		return p.servePaths(ended)
	}
	p.lanes.running.Go(func() { p.watch(ctx) })
	p.committing.Go(p.commitAll)
	opened := make(chan error, 1)
	if !p.hello.DryRun {
		p.lanes.running.Go(func() { opened <- p.lanes.keep(ctx) })
	}
	for {
		select {
		case err := <-opened:
			if err != nil {
				return err
			}
			opened = nil
		case err := <-ended:
			return err
		case <-p.done:
			if ctx.Err() != nil { // with the last file
				return context.Cause(ctx)
			}
			return p.conclude(gone)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// converse greets the sender and handles its messages until the connection or the
// transfer ends.
func (p *pull) converse() error {
	if err := p.greet(); err != nil {
		return err
	}
	close(p.greeted)
	for {
		m, err := p.s.Receive()
		if err == nil && p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		if err == nil {
			switch {
			case p.scout.hear(m):
			case p.hello.Measure:
				err = p.measureMessage(m)
			case p.hello.PathsOnly:
				err = p.pathsMessage(m)
			default:
				err = p.handle(m)
			}
		}
		if err != nil {
			return err
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
	p.result.Measuring = hello.Measure
	if p.Encrypt && !hello.Encrypt && !hello.PathsOnly {
		return errorf(CodeUsage, "this receiver takes encrypted payload alone (recv --encrypt), and the sender's is clear: use send --encrypt")
	}
	verify, err := digest.Parse(hello.Verify)
	if err != nil {
		return errorf(CodeUsage, "the sender wants --verify %s, which this receiver does not have", Printable(hello.Verify))
	}
	if d, ok := p.Sink.(interface{ readsBack() bool }); ok && d.readsBack() && verify == digest.None && !hello.Measure && !hello.PathsOnly {
		return errorf(CodeUsage, "this receiver reads back what has landed (recv --readback), and the sender takes no digests that it could be compared with: send without --verify none")
	}
	p.hello = hello
	p.verify = verify
	p.result.Verify = hello.Verify
	if hello.Measure || hello.PathsOnly {
		return p.s.Send(&wire.Welcome{Version: wire.Version, Session: p.session, ExtentSize: DefaultExtentSize, Tools: p.Tools != nil})
	}
	if hello.DryRun {
		return p.look()
	}
	dest, err := p.Sink.Begin(ledgerID(hello))
	if err != nil {
		return err
	}
	p.dest = dest
	if d, ok := dest.(mortal); ok {
		d.ends(p.cancel)
	}
	d, prompt := dest.(paced)
	if prompt {
		d.pace(p.sched.allow, func(file uint32, err error) { p.fail(file, err, true) })
	}
	return p.welcome(prompt)
}

func (p *pull) welcome(prompt bool) error {
	return p.s.Send(&wire.Welcome{Version: wire.Version, Session: p.session, ExtentSize: DefaultExtentSize, Entries: p.manifest.granted, Durable: p.Sink.Durable(), Prompt: prompt})
}

// ledgerID names the transfer among those of this destination. Digests of one kind are
// of no use to a transfer of another.
func ledgerID(hello *wire.Hello) (id [16]byte) {
	h := sha256.Sum256(append(hello.Transfer[:], hello.Verify...))
	copy(id[:], h[:])
	return id
}

func (p *pull) handle(m wire.Message) error {
	switch m := m.(type) {
	case *wire.LaneAnswer:
		p.lanes.answered(m)
	case *wire.LaneDown:
		p.lanes.kill(m.ID, errors.New("the sender's end broke: "+Printable(m.Reason)))
	case *wire.Entry:
		return p.entry(m)
	case *wire.ManifestEnd:
		return p.manifestEnd(m)
	case *wire.Digests:
		return p.digests(m)
	case *wire.Vouch:
		return p.vouched(m)
	case *wire.Grown:
		return p.grown(m)
	case *wire.FileFailed:
		if _, err := p.known(m.File); err != nil {
			return err
		}
		p.fail(m.File, errorf(peerCode(m.Code), "peer: %s", Printable(m.Reason)), false)
	case *wire.Abort:
		return p.s.fromPeer(m)
	default:
		return fmt.Errorf("%w: unexpected %T", wire.ErrMalformed, m)
	}
	return nil
}

// watch ends lanes whose requests stay unanswered, and files about which the
// sender says nothing.
func (p *pull) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			p.lanes.checkStalled(now)
			p.checkOwed(now)
		}
	}
}

// conclude tells the sender the result, and waits for it to hang up: closing first
// could reset the connection before the last message was read.
func (p *pull) conclude(gone <-chan struct{}) error {
	p.finishCommits()
	p.mu.Lock() // a lane may ask for what was given up
	p.result.Elapsed += p.elapsed()
	p.mu.Unlock()
	told, _ := p.lanes.carried()
	err := p.s.Send(&wire.Done{
		Files:       uint32(p.result.Files),
		Bytes:       p.result.Bytes,
		Nanoseconds: p.result.Elapsed.Nanoseconds(),
		Resumed:     p.result.Resumed,
		Lanes:       told,
	})
	if err != nil {
		return err
	}
	linger(gone)
	return nil
}

// elapsed is from the first request to the last entry durable, since a batch began; 0 when
// nothing landed, or empty files alone. The caller has the lock.
func (p *pull) elapsed() time.Duration {
	if p.started.IsZero() || !p.end.After(p.started) {
		return 0
	}
	return p.end.Sub(p.started)
}

// batchOver tells the sender what became of a batch, and lets another begin: one that may
// have the same paths.
func (p *pull) batchOver() {
	p.mu.Lock()
	p.result.Elapsed += p.elapsed()
	p.started = time.Time{}
	m := &wire.Done{
		Files:       uint32(p.result.Files - p.told.Files),
		Bytes:       p.result.Bytes - p.told.Bytes,
		Nanoseconds: (p.result.Elapsed - p.told.Elapsed).Nanoseconds(),
		Resumed:     p.result.Resumed - p.told.Resumed,
	}
	p.told = p.result
	p.mu.Unlock()
	if d, ok := p.dest.(batched); ok {
		d.begins() // the next may replace what this one has brought
	}
	p.mu.Lock()
	clear(p.manifest.paths)
	clear(p.manifest.lost)
	p.manifest.paused = false
	p.mu.Unlock()
	if err := p.s.Send(m); err != nil {
		p.cancel(err)
	}
}

// finishCommits waits until everything that was ready has its name, or has failed.
func (p *pull) finishCommits() {
	p.commits.close()
	p.committing.Wait()
}

// owe notes that the sender has to say what became of a file: to vouch for it, or
// to say why it refused an extent.
func (p *pull) owe(file uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owed[file].IsZero() {
		p.owed[file] = time.Now()
	}
}

// said takes that back.
func (p *pull) said(file uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.owed, file)
}

// checkOwed gives up the files of which the sender has owed word for too long.
func (p *pull) checkOwed(now time.Time) {
	var late []uint32
	p.mu.Lock()
	for file, since := range p.owed {
		if now.Sub(since) > stallLimit {
			late = append(late, file)
			delete(p.owed, file)
		}
	}
	p.mu.Unlock()
	for _, file := range late {
		if f := p.file(file); f != nil {
			p.fail(file, errorf(CodeConnect, "%s: the peer lives, but has not said for %v what became of it: its storage hangs, or somebody meddles with the lanes",
				Printable(f.entry.Path), stallLimit), true)
		}
	}
}

// asks notes that an extent is asked for, and starts the clock at the first.
func (p *pull) asks(e Extent, now time.Time) {
	p.mu.Lock()
	if p.started.IsZero() {
		p.started = now
	}
	f := p.files[e.File]
	p.mu.Unlock()
	if f != nil && e.Count == 0 {
		f.mu.Lock()
		f.asked = max(f.asked, int(e.Off/p.sched.extentSize)+1)
		f.mu.Unlock()
	}
}
