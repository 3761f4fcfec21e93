//go:build rxe

package rdma

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// These tests run on host a of the testbed's pair (.ci/test-rxe): both ends of a lane
// in one process, over one device. Where there is none they fail.

const mib = 1 << 20

// patience bounds every wait and asserts nothing: what takes this long hangs.
const patience = 40 * time.Second

var realOps = []string{OpSend, OpWrite, OpRead}

// ends are the two ends of a lane that is up.
type ends struct {
	*puller
	*server
	src    *transfer.Source
	path   string
	served chan error
	cancel context.CancelFunc
}

// newEnds opens a lane of an op whose source is one file, seen through windows of so
// many bytes, and serves it.
func newEnds(t *testing.T, op string, size, window int) *ends {
	t.Helper()
	e := newEndsWithin(t, op, size, nil, nil)
	e.server.windows.size, e.server.windows.least = window, 2*mib
	e.serve(t)
	return e
}

// newEndsWithin is newEnds with so much memory at each end. Nobody serves yet.
func newEndsWithin(t *testing.T, op string, size int, mine, theirs *Budget) *ends {
	t.Helper()
	return newEndsOf(t, size, func() (*puller, *server) { return connected(t, op, "", 4, mine, theirs) })
}

// newEndsOf is newEndsWithin of a lane that is made so.
func newEndsOf(t *testing.T, size int, connect func() (*puller, *server)) *ends {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "rdmaxfer-test-")
	if err != nil {
		t.Fatal(err)
	}
	e := &ends{path: filepath.Join(dir, "src"), served: make(chan error, 1)}
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(content)
	if err := os.WriteFile(e.path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if e.src, err = transfer.OpenSource([]string{e.path}, transfer.SourceOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.src.Next(); err != nil {
		t.Fatal(err)
	}
	e.puller, e.server = connect()
	t.Cleanup(func() {
		e.cancel()
		<-e.served
		for _, c := range []io.Closer{e.puller, e.server} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		e.src.Close()
		os.RemoveAll(dir)
		if left := ibverbs.Live(); len(left) > 0 {
			t.Errorf("left open: %v", left)
		}
	})
	return e
}

// serve answers requests until the test ends.
func (e *ends) serve(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	e.cancel = cancel
	go func() { e.served <- e.server.Serve(ctx, e.src) }()
	a := &wire.LaneAnswer{RDMA: &wire.RDMALane{Device: e.server.res.cand.Device}}
	if err := e.puller.probe(ctx, a); err != nil {
		t.Fatal(err)
	}
}

// connected makes the two ends, with that ring if there is memory for it, which nobody
// serves yet.
func connected(t *testing.T, op, sink string, depth int, mine, theirs *Budget) (*puller, *server) {
	t.Helper()
	list, err := Candidates(new(Selection))
	if err != nil {
		t.Fatal(err)
	}
	params := transfer.LaneParams{Depth: depth, ExtentSize: transfer.DefaultExtentSize}
	pl, err := newPuller(end{Candidate: list[0].Candidate}, op, sink, params, leastDepth, mine)
	if err != nil {
		t.Fatal(err)
	}
	params.Depth = pl.depth // as the session says
	s, err := newServer(end{Candidate: list[0].Candidate}, op, SourceWindow, params, leastDepth, theirs, 1)
	if err != nil {
		t.Fatal(err)
	}
	a, b := pl.res.lane(), s.res.lane()
	if err := errors.Join(s.res.agree(a.Reads), pl.res.agree(b.Reads), s.res.connect(&a.QP), pl.res.connect(&b.QP)); err != nil {
		t.Fatal(err)
	}
	return pl, s
}

// feed hands out the extents of one file, again and again, and checks what lands.
type feed struct {
	t       *testing.T
	want    []byte // nil: not looked at
	size    int
	next    int // extents handed out
	most    int
	landed  int
	refused int
	onLand  func(landed int)
}

func (f *feed) TryNext() (transfer.Extent, bool) {
	if f.next == f.most {
		return transfer.Extent{}, false
	}
	off := f.next % ((f.size + mib - 1) / mib) * mib
	f.next++
	return transfer.Extent{Off: int64(off), Len: min(mib, f.size-off)}, true
}

func (f *feed) Next(context.Context) (transfer.Extent, error) {
	if e, ok := f.TryNext(); ok {
		return e, nil
	}
	return transfer.Extent{}, io.EOF
}

func (f *feed) Land(e transfer.Extent, p []byte) error {
	if f.want != nil && !bytes.Equal(p, f.want[e.Off:e.Off+int64(e.Len)]) {
		f.t.Errorf("the extent at %d landed otherwise than it is", e.Off)
	}
	if f.landed++; f.onLand != nil {
		f.onLand(f.landed)
	}
	return nil
}

func (f *feed) Refuse(transfer.Extent) { f.refused++ }

func (e *ends) pull(t *testing.T, f *feed) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return e.puller.Pull(ctx, f)
}

