package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

func TestOpenSourceRefuses(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("f"), "one")
	os.Mkdir(at("d"), 0o755)
	write(t, at("d/f"), "two")
	write(t, at("new\nline"), "")
	write(t, at("not\xffUTF-8"), "")
	syscall.Mkfifo(at("fifo"), 0o600)
	for _, c := range []struct {
		paths []string
		code  Code
		words string
	}{
		{[]string{at("nowhere")}, CodeLocalIO, "no such file"},
		{[]string{at("f"), at("nowhere")}, CodeLocalIO, "no such file"},
		{[]string{"/"}, CodeUsage, "no name"},
		{[]string{at("fifo")}, CodeUsage, "not a regular file"},
		{[]string{"/dev/null"}, CodeUsage, "not a regular file"},
		{[]string{at("f"), at("d/f")}, CodeUsage, "both land as f"},
		{[]string{at("f"), at("f")}, CodeUsage, "both land as f"},
		{[]string{at("new\nline")}, CodeUsage, `\n`},
		{[]string{at("not\xffUTF-8")}, CodeUsage, `\xff`},
	} {
		before := openFiles(t)
		s, err := OpenSource(c.paths, SourceOptions{})
		if s != nil {
			t.Errorf("%q: opened", c.paths)
		}
		wantCode(t, err, c.code, c.words)
		if after := openFiles(t); after != before {
			t.Errorf("%q: %d descriptors, %d before", c.paths, after, before)
		}
	}
}

// openFiles counts this process's descriptors of files that have a name.
func openFiles(t *testing.T) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && filepath.IsAbs(to) && !bytes.HasPrefix([]byte(to), []byte("/proc/")) {
			n++
		}
	}
	return n
}

// testSource is a source of one file, as a transfer would use it.
type testSource struct {
	*Source
	path   string
	failed []error
}

func source(t *testing.T, words string) *testSource {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, words)
	s, err := OpenSource([]string{path}, SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if _, err := s.Next(); err != nil {
		t.Fatal(err)
	}
	ts := &testSource{Source: s, path: path}
	s.extentSize = kib
	s.verify = digest.BLAKE3
	s.failed = func(_ uint32, err error) { ts.failed = append(ts.failed, err) }
	return ts
}

func TestSourceServesItsExtentsAlone(t *testing.T) {
	s := source(t, string(make([]byte, 2*kib+5)))
	buf := make([]byte, kib)
	for _, c := range []struct {
		r  wire.Request
		ok bool
	}{
		{wire.Request{Offset: 0, Length: kib}, true},
		{wire.Request{Offset: kib, Length: kib}, true},
		{wire.Request{Offset: 2 * kib, Length: 5}, true},
		{wire.Request{Offset: 2 * kib, Length: kib}, false},
		{wire.Request{Offset: 2 * kib, Length: 4}, false},
		{wire.Request{Offset: 1, Length: kib}, false},
		{wire.Request{Offset: 0, Length: kib - 1}, false},
		{wire.Request{Offset: 0, Length: 0}, false},
		{wire.Request{Offset: 3 * kib, Length: 0}, false},
		{wire.Request{Offset: 3 * kib, Length: 1}, false},
		{wire.Request{Offset: wire.MaxSize, Length: kib}, false},
		{wire.Request{Offset: -kib, Length: kib}, false},
		{wire.Request{File: 1, Offset: 0, Length: kib}, false},
		{wire.Request{Count: 1, Offset: 0, Length: kib}, false},
		{wire.Request{File: 1 << 31, Offset: 0, Length: kib}, false},
	} {
		ok, err := s.Read(c.r, buf[:min(c.r.Length, kib)])
		if ok != c.ok || (err == nil) != c.ok {
			t.Errorf("read of %+v: %v, %v", c.r, ok, err)
		}
		f, err := s.File(c.r)
		if (f != nil) != c.ok || (err == nil) != c.ok {
			t.Errorf("file for %+v: %v, %v", c.r, f, err)
		}
	}
	if len(s.failed) > 0 {
		t.Errorf("a wrong request failed the file: %v", s.failed)
	}
}

