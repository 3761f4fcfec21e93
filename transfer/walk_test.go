package transfer

import (
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// walkOf gives a walk of a directory that comes upon these names, and has come to the first of
// them: what is behind it was looked at.
func walkOf(t *testing.T, dir string, names ...string) *Source {
	t.Helper()
	src, err := OpenSource([]string{dir}, SourceOptions{Links: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(src.Close)
	for i := range 2 {
		if f, err := src.walk.next(); err != nil || f.err != nil {
			t.Fatalf("%+v, %v", f, err)
		}
		if i == 0 {
			src.walk.stack[0].read = func(int) ([]string, error) { return names, io.EOF }
		}
	}
	return src
}

// TestTimesBeyondAnEntry are at its end.
func TestTimesBeyondAnEntry(t *testing.T) {
	for sec, want := range map[int64]int64{0: 5, -1: 5 - 1e9, 1 << 33: 1<<33*1e9 + 5, 1 << 34: math.MaxInt64, -1 << 34: math.MinInt64} {
		if got := nanoseconds(unix.Timespec{Sec: sec, Nsec: 5}); got != want {
			t.Errorf("%d s: %d, want %d", sec, got, want)
		}
	}
}

// TestGlanceGrowsOld: a file is described as it is when its turn comes.
func TestGlanceGrowsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "first"), "x")
		write(t, filepath.Join(dir, "log"), "one line")
		write(t, filepath.Join(dir, "last"), "")
		src := walkOf(t, dir, "first", "log", "last")
		time.Sleep(time.Hour) // the first is large
		write(t, filepath.Join(dir, "log"), "one line, two lines")
		f, err := src.walk.next()
		if err != nil || f.err != nil || f.entry.Size != 19 {
			t.Fatalf("%+v, %v", f, err)
		}
		if err := src.add(f, nil).stillThere(); err != nil {
			t.Error(err)
		}
		// Where looks take long, each name is looked at once more, and not all of them for each.
		if left := len(src.walk.stack[0].ahead); left != 1 {
			t.Errorf("%d glances are left of the first look, want 1", left)
		}
	})
}

// TestEmptyFilesDoNotStayOpen: there may be thousands that wait for their receipts.
func TestEmptyFilesDoNotStayOpen(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "first"), "")
	src := walkOf(t, dir, "first", "x")
	f := src.add(&found{path: filepath.Join(dir, "first"), stamp: stampOfPath(t, filepath.Join(dir, "first"))}, nil)
	before := openFiles(t)
	if err := f.stillThere(); err != nil {
		t.Error(err)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func stampOfPath(t *testing.T, path string) stamp {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return stampOf(&st)
}

// TestDeepTree of more directories than entries may be under way at the receiver.
func TestDeepTree(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = 128 // of which a quarter may be under way
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	synctest.Test(t, func(t *testing.T) {
		root := filepath.Join(t.TempDir(), "tree")
		deep := filepath.Join(root, strings.Repeat("d/", 50))
		if err := os.MkdirAll(deep, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(deep, "f"), "deep")
		write(t, filepath.Join(root, "g"), "shallow")
		e := treeEngine(t, root, SourceOptions{})
		s, r := e.run(t, t.Context(), t.Context())
		for _, end := range []*end{s, r} {
			if end.err != nil || end.Files != 2 {
				t.Errorf("%d files, %v", end.Files, end.err)
			}
		}
	})
}

// TestGrantsNeverShrink though directories are left that have not settled.
func TestGrantsNeverShrink(t *testing.T) {
	m := newManifest()
	m.most, m.granted = 64, 64
	m.entries = 64
	m.dirs = make([]*inboundDir, 60)
	granted, news := m.grant(64) // 60 directories, one in the other, and four files
	if !news || granted != 124 {
		t.Errorf("%d may come (%t), want 124", granted, news)
	}
	m.dirs = nil
	if granted, news := m.grant(60); news {
		t.Errorf("and then %d", granted)
	}
}

// TestSourcesThatAreSwapped between a look at them and their turn: nothing is sent that lies
// elsewhere, and nobody is waited for.
func TestSourcesThatAreSwapped(t *testing.T) {
	secrets := t.TempDir()
	write(t, filepath.Join(secrets, "secret"), "secret")
	link := func(to string) func(string) error {
		return func(path string) error { return os.Symlink(to, path) }
	}
	fifo := func(path string) error { return syscall.Mkfifo(path, 0o600) }
	empty := func(path string) error { return os.WriteFile(path, nil, 0o600) }
	mkdir := func(path string) error { return os.Mkdir(path, 0o700) }
	for name, c := range map[string]struct{ was, is func(path string) error }{
		"file to link":          {empty, link(filepath.Join(secrets, "secret"))},
		"file to link to /proc": {empty, link("/proc/version")},
		"file to fifo":          {empty, fifo},
		"file to directory":     {empty, mkdir},
		"directory to link":     {mkdir, link(secrets)},
		"directory to fifo":     {mkdir, fifo},
		"directory to file":     {mkdir, empty},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "x")
		write(t, filepath.Join(dir, "first"), "x")
		if err := c.was(path); err != nil {
			t.Fatal(err)
		}
		src := walkOf(t, dir, "first", "x")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := c.is(path); err != nil {
			t.Fatal(err)
		}
		f, err := src.walk.next()
		if err != nil {
			t.Fatal(err)
		}
		if f.err == nil {
			t.Errorf("%s: %+v", name, f)
		}
		if f, err := src.walk.next(); err != io.EOF {
			t.Errorf("%s: and then %+v, %v", name, f, err)
		}
	}
}