func eachOp(t *testing.T, f func(t *testing.T, op string)) {
	for _, op := range realOps {
		t.Run(op, func(t *testing.T) { f(t, op) })
	}
}

// awaitWindow waits until there is one more region than those of the two ends: the
// first extents go out of the pool, while the first window is made.
func awaitWindow(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(patience); ibverbs.Live()["MR"] <= 4; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("there is no window")
		}
	}
}

// TestOps moves a file over windows of it, twice. The last window is shorter, and so is
// the last extent.
func TestOps(t *testing.T) {
	eachOp(t, func(t *testing.T, op string) {
		const size = 22*mib + 1
		e := newEnds(t, op, size, 4*mib)
		want, err := os.ReadFile(e.path)
		if err != nil {
			t.Fatal(err)
		}
		f := &feed{t: t, want: want, size: size, most: 2 * 23}
		f.onLand = func(landed int) {
			if landed == 1 {
				awaitWindow(t)
			}
		}
		if err := e.pull(t, f); err != nil {
			t.Fatalf("after %d of %d extents: %v", f.landed, f.most, err)
		}
		if f.landed != f.most || f.refused > 0 {
			t.Errorf("%d of %d extents landed, %d were refused", f.landed, f.most, f.refused)
		}
		if d := e.server.Describe(); !strings.Contains(d, "op="+op) || !strings.Contains(d, "source=window") {
			t.Errorf("it describes itself as %q", d)
		}
	})
}

// TestWindowsAfterATrial: where a short window was cheap, longer ones follow while it is in use.
func TestWindowsAfterATrial(t *testing.T) {
	eachOp(t, func(t *testing.T, op string) {
		const size = 22*mib + 1
		e := newEndsWithin(t, op, size, nil, nil)
		ws := e.server.windows
		ws.size, ws.least = 8*mib, 4*mib
		ws.trial = &trial{lanes: 1, reading: price{time.Hour, pricedLeast}}
		e.serve(t)
		want, err := os.ReadFile(e.path)
		if err != nil {
			t.Fatal(err)
		}
		f := &feed{t: t, want: want, size: size, most: 3 * 23}
		f.onLand = func(landed int) {
			if landed == 1 {
				awaitWindow(t)
			}
		}
		if err := e.pull(t, f); err != nil || f.landed != f.most || f.refused > 0 {
			t.Fatalf("%d of %d extents landed, %d were refused: %v", f.landed, f.most, f.refused, err)
		}
		if d := e.server.Describe(); !strings.Contains(d, "source=window") || !ws.trial.over {
			t.Errorf("it describes itself as %q; the trial is over: %v", d, ws.trial.over)
		}
	})
}

// TestShortMemory makes the rings shallow, and leaves windows out.
func TestShortMemory(t *testing.T) {
	eachOp(t, func(t *testing.T, op string) {
		const size = 22*mib + 1
		mine, theirs := NewBudget(3*mib), NewBudget(2*mib)
		t.Cleanup(func() { // after everything is closed
			if mine.left != 3*mib || theirs.left != 2*mib {
				t.Errorf("%d and %d bytes came back", mine.left, theirs.left)
			}
		})
		e := newEndsWithin(t, op, size, mine, theirs)
		e.serve(t)
		want, err := os.ReadFile(e.path)
		if err != nil {
			t.Fatal(err)
		}
		f := &feed{t: t, want: want, size: size, most: 2 * 23}
		if err := e.pull(t, f); err != nil {
			t.Fatalf("after %d of %d extents: %v", f.landed, f.most, err)
		}
		if f.landed != f.most || e.puller.depth != 2 || mine.left != mib || theirs.left != 0 {
			t.Errorf("%d extents landed; depth %d, %d and %d bytes left", f.landed, e.puller.depth, mine.left, theirs.left)
		}
		if d := e.server.Describe(); !strings.Contains(d, "source=pool") {
			t.Errorf("it describes itself as %q", d)
		}
	})
}