// TestTruncatedSourceFailsOnce: every way to its bytes notices, the user hears it
// once.
func TestTruncatedSourceFailsOnce(t *testing.T) {
	r := wire.Request{Offset: kib, Length: kib}
	buf := make([]byte, kib)
	for name, touch := range map[string]func(*testSource) bool{
		"read":   func(s *testSource) bool { ok, _ := s.Read(r, buf); return ok },
		"reread": func(s *testSource) bool { return s.Reread(r, buf) },
	} {
		s := source(t, string(make([]byte, 2*kib)))
		if ok, _ := s.Read(wire.Request{Length: kib}, buf); !ok {
			t.Fatal("it was not served")
		}
		os.Truncate(s.path, kib+1)
		for range 2 {
			if touch(s) {
				t.Errorf("%s: it was served", name)
			}
		}
		if ok, err := s.Read(wire.Request{Length: kib}, buf); ok || err != nil {
			t.Errorf("%s: served after that: %v, %v", name, ok, err)
		}
		if f, err := s.File(wire.Request{Length: kib}); f != nil || err != nil {
			t.Errorf("%s: opened after that: %v, %v", name, f, err)
		}
		if _, ok := s.vouch(s.files[0]); ok {
			t.Errorf("%s: vouched for", name)
		}
		if len(s.failed) != 1 {
			t.Fatalf("%s: failed with %v", name, s.failed)
		}
		wantCode(t, s.failed[0], CodeLocalIO, "truncated", "2048", s.path)
	}
}

func TestChangedSourceIsNotVouchedFor(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"written to": func(p string) error {
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := f.Write([]byte("X")); err != nil {
				return err
			}
			return os.Chtimes(p, time.Time{}, time.Unix(1, 1))
		},
		"written to, its mtime put back": func(p string) error {
			st, err := os.Stat(p)
			if err != nil {
				return err
			}
			return os.Chtimes(p, time.Time{}, st.ModTime())
		},
		"appended to": func(p string) error { return os.Truncate(p, 99) },
	} {
		s := source(t, "hello")
		// The clock of ctime is a coarse one: let it pass the file's own.
		for begun := ctime(t, s.path); begun == now(t); {
			time.Sleep(time.Millisecond)
		}
		serveAll(t, s)
		if err := change(s.path); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.vouch(s.files[0]); ok || len(s.failed) != 1 {
			t.Errorf("%s: vouched for, %v", name, s.failed)
			continue
		}
		wantCode(t, s.failed[0], CodeLocalIO, "changed", "at rest")
	}
}

func ctime(t *testing.T, path string) syscall.Timespec {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ctim
}

// now is the ctime that a file made now has.
func now(t *testing.T) syscall.Timespec {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return ctime(t, f.Name())
}

// serveAll does what a lane does with a file of one extent.
func serveAll(t *testing.T, s *testSource) {
	t.Helper()
	size := uint32(s.files[0].entry.Size)
	buf := make([]byte, size)
	r := wire.Request{Length: size}
	if ok, err := s.Read(r, buf); !ok || err != nil {
		t.Fatal(ok, err)
	}
	s.Sent(r, buf)
}

func TestVouchGivesEachDigestOnce(t *testing.T) {
	s := source(t, "hello")
	serveAll(t, s)
	have, ok := s.vouch(s.files[0])
	if !ok || len(have) != 1 || have[0] != digest.BLAKE3.Extent([]byte("hello"), 0).Sum {
		t.Errorf("%v, %v", have, ok)
	}
	if have, ok = s.vouch(s.files[0]); !ok || len(have) != 0 {
		t.Errorf("again: %v, %v", have, ok)
	}
	serveAll(t, s)
	if have, ok = s.vouch(s.files[0]); !ok || len(have) != 1 {
		t.Errorf("after it was served again: %v, %v", have, ok)
	}
}

// TestUnverifiedExtentsAreForgotten when they have left.
func TestUnverifiedExtentsAreForgotten(t *testing.T) {
	s := source(t, string(make([]byte, 3*kib)))
	s.verify = digest.None
	for n := range int64(3) {
		r, buf := wire.Request{Offset: n * kib, Length: kib}, make([]byte, kib)
		if ok, err := s.Read(r, buf); !ok || err != nil {
			t.Fatal(ok, err)
		}
		s.Sent(r, buf)
		if f, err := s.File(r); f == nil || err != nil {
			t.Fatal(f, err)
		}
		s.Reread(r, buf)
	}
	if f := s.files[0]; len(f.unhashed)+len(f.have) > 0 {
		t.Errorf("%d extents are remembered", len(f.unhashed)+len(f.have))
	}
}

