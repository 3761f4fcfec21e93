package transfer

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// memory is a transport whose lanes are channels within this process. With
// sessions over a pipe a whole transfer runs in a bubble of synctest: its limits
// pass at once, and a goroutine that it leaves behind is a deadlock that fails
// the test.
type memory struct {
	name string
	// meddle may damage, refuse, or withhold (errLost) an answer on its way, or break
	// the lane by any other error. It is called from one goroutine a lane.
	meddle func(*memAnswer) error
	divert func(*wire.Request) // changes a request on its way
	// place writes an answer of a path into the extent's file, instead of Land. An error is
	// the file's; errBroken is the lane's.
	place func(ctx context.Context, path string, file *os.File, e Extent, p []byte) error
	// writing is how long each of those is said to have taken, of a file of which lanes take turns.
	writing time.Duration
	paths   []string
	lacks   func() error            // says why there are no paths now; nil: there are
	refuse  func(path string) error // says why a lane does not come up now
	deaf    bool                    // its sending ends don't hear of a receiver's that closed

	mu            sync.Mutex
	lanes         map[uint32]*memLane
	buffers       [][]byte // of an extent each, used again: new ones cost more than all else here
	serving, most int      // sending ends, now and at the most
}

// memAnswer is an answer on its way: the nth of its lane, from 0.
type memAnswer struct {
	lane uint32
	path string
	nth  int
	r    wire.Request
	ok   bool
	p    []byte
}

var errLost = errors.New("this answer is lost")

func newMemory(name string, meddle func(*memAnswer) error) *memory {
	if meddle == nil {
		meddle = func(*memAnswer) error { return nil }
	}
	return &memory{
		name:   name,
		meddle: meddle,
		divert: func(*wire.Request) {},
		paths:  []string{name},
		refuse: func(string) error { return nil },
		lanes:  make(map[uint32]*memLane),
	}
}

// buffer is room for an answer, until spent.
func (m *memory) buffer() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.buffers)
	if n == 0 {
		return make([]byte, DefaultExtentSize)
	}
	b := m.buffers[n-1]
	m.buffers = m.buffers[:n-1]
	return b
}

// spent takes a buffer back, and leaves nothing in it that could be taken for what comes
// next; what a test answered with is none.
func (m *memory) spent(p []byte) {
	if cap(p) != DefaultExtentSize {
		return
	}
	p = p[:cap(p)]
	clear(p)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.buffers = append(m.buffers, p)
}

func (m *memory) Name() string      { return m.name }
func (m *memory) Offer(*wire.Hello) {}

func (m *memory) Paths(context.Context, PathQuery) ([]string, *wire.Paths, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lacks != nil {
		if err := m.lacks(); err != nil {
			return nil, nil, err
		}
	}
	return slices.Clone(m.paths), nil, nil
}