// TestEmptyFileThatIsWrittenTo has a size by now, and is sent as any file.
func TestEmptyFileThatIsWrittenTo(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "first"), "x")
	write(t, filepath.Join(dir, "x"), "")
	src := walkOf(t, dir, "first", "x")
	write(t, filepath.Join(dir, "x"), "hello")
	f, err := src.walk.next()
	if err != nil || f.err != nil || f.entry.Kind != wire.File || f.entry.Size != 5 {
		t.Fatalf("%+v, %v", f, err)
	}
	if err := src.add(f, nil).stillThere(); err != nil {
		t.Error(err)
	}
}

// TestStreamOfAWalkIsClosed by who took it, or by the walk.
func TestStreamOfAWalkIsClosed(t *testing.T) {
	for _, taken := range []bool{false, true} {
		src, err := OpenSource([]string{"/proc/self/status"}, SourceOptions{})
		if err != nil {
			t.Fatal(err)
		}
		f, err := src.walk.next()
		if err != nil || f.err != nil || f.entry.Kind != wire.Stream {
			t.Fatalf("%+v, %v", f, err)
		}
		file := src.walk.once
		if taken {
			src.add(f, src.openStream(f))
		}
		src.Close()
		if _, err := file.Stat(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("taken %t: %v", taken, err)
		}
	}
}

// TestWhatNoPeerTakes is left out, with what is in it, and the rest is sent.
func TestWhatNoPeerTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := filepath.Join(t.TempDir(), "tree")
		for _, dir := range []string{"good", "bad"} {
			if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(root, dir, "f"), "x")
		}
		write(t, filepath.Join(root, "attr"), "x")
		for _, err := range []error{
			os.Symlink("\xff", filepath.Join(root, "link")),
			unix.Setxattr(filepath.Join(root, "attr"), "user.\xff", nil, 0),
			unix.Setxattr(filepath.Join(root, "bad"), "user.\xff", nil, 0),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		e := treeEngine(t, root, SourceOptions{Links: true, XAttrs: true})
		s, r := e.run(t, t.Context(), t.Context())
		wantCode(t, s.err, CodePartial, "3 of")
		wantCode(t, r.err, CodePartial)
		var left []string
		for _, f := range s.files {
			if f.Err != nil {
				wantCode(t, f.Err, CodeUsage, "can't be sent", `\xff`)
				left = append(left, filepath.Base(f.Path))
			}
		}
		slices.Sort(left)
		if !slices.Equal(left, []string{"attr", "bad", "link"}) {
			t.Errorf("left out: %q", left)
		}
		if b, err := os.ReadFile(filepath.Join(e.dir, "tree/good/f")); string(b) != "x" {
			t.Errorf("%q, %v", b, err)
		}
		if _, err := os.Stat(filepath.Join(e.dir, "tree/bad")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("bad: %v", err)
		}
	})
}
