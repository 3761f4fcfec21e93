package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
	"github.com/rdmaxfer/rdmaxfer/transfer/limit"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Sender offers files to a receiver and serves what that asks for.
type Sender struct {
	Addr      string // host:port of the receiver
	Key       Key
	Source    *Source
	Transport string     // auto, rdma or tcp
	Op        string     // auto, read, write or send
	Verify    string     // blake3, xxh3, crc32c or none
	Lanes     int        // at once; 0 leaves it to the receiver
	Limit     limit.Rate // of the payload; 0 for none
	// DeleteSource removes files and links, when the transfer is over, for which there
	// is a receipt and that are still what was sent. It needs Verify, and a receiver
	// that makes durable what it has.
	DeleteSource bool
	// DryRun asks the receiver what would become of each entry. No byte of a file moves,
	// and nothing changes at either end.
	DryRun bool
	// Encrypt has the payload travel under TLS, which is for TCP alone.
	Encrypt  bool
	Sockets  Sockets
	RDMA     ServeTransport
	TCP      ServeTransport
	Observer Observer
	Progress *Progress
}

// push is one transfer at the sender.
type push struct {
	*Sender
	s       *Session
	welcome *wire.Welcome
	ctx     context.Context
	cancel  context.CancelCauseFunc
	lanes   sync.WaitGroup // and everything else that runs beside converse
	teller

	client  *Client // whose sends these are; nil for a transfer of its own
	guide   *guide
	udp     ServeTransport // to measure with; nil: such lanes are refused
	opened  int            // lanes; what the receiver may ask for is bounded. converse's alone
	granted chan uint32    // how many entries may be sent
	pumps   chan struct{}  // streams of files that are being read

	mu      sync.Mutex
	settled int           // entries with a receipt, or failed
	landed  int           // files among those with a receipt
	arrived []*sourceFile // the same, when they shall be removed
	// lostDirs are directories that failed at the receiver, when sources shall be removed.
	lostDirs []string
	// failedHere are entries that this end gave up: what the receiver had in its hands by then
	// lands all the same.
	failedHere int
	complete   bool // the whole manifest was sent
	unsent     int  // what could not become an entry
	failures   failures
	batch      *batch // of the client's, that is under way
	failed     int    // entries of earlier ones
	closing    bool   // the client has no more
	result     Result
	planned    bool
	lane       map[uint32]LaneResult         // that was opened, by its number
	servers    map[uint32]Server             // those of lanes that are up
	running    []uint32                      // lanes of the plan
	serving    map[uint32]context.CancelFunc // ends a lane
}

// Send runs one transfer to its end.
func (s *Sender) Send(ctx context.Context) (*Result, error) {
	session, err := s.Sockets.dialSession(ctx, s.Addr, s.Key)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	return s.over(ctx, session, nil)
}

// over runs one transfer, or all of a client's, over a session and closes that.
func (s *Sender) over(ctx context.Context, session *Session, client *Client) (_ *Result, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, session.hurry)()
	p := &push{
		Sender:  s,
		s:       session,
		client:  client,
		ctx:     ctx,
		cancel:  cancel,
		granted: make(chan uint32, 1),
		pumps:   make(chan struct{}, maxPumps),
		lane:    make(map[uint32]LaneResult),
		servers: make(map[uint32]Server),
		serving: make(map[uint32]context.CancelFunc),
		guide:   new(guide), // that has nothing to offer, until there is a Hello
	}
	p.result.Verify = s.Verify
	p.result.DryRun = s.DryRun
	p.failures.dry = s.DryRun
	s.Source.walk.probe = s.DryRun
	if s.DeleteSource && s.Verify == VerifyNone {
		session.Close()
		return nil, errorf(CodeUsage, "sources are not deleted for what nobody verified: leave out --verify none, or --delete-source")
	}
	if s.DeleteSource && slices.Contains(s.Source.walk.roots, StdinPath) {
		session.Close()
		return nil, errorf(CodeUsage, "a stream has no source to delete: leave out --delete-source, or send it alone")
	}
	if s.Source.verify, err = digest.Parse(s.Verify); err != nil {
		session.Close()
		return nil, errorf(CodeUsage, "%w", err)
	}
	if s.Limit > 0 {
		s.Source.limit = limit.New(s.Limit)
	}
	s.Source.failed = p.fileFailed
	s.Source.digests = p.digests
	s.Source.vouched = p.vouched

	ended, gone := session.attend(p.converse)
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
	p.guide.end()
	p.result.Storage, p.result.Hashing = p.Source.Storage(), p.Source.hashing.time()
	if err != nil {
		return &p.result, err
	}
	p.result.Failed = p.failed + p.failures.n
	return &p.result, errors.Join(p.failures.sum(p.result.Files), p.removeSources())
}