// TestVouchWaitsForDigestsOnTheirWay, for a while: who meddles with a lane must not
// hold it up.
func TestVouchWaitsForDigestsOnTheirWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := source(t, "hello")
		r, buf := wire.Request{Length: 5}, make([]byte, 5)
		if have, ok := s.vouch(s.files[0]); !ok || len(have) != 0 {
			t.Errorf("never served: %v, %v", have, ok)
		}
		s.Read(r, buf)
		go func() {
			time.Sleep(digestLimit / 2)
			s.Sent(r, buf)
		}()
		if have, ok := s.vouch(s.files[0]); !ok || len(have) != 1 {
			t.Errorf("%v, %v", have, ok)
		}
		s.Read(r, buf)
		if have, ok := s.vouch(s.files[0]); !ok || len(have) != 0 {
			t.Errorf("never sent: %v, %v", have, ok)
		}
		go func() {
			time.Sleep(digestLimit / 2)
			s.giveUp()
		}()
		began := time.Now()
		if have, ok := s.vouch(s.files[0]); ok || time.Since(began) != digestLimit/2 {
			t.Errorf("given up: %v after %v", have, time.Since(began))
		}
		if len(s.failed) > 0 {
			t.Errorf("it was reported as failed: %v", s.failed)
		}
		synctest.Wait()
	})
}

// TestVersionOutlivesAMount, so that a transfer goes on after one, and nothing else.
func TestVersionOutlivesAMount(t *testing.T) {
	was := stamp{dev: 1, ino: 2, size: 3, mtime: unix.Timespec{Sec: 4}, ctime: unix.Timespec{Sec: 5}}
	// Ledgers have it, which outlive the program that wrote them.
	h := fnv.New64a()
	if fmt.Fprint(h, was.ino, was.size, was.mtime, was.ctime); was.version() != h.Sum64() {
		t.Error("it is another one than it was always")
	}
	now := was
	now.dev++
	if now.version() != was.version() {
		t.Error("it is another one")
	}
	for _, change := range []func(*stamp){
		func(s *stamp) { s.ino++ }, func(s *stamp) { s.size++ }, func(s *stamp) { s.mtime.Nsec++ }, func(s *stamp) { s.ctime.Nsec++ },
	} {
		now := was
		if change(&now); now.version() == was.version() {
			t.Errorf("%+v is the same", now)
		}
	}
}

// TestEmptyFileThatCannotBeRead is no empty file: its source would be removed for nothing.
func TestEmptyFileThatCannotBeRead(t *testing.T) {
	src, err := OpenSource([]string{"/proc/self/mem"}, SourceOptions{}) // of size 0, and nothing lies at 0
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if f, err := src.walk.next(); err != nil || CodeOf(f.err) != CodeLocalIO || !errors.Is(f.err, syscall.EIO) {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestNamesBeforeAnErrorDoNotHideIt: a directory of which some can't be read is not whole.
func TestNamesBeforeAnErrorDoNotHideIt(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "x")
	src, err := OpenSource([]string{dir}, SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := src.walk.next(); err != nil { // the directory itself
		t.Fatal(err)
	}
	reads := 0
	src.walk.stack[0].read = func(int) ([]string, error) {
		if reads++; reads > 1 {
			return nil, io.EOF
		}
		return []string{"a"}, syscall.EIO
	}
	a, err := src.walk.next()
	if err != nil || a.err != nil || filepath.Base(a.path) != "a" {
		t.Fatalf("%+v, %v", a, err)
	}
	rest, err := src.walk.next()
	if err != nil || !errors.Is(rest.err, syscall.EIO) || rest.path != dir {
		t.Fatalf("%+v, %v", rest, err)
	}
	if _, err := src.walk.next(); err != io.EOF {
		t.Error(err)
	}
}

// TestFewFilesOpen: a sender that may have few files open lists no more than it can have open,
// whatever the receiver lets come.
func TestFewFilesOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := filepath.Join(t.TempDir(), "tree")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range 60 {
			write(t, filepath.Join(root, fmt.Sprint(i)), random(300*kib+i%4*kib))
		}
		e := treeEngine(t, root, SourceOptions{})
		e.Source.most = 5
		most := 0
		e.Source.walk.opt.Skip = func(string, bool) bool { // asked for each name
			e.Source.mu.Lock()
			defer e.Source.mu.Unlock()
			most = max(most, e.Source.open)
			return false
		}
		s, r := e.run(t, t.Context(), t.Context())
		for _, end := range []*end{s, r} {
			if end.err != nil || end.Files != 60 {
				t.Errorf("%d files, %v", end.Files, end.err)
			}
		}
		if most != 5 || e.Source.open != 0 {
			t.Errorf("%d were under way, want 5, and %d are in the end", most, e.Source.open)
		}
	})
}
