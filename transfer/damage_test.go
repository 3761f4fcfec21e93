package transfer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// TestDamagedPackIsAskedForAgain, and what was written of it before does not stay.
func TestDamagedPackIsAskedForAgain(t *testing.T) {
	content := random(5000)
	damaged := false
	s, r := transfer(t, func(a *memAnswer) error {
		if a.r.Count > 0 && !damaged {
			damaged = true
			a.p[100] ^= 1
		}
		return nil
	}, map[string]string{"f": content, "g": content}, [2]string{"f", content}, [2]string{"g", content})
	if s.err != nil || r.err != nil || !damaged {
		t.Error(s.err, r.err, damaged)
	}
}

// TestDamagedHoleIsAHoleAgain: leaving zeroes out must not leave what came before.
func TestDamagedHoleIsAHoleAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := filepath.Join(t.TempDir(), "f")
		write(t, src, "")
		if err := os.Truncate(src, 3*mib); err != nil {
			t.Fatal(err)
		}
		e := newEngine(t, flipper(1, mib))
		var err error
		if e.Source, err = OpenSource([]string{src}, SourceOptions{}); err != nil {
			t.Fatal(err)
		}
		if s, r := e.run(t, t.Context(), t.Context()); s.err != nil || r.err != nil {
			t.Error(s.err, r.err)
		}
		wantFiles(t, e.dir, map[string]string{"f": string(make([]byte, 3*mib))})
	})
}

// TestNoHoleInAnotherFile: the number of a descriptor that is closed may be another's.
func TestNoHoleInAnotherFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := punch(f, 0, hole); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

// TestCheckpointAfterTheEnd of a file must not take back that it was finished.
func TestCheckpointAfterTheEnd(t *testing.T) {
	d, _ := into(t, OverwriteNever)
	s := stage(t, d)
	e := wire.Entry{Path: "f", Size: 2 * blockSize, Mode: 0o600, MTimeNS: 5, Version: 1}
	l := create(t, s, e)
	if err := l.(*part).file.Truncate(e.Size); err != nil {
		t.Fatal(err)
	}
	l.Verified(0, Digest{1})
	l.Verified(1, Digest{2})
	if err := s.Commit([]Whole{{Landing: l}})[0]; err != nil {
		t.Fatal(err)
	}
	s.Close(true) // with its last checkpoint
	s = stage(t, d)
	if done, err := s.Check(&e); done == nil || err != nil {
		t.Errorf("the file that landed is not known: %v, %v", done, err)
	}
	s.Close(false)
}

// lastBlock is a sink that ends the transfer when n blocks are there.
type lastBlock struct {
	Sink
	n    int
	stop func()
}

func (s *lastBlock) Begin(id [16]byte) (Destination, error) {
	d, err := s.Sink.Begin(id)
	return lastBlockIn{d, s}, err
}

type lastBlockIn struct {
	Destination
	s *lastBlock
}

func (d lastBlockIn) Commit(list []Whole) []error {
	for i, w := range list {
		list[i].Landing = w.Landing.(lastBlockOf).Landing
	}
	return d.Destination.Commit(list)
}

func (d lastBlockIn) Create(e *wire.Entry) (Landing, error) {
	l, err := d.Destination.Create(e)
	return lastBlockOf{l, d.s}, err
}

type lastBlockOf struct {
	Landing
	s *lastBlock
}

func (l lastBlockOf) Verified(b uint32, d Digest) {
	l.Landing.Verified(b, d)
	if l.s.n--; l.s.n == 0 {
		l.s.stop()
	}
}

// TestResumeWithNothingMissing: every block had landed, and nobody had vouched.
func TestResumeWithNothingMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := random(2 * blockSize)
		e := newEngine(t, nil, [2]string{"f", content})
		paths, sink := e.Source.walk.roots, e.Sink
		ctx, stop := context.WithCancelCause(t.Context())
		e.Sink = &lastBlock{sink, 2, func() { stop(errors.New("killed")) }}
		e.run(t, t.Context(), ctx)

		e.Sink = sink
		var err error
		if e.Source, err = OpenSource(paths, SourceOptions{}); err != nil {
			t.Fatal(err)
		}
		s, r := e.run(t, t.Context(), t.Context())
		if s.err != nil || r.err != nil {
			t.Error(s.err, r.err)
		}
		wantFiles(t, e.dir, map[string]string{"f": content})
	})
}