// TestNoAllocationAnExtent compares two counts of extents, which differ in nothing else.
func TestNoAllocationAnExtent(t *testing.T) {
	eachOp(t, func(t *testing.T, op string) {
		const size = 16 * mib
		e := newEnds(t, op, size, windowSize) // one window, for windows do allocate
		mallocs := func(extents int) uint64 {
			f := &feed{t: t, size: size, most: extents}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := e.pull(t, f); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			return after.Mallocs - before.Mallocs
		}
		mallocs(16)
		few, many := mallocs(16), mallocs(96)
		// Setting up and a context's end are the same in both; the runtime's own
		// goroutines may allocate a little at any time.
		if many > few+64 {
			t.Errorf("%d allocations for 16 extents, %d for 96", few, many)
		}
	})
}

// TestSourceChangesUnderAWindow: what the device sends then may be stale, so the file
// must fail.
func TestSourceChangesUnderAWindow(t *testing.T) {
	eachOp(t, func(t *testing.T, op string) {
		const size = 32 * mib
		for name, change := range map[string]func(string) error{
			"written": func(path string) error { return os.WriteFile(path, make([]byte, size), 0o600) },
			// A touch of the mapping beyond the new end would be SIGBUS.
			"truncated": func(path string) error { return os.Truncate(path, 8*mib) },
		} {
			t.Run(name, func(t *testing.T) {
				e := newEnds(t, op, size, 4*mib)
				f := &feed{t: t, size: size, most: 2 * size / mib}
				f.onLand = func(landed int) {
					if landed != 1 {
						return
					}
					awaitWindow(t)
					if err := change(e.path); err != nil {
						t.Error(err)
					}
				}
				if err := e.pull(t, f); err != nil {
					t.Fatal(err)
				}
				if f.refused == 0 {
					t.Errorf("%d extents landed and %d were refused after the source changed", f.landed, f.refused)
				}
			})
		}
	})
}

// TestBrokenInTheMiddle breaks either queue pair: both ends return, nothing lands after
// that, and every object can be closed.
func TestBrokenInTheMiddle(t *testing.T) {
	eachOp(t, func(t *testing.T, op string) {
		for _, whose := range []string{"sender's", "receiver's"} {
			t.Run(whose, func(t *testing.T) {
				const size = 16 * mib
				e := newEnds(t, op, size, 4*mib)
				f := &feed{t: t, size: size, most: 1 << 20}
				f.onLand = func(landed int) {
					if landed != 10 {
						return
					}
					qp := e.puller.res.qp
					if whose == "sender's" {
						qp = e.server.res.qp
					}
					if err := qp.Fail(); err != nil {
						t.Error(err)
					}
				}
				var wc *ibverbs.WCError
				if err := e.pull(t, f); !errors.As(err, &wc) {
					t.Errorf("the receiver ended with %v; want a completion's error", err)
				}
				if err := e.puller.res.disconnect(); err != nil {
					t.Error(err)
				}
				ring := bytes.Clone(e.puller.res.data.Bytes())
				e.cancel()
				if !bytes.Equal(ring, e.puller.res.data.Bytes()) {
					t.Error("something landed after the queue pair was destroyed")
				}
			})
		}
	})
}

// answerWith serves one request with what a hostile sender makes of the answer.
func answerWith(t *testing.T, s *server, spoil func(r wire.Request, a *wire.Answer, wr *ibverbs.SendWR)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		n, err := s.res.cq.WaitPoll(ctx, s.wcs[:1])
		if err != nil {
			t.Error(err)
			return
		}
		if n == 0 || s.wcs[0].ID&recvID == 0 {
			continue
		}
		r, err := wire.ParseRequest(s.res.head(s.sends + int(s.wcs[0].ID&^recvID)))
		if err != nil {
			t.Error(err)
		}
		a := wire.Answer{ID: r.ID, Length: r.Length, RKey: s.res.data.RKey(), Addr: s.res.data.Addr(0)}
		wr := ibverbs.SendWR{Opcode: ibverbs.OpSend, Flags: ibverbs.SendSignaled, NumSGE: 1}
		wr.SGE[0] = s.res.headSGE(0)
		spoil(r, &a, &wr)
		a.Put(s.res.head(0))
		if _, err := s.res.qp.PostSend([]ibverbs.SendWR{wr}); err != nil {
			t.Error(err)
		}
		return
	}
}