func (m *memory) Prepare(_ context.Context, _ *wire.Hello, p LaneParams, open *wire.OpenLane) (PendingPuller, error) {
	if m.name == TransportRDMA {
		open.RDMA = &wire.RDMALane{QP: wire.QueuePair{MTU: 1}}
	}
	l := &memLane{m: m, p: p, requests: make(chan wire.Request, p.Depth), answers: make(chan memAnswer, p.Depth), broken: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lanes[p.ID] = l
	return memPending{l}, nil
}

func (m *memory) Answer(_ context.Context, p LaneParams, _ *wire.OpenLane, _ *wire.LaneAnswer) (Server, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return memServer{m.lanes[p.ID]}, nil
}

type memPending struct{ l *memLane }

func (p memPending) Connect(context.Context, *wire.LaneAnswer) (Puller, error) {
	if err := p.l.m.refuse(p.l.p.Path); err != nil {
		return nil, err
	}
	return p.l, nil
}

func (p memPending) Close() error { return nil }

// memLane is the receiving end.
type memLane struct {
	m        *memory
	p        LaneParams
	requests chan wire.Request
	answers  chan memAnswer
	broken   chan struct{}
	once     sync.Once
	inFlight []Extent
}

func (l *memLane) Describe() string { return l.p.Path }

func (l *memLane) Close() error {
	l.once.Do(func() { close(l.broken) })
	return nil
}

func (l *memLane) Pull(ctx context.Context, f Feed) error {
	for {
		if err := l.ask(ctx, f); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		select {
		case a := <-l.answers:
			e := l.inFlight[0]
			l.inFlight = l.inFlight[1:]
			var err error
			if a.ok {
				err = l.land(ctx, f, e, a.p)
			} else {
				f.Refuse(e)
			}
			l.m.spent(a.p)
			if err != nil {
				return err
			}
		case <-l.broken:
			return errors.New("the memory lane broke")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var errBroken = errors.New("the lane broke in the middle of an extent")

// land lands an answer, in its file where the test wants that.
func (l *memLane) land(ctx context.Context, f Feed, e Extent, p []byte) error {
	files, ok := f.(FileFeed)
	if !ok || l.m.place == nil {
		return f.Land(e, p)
	}
	file := files.Place(e)
	if file == nil {
		return f.Land(e, p)
	}
	switch err := l.m.place(ctx, l.p.Path, file, e, p); err {
	case nil:
		b := l.m.buffer()
		defer l.m.spent(b)
		return files.Placed(e, b, l.m.writing)
	case errBroken:
		return err
	default:
		files.Displaced(e, err)
		return nil
	}
}

func (l *memLane) ask(ctx context.Context, f Feed) error {
	for len(l.inFlight) < l.p.Depth {
		e, ok := f.TryNext()
		if !ok && len(l.inFlight) > 0 {
			return nil
		}
		if !ok {
			var err error
			if e, err = f.Next(ctx); err != nil {
				return err
			}
		}
		l.inFlight = append(l.inFlight, e)
		l.requests <- e.Request(0)
	}
	return nil
}

// memServer is the sending end.
type memServer struct{ *memLane }

func (s memServer) Serve(ctx context.Context, src *Source) error {
	s.m.mu.Lock()
	s.m.serving++
	s.m.most = max(s.m.most, s.m.serving)
	broken := s.broken
	if s.m.deaf {
		broken = nil
	}
	s.m.mu.Unlock()
	defer func() {
		s.m.mu.Lock()
		s.m.serving--
		s.m.mu.Unlock()
	}()
	for n := 0; ; n++ {
		select {
		case r := <-s.requests:
			s.m.divert(&r)
			p := s.m.buffer()[:r.Length]
			ok, err := src.Read(r, p)
			if err != nil {
				return err
			}
			if ok {
				src.Sent(r, p)
			}
			a := memAnswer{lane: s.p.ID, path: s.p.Path, nth: n, r: r, ok: ok, p: p}
			if err := s.m.meddle(&a); err == errLost {
				continue
			} else if err != nil {
				s.Close()
				return err
			}
			s.answers <- a
		case <-broken:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// end is what one end of a transfer came to.
type end struct {
	*Result
	err   error
	plans []Plan
	files []FileResult
}

// Planned and File are not synchronised: the engine promises one call at a time,
// which the race detector checks.
func (e *end) Planned(p Plan)    { e.plans = append(e.plans, p) }
func (e *end) Paths(*PathReport) {}
func (e *end) File(f FileResult) { e.files = append(e.files, f) }

// engine is a sender and a receiver joined by a pipe and by memory.
type engine struct {
	Sender
	Receiver
	dir  string // of the destination
	lane *memory
}

// newEngine sets up a transfer of files, by name and content.
func newEngine(t *testing.T, meddle func(*memAnswer) error, files ...[2]string) *engine {
	t.Helper()
	var paths []string
	src := t.TempDir()
	for _, f := range files {
		path := filepath.Join(src, f[0])
		write(t, path, f[1])
		paths = append(paths, path)
	}
	source, err := OpenSource(paths, SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Close)
	sink, dir := into(t, OverwriteNever)
	// A lane of this name needs no port of the receiver.
	lane := newMemory(TransportRDMA, meddle)
	tcp := newMemory(TransportTCP, meddle)
	return &engine{
		Sender:   Sender{Source: source, Transport: TransportAuto, Op: "auto", Verify: VerifyBLAKE3, RDMA: lane, TCP: tcp},
		Receiver: Receiver{Sink: sink, Transport: TransportAuto, RDMA: lane, TCP: tcp, Listener: &Listener{tickets: make(map[ticketName]*ticket)}, Progress: new(Progress), cpus: 1, spares: oneIdle},
		dir:      dir,
		lane:     lane,
	}
}

// treeEngine sends a directory, and what is in it.
func treeEngine(t *testing.T, root string, opt SourceOptions) *engine {
	t.Helper()
	e := newEngine(t, nil)
	var err error
	if e.Source, err = OpenSource([]string{root}, opt); err != nil {
		t.Fatal(err)
	}
	return e
}

// run runs the transfer. Each end has a context of its own.
func (e *engine) run(t *testing.T, sctx, rctx context.Context) (s, r *end) {
	t.Helper()
	a, b := sessions(t)
	s, r = new(end), new(end)
	e.Sender.Observer, e.Receiver.Observer = s, r
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		s.Result, s.err = e.over(sctx, a, nil)
	}()
	r.Result, r.err = e.Receive(rctx, b)
	<-sent
	if n := len(e.Listener.tickets); n > 0 {
		t.Errorf("%d tickets are left", n)
	}
	return s, r
}

// transfer runs a transfer in a bubble and checks what landed.
func transfer(t *testing.T, meddle func(*memAnswer) error, want map[string]string, files ...[2]string) (s, r *end) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, meddle, files...)
		s, r = e.run(t, t.Context(), t.Context())
		wantFiles(t, e.dir, want)
	})
	return s, r
}

// random is content of n bytes that differ from extent to extent, the same each time: the race
// detector makes new memory dear.
func random(n int) string {
	randoms.Lock()
	defer randoms.Unlock()
	s, ok := randoms.made[n]
	if !ok {
		b := make([]byte, n)
		rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b)
		s = string(b)
		randoms.made[n] = s
	}
	return s
}

var randoms = struct {
	sync.Mutex
	made map[int]string
}{made: make(map[int]string)}

// openDescriptors lists a directory's open files of this process.
func openDescriptors(t *testing.T, dir string) (list []string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && filepath.Dir(to) == dir {
			list = append(list, to)
		}
	}
	return list
}