// TestResumeOfWhatHasHolesNow: what a file has of blocks, and with it whether its zeroes are
// left out, may change without a new version of it.
func TestResumeOfWhatHasHolesNow(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	s := stage(t, d)
	e := wire.Entry{Path: "f", Size: 2 * blockSize, Mode: 0o600, MTimeNS: 5, Version: 1}
	block := random(blockSize)
	l := create(t, s, e)
	if _, err := l.WriteAt([]byte(block), 0); err != nil {
		t.Fatal(err)
	}
	l.Verified(0, Digest{1})
	l.Leave()
	if err := s.Close(true); err != nil {
		t.Fatal(err)
	}
	s = stage(t, d)
	e.Sparse = true
	l, blocks, err := s.Resume(&e)
	if l == nil || len(blocks) != 1 || err != nil {
		t.Fatal(l, blocks, err)
	}
	rest := string(make([]byte, blockSize))
	if _, err := l.WriteAt([]byte(rest), blockSize); err != nil {
		t.Fatal(err)
	}
	if err := commitOne(t, s, l); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{"f": block + rest})
}

// TestPartOfAnotherLengthDoesNotLand, while a stream lands with what it has.
func TestPartOfAnotherLengthDoesNotLand(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	s := stage(t, d)
	var whole []Whole
	for _, e := range []wire.Entry{{Path: "f", Size: mib}, {Path: "g", Size: mib}, {Path: "stream", Kind: wire.Stream}} {
		e.Mode = 0o600
		whole = append(whole, Whole{Landing: create(t, s, e)})
	}
	for i, n := range []int{mib - 1, mib, 5} {
		if _, err := whole[i].WriteAt([]byte(random(n)), 0); err != nil {
			t.Fatal(err)
		}
	}
	for i, err := range s.Commit(whole) {
		if i == 0 {
			wantCode(t, err, CodeIntegrity, "bytes")
		} else if err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(false); err != nil {
		t.Error(err)
	}
	wantFiles(t, dir, map[string]string{"g": random(mib), "stream": random(5)})
}

// endless is a stream that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestLateRequestDoesNotFailAStream: another lane landed what it asks for.
func TestLateRequestDoesNotFailAStream(t *testing.T) {
	src, err := OpenSource([]string{StdinPath}, SourceOptions{Stdin: endless{}})
	if err != nil {
		t.Fatal(err)
	}
	found, err := src.walk.next()
	if err != nil {
		t.Fatal(err)
	}
	st := src.openStream(found)
	src.add(found, st)
	src.failed = func(_ uint32, err error) { t.Errorf("the stream has failed: %v", err) }
	full := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		st.pump(func(size int64, _ bool) error {
			if size == streamWindow {
				close(full)
			}
			return nil
		})
		close(ended)
	}()
	<-full
	if err := st.forget(8); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, mib)
	if ok, err := src.Read(wire.Request{Length: mib}, buf); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if ok, err := src.Read(wire.Request{Offset: 8 * mib, Length: mib}, buf); !ok || err != nil {
		t.Errorf("what is kept: %v, %v", ok, err)
	}
	src.giveUp() // with the window full again
	<-ended
}

// TestDirectoriesThatCannotBeMade fail with all that is in them, and nothing else does.
func TestDirectoriesThatCannotBeMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := filepath.Join(t.TempDir(), "tree")
		if err := os.MkdirAll(filepath.Join(root, "a/b"), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(root, "a/b/f"), "deep")
		write(t, filepath.Join(root, "other"), "other")
		e := treeEngine(t, root, SourceOptions{})
		if err := os.Mkdir(filepath.Join(e.dir, "tree"), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(e.dir, "tree/a"), "in the way")
		s, r := e.run(t, t.Context(), t.Context())
		wantCode(t, s.err, CodePartial, "did not arrive")
		wantCode(t, r.err, CodePartial, "did not arrive")
		if b, _ := os.ReadFile(filepath.Join(e.dir, "tree/other")); string(b) != "other" {
			t.Errorf("the file beside it holds %q", b)
		}
	})
}

func TestLinksStayInside(t *testing.T) {
	for _, c := range []struct {
		dir, link string
		ok        bool
	}{
		{"a/b", "f", true}, {"a/b", "../f", true}, {"a/b", "../../f", true}, {".", "a/b", true},
		{"a/b", "c../d", true}, {"a/b", "..c", true},
		{"a/b", "../../../f", false}, {".", "..", false}, {".", "/etc", false}, {"a", "/", false},
		{".", "a/up/../secret", false}, // up may be a link itself
	} {
		if ok := inside(c.dir, c.link); ok != c.ok {
			t.Errorf("%s in %s: %v", c.link, c.dir, ok)
		}
	}
}

// TestPackOfALargeFile is more than a lane has room for.
func TestPackOfALargeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, random(5*mib))
	src, err := OpenSource([]string{path}, SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := src.Next(); err != nil {
		t.Fatal(err)
	}
	if ok, err := src.Read(wire.Request{Count: 1, Length: 5 * mib}, make([]byte, mib)); ok || !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("%v, %v", ok, err)
	}
}