// converse greets the receiver and answers its messages until it is Done.
func (p *push) converse() error {
	hello := &wire.Hello{Version: wire.Version, Transport: p.Transport, Op: p.Op, Verify: p.Verify, Lanes: uint16(p.Lanes), Transfer: p.Source.identity(), DryRun: p.DryRun, Encrypt: p.Encrypt, Limit: int64(lowRate(p.Limit))}
	if err := p.greet(hello); err != nil {
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
		if p.DeleteSource && !m.Durable {
			return errorf(CodeUsage, "the receiver keeps nothing for good (recv --discard, --no-sync): sources are not deleted for that")
		}
		p.welcome = m
		p.Source.extentSize = int64(m.ExtentSize)
		p.Source.prompt = m.Prompt
		p.grant(m.Entries)
		if p.DryRun { // else the first lane is waited for
			p.lanes.Go(p.manifest)
		}
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
	if !p.expects(m) {
		return false, fmt.Errorf("%w: unexpected %T", wire.ErrMalformed, m)
	}
	if mine, err := p.guide.hear(m); mine {
		return false, err
	}
	switch m := m.(type) {
	case *wire.OpenLane:
		return false, p.beginLane(m)
	case *wire.LaneDown:
		p.laneDown(m.ID)
	case *wire.Plan:
		p.plan(m)
	case *wire.More:
		p.grant(m.Entries)
	case *wire.Landed:
		err = p.hasLanded(m.File)
	case *wire.Kept:
		err = p.kept(m)
	case *wire.Receipt:
		err = p.receipts(m)
	case *wire.Foreseen:
		err = p.foreseen(m)
	case *wire.FileFailed:
		if _, err := p.Source.file(m.File); err != nil {
			return false, err
		}
		p.settle(m.File, FileResult{Err: errorf(peerCode(m.Code), "receiver: %s", Printable(m.Reason))})
	case *wire.Done:
		if p.client != nil {
			if over, err := p.batchDone(m); !over || err != nil {
				return false, err
			}
		}
		return true, p.done(m)
	case *wire.Abort:
		err = p.s.fromPeer(m)
	default:
		err = fmt.Errorf("%w: unexpected %T", wire.ErrMalformed, m)
	}
	return false, err
}

// grant lets entries with numbers below n be sent. It never waits: the most that was granted
// is what counts, for one word may overtake another.
func (p *push) grant(n uint32) {
	select {
	case before := <-p.granted:
		n = max(n, before)
	default:
	}
	p.granted <- n
}

// manifest sends what the walk finds, as far as the receiver has room for it.
func (p *push) manifest() {
	if err := p.list(); err != nil {
		p.cancel(err)
	}
}

func (p *push) list() error {
	var allowed, n uint32
	var bytes int64
	for {
		found, err := p.Source.walk.next()
		if errors.Is(err, io.EOF) {
			more, err := p.nextBatch(n, bytes)
			if err != nil {
				return err
			}
			if more {
				continue
			}
			break
		}
		switch {
		case p.ctx.Err() != nil:
			return context.Cause(p.ctx)
		case err != nil:
			return err
		case found.skip != "" || found.err != nil:
			p.leaveOut(found)
			continue
		}
		for n >= allowed || p.Source.crowded() {
			if err := p.s.Flush(); err != nil {
				return err
			}
			select {
			case more := <-p.granted:
				allowed = max(allowed, more)
			case <-p.Source.eased:
			case <-p.ctx.Done():
				return context.Cause(p.ctx)
			}
		}
		n++
		bytes += found.entry.Size
		if err := p.entry(found); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.complete = true
	unsent := p.unsent
	p.mu.Unlock()
	return p.s.Send(&wire.ManifestEnd{Files: n, Bytes: bytes, Unsent: uint32(unsent)})
}

// leaveOut reports what does not become an entry.
func (p *push) leaveOut(found *found) {
	if found.err != nil {
		p.mu.Lock()
		p.unsent++
		p.failures.add(found.err, 1)
		p.mu.Unlock()
	}
	r := FileResult{Path: found.path, Err: found.err, Skipped: found.skip}
	if p.DryRun {
		r.Foreseen = new(Foreseen)
	}
	p.tell(p.Observer, func(o Observer) { o.File(r) })
}

// entry makes an entry of what was found, and sends it.
func (p *push) entry(found *found) error {
	if p.DryRun {
		return p.s.Queue(&p.Source.add(found, nil).entry)
	}
	f := p.Source.add(found, p.Source.openStream(found))
	if p.Progress != nil {
		p.Progress.Total.Add(f.entry.Size)
	}
	if err := p.s.Queue(&f.entry); err != nil {
		return err
	}
	if f.stream != nil {
		// Nobody waits for it: what reads a terminal can't be interrupted.
		go p.pump(f)
	}
	return nil
}

// maxPumps is how many of a walk's files that are streams are read at a time: each takes an
// extent's memory meanwhile.
const maxPumps = 8

// pump reads a stream ahead of the receiver's requests.
func (p *push) pump(f *sourceFile) {
	if f.path != StdinPath {
		select {
		case p.pumps <- struct{}{}:
			defer func() { <-p.pumps }()
		case <-p.ctx.Done():
			return
		}
	}
	var told int64
	err := f.stream.pump(func(size int64, end bool) error {
		if p.Progress != nil {
			p.Progress.Total.Add(size - told)
		}
		told = size
		return p.s.Send(&wire.Grown{File: f.entry.File, Size: size, End: end})
	})
	if err != nil && p.ctx.Err() == nil {
		p.Source.fail(f, err)
	}
}

// hasLanded vouches for a file of which every extent has landed.
func (p *push) hasLanded(file uint32) error {
	f, err := p.Source.file(file)
	if f == nil || err != nil {
		return err
	}
	if f.landed++; f.landed > maxAttempts || f.entry.Kind != wire.File && f.entry.Kind != wire.Stream {
		return fmt.Errorf("%w: file %d landed", wire.ErrMalformed, file)
	}
	p.lanes.Go(func() { p.vouch(f) })
	return nil
}

// kept frees what the receiver has of a stream for good.
func (p *push) kept(m *wire.Kept) error {
	f, err := p.Source.file(m.File)
	if f == nil || err != nil {
		return err
	}
	if f.stream == nil {
		return fmt.Errorf("%w: extents of file %d, which is no stream, are kept", wire.ErrMalformed, m.File)
	}
	return f.stream.forget(int(m.Below))
}

// digestsAMessage keeps a Digests message well below a frame.
const digestsAMessage = 8192

// digests sends the digests of extents that have left.
func (p *push) digests(file uint32, have map[int]Digest) {
	if err := p.sendDigests(file, have); err != nil {
		p.cancel(err)
	}
}

func (p *push) sendDigests(file uint32, have map[int]Digest) error {
	for group := range slices.Chunk(slices.Sorted(maps.Keys(have)), digestsAMessage) {
		m := &wire.Digests{File: file}
		for _, n := range group {
			d := have[n]
			m.Extents = append(m.Extents, uint32(n))
			m.Sums = append(m.Sums, d[:]...)
		}
		if err := p.s.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// vouch sends the digests of a file that has landed and says that it is still the
// one of the manifest. A file that is not has failed, and was reported.
func (p *push) vouch(f *sourceFile) {
	have, ok := p.Source.vouch(f)
	if !ok {
		return
	}
	err := p.sendDigests(f.entry.File, have)
	if err == nil {
		err = p.s.Send(&wire.Vouch{Files: []uint32{f.entry.File}})
	}
	if err != nil {
		p.cancel(err)
	}
}

// vouched vouches for files that travelled in a pack.
func (p *push) vouched(m *wire.Vouch) {
	if err := p.s.Send(m); err != nil {
		p.cancel(err)
	}
}

// fileFailed tells the receiver that a source can't be read any more.
func (p *push) fileFailed(file uint32, err error) {
	p.mu.Lock()
	p.failedHere++ // before the receiver can know
	p.mu.Unlock()
	p.settle(file, FileResult{Err: err})
	msg := &wire.FileFailed{File: file, Code: uint8(CodeOf(err)), Reason: wire.Clip(err.Error())}
	if serr := p.s.Send(msg); serr != nil {
		p.cancel(serr)
	}
}