// TestHostileSender: whatever an answer says, the receiver ends its lane and lands
// nothing.
func TestHostileSender(t *testing.T) {
	type spoil = func(wire.Request, *wire.Answer, *ibverbs.SendWR)
	for _, c := range []struct {
		name, op string
		spoil    spoil
		want     error
	}{
		{"an answer to no request", OpRead, func(_ wire.Request, a *wire.Answer, _ *ibverbs.SendWR) { a.ID ^= 1 << 16 }, wire.ErrMalformed},
		{"an index beyond the ring", OpWrite, func(_ wire.Request, a *wire.Answer, _ *ibverbs.SendWR) { a.ID |= 0xffff }, wire.ErrMalformed},
		{"a byte too many", OpWrite, func(_ wire.Request, a *wire.Answer, _ *ibverbs.SendWR) { a.Length++ }, wire.ErrMalformed},
		{"no bytes behind it", OpSend, func(wire.Request, *wire.Answer, *ibverbs.SendWR) {}, wire.ErrMalformed},
		{"half a header", OpRead, func(_ wire.Request, _ *wire.Answer, wr *ibverbs.SendWR) { wr.SGE[0].Length = wire.HeaderSize / 2 }, wire.ErrMalformed},
		{"an rkey of nothing", OpRead, func(_ wire.Request, a *wire.Answer, _ *ibverbs.SendWR) { a.RKey ^= 0x5500 }, nil},
		{"an address beyond the region", OpRead, func(_ wire.Request, a *wire.Answer, _ *ibverbs.SendWR) { a.Addr += 1 << 40 }, nil},
		{"an rkey of a region that is not remote", OpRead, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			pl, s := connected(t, c.op, "", 4, nil, nil)
			if c.spoil == nil {
				c.spoil = func(_ wire.Request, a *wire.Answer, _ *ibverbs.SendWR) {
					a.RKey, a.Addr = s.res.heads.RKey(), s.res.heads.Addr(0)
				}
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				answerWith(t, s, c.spoil)
			}()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			f := &feed{t: t, size: 64, most: 1}
			err := pl.Pull(ctx, f)
			var wc *ibverbs.WCError
			if c.want != nil && !errors.Is(err, c.want) || c.want == nil && !errors.As(err, &wc) {
				t.Errorf("the receiver ended with %v", err)
			}
			if f.landed > 0 {
				t.Error("something landed")
			}
			<-done
			if err := errors.Join(pl.Close(), s.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHostileReceiver: a request that names memory which is not the receiver's ring,
// or is no request, ends the sender's lane.
func TestHostileReceiver(t *testing.T) {
	for _, c := range []struct {
		name, op string
		r        wire.Request
	}{
		{"an rkey of nothing", OpWrite, wire.Request{Length: 4096, RKey: 0x5500, Addr: 4096}},
		{"more than the file has", OpRead, wire.Request{Length: 8192}},
		{"an index beyond what was agreed", OpRead, wire.Request{ID: 999, Length: 4096}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "src")
			if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
				t.Fatal(err)
			}
			src, err := transfer.OpenSource([]string{path}, transfer.SourceOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := src.Next(); err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			pl, s := connected(t, c.op, "", 4, nil, nil)
			c.r.Put(pl.res.head(0))
			wr := ibverbs.SendWR{Opcode: ibverbs.OpSend, Flags: ibverbs.SendSignaled, NumSGE: 1}
			wr.SGE[0] = pl.res.headSGE(0)
			if _, err := pl.res.qp.PostSend([]ibverbs.SendWR{wr}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := s.Serve(ctx, src); err == nil || ctx.Err() != nil {
				t.Errorf("the sender ended with %v", err)
			}
			if err := errors.Join(pl.Close(), s.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}
