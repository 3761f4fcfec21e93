package transfer

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var longAgo = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)

// windowDir is a directory on a file system that has windows: a test that skipped
// where there is none would say nothing.
func windowDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "rdmaxfer-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func windowFile(t *testing.T, content string) *os.File {
	t.Helper()
	path := filepath.Join(windowDir(t), "src")
	write(t, path, content)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestWindowShowsTheFile(t *testing.T) {
	page := os.Getpagesize()
	content := random(3*page + 100)
	f := windowFile(t, content)
	for _, c := range []struct{ off, least, most, want int }{
		{0, 1, 10 * page, 3*page + 100},
		{0, 1, 2 * page, 2 * page},
		{2 * page, 1, 2 * page, page + 100},
		{3 * page, 100, page, 100},
	} {
		w, err := OpenWindow(f, int64(c.off), c.least, c.most)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		if got := w.Mapping(); !bytes.Equal(got, []byte(content[c.off:c.off+c.want])) {
			t.Errorf("%+v: %d bytes that are not the file's", c, len(got))
		}
		if err := w.Unchanged(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
		if err := w.Close(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestNoWindow(t *testing.T) {
	page := os.Getpagesize()
	f := windowFile(t, random(2*page))
	proc, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	for name, c := range map[string]struct {
		file       *os.File
		off, least int
	}{
		"too short":             {f, page, page + 1},
		"nothing there":         {f, 2 * page, 0},
		"beyond the end":        {f, 4 * page, 0},
		"no file system for it": {proc, 0, 0},
	} {
		if w, err := OpenWindow(c.file, int64(c.off), c.least, 4*page); !errors.Is(err, ErrNoWindow) {
			t.Errorf("%s: %v, %v; want ErrNoWindow", name, w, err)
		}
	}
	f.Close()
	if _, err := OpenWindow(f, 0, 0, page); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed file: %v", err)
	}
}

// TestWindowFillsNoHoles: what is not there takes no memory for being looked at.
func TestWindowFillsNoHoles(t *testing.T) {
	const size = 64 << 20
	f := windowFile(t, random(os.Getpagesize()))
	before := blocks(t, f)
	if err := os.Truncate(f.Name(), size); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWindow(f, 0, 1, size); !errors.Is(err, ErrNoWindow) {
		t.Errorf("%v; want ErrNoWindow", err)
	}
	if after := blocks(t, f); after != before {
		t.Errorf("%d blocks became %d", before, after)
	}
}

func blocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

// TestWindowNoticesChanges: pages of a window can be stale, so it is the inode that
// tells.
func TestWindowNoticesChanges(t *testing.T) {
	page := os.Getpagesize()
	for name, change := range map[string]func(path string) error{
		"truncated": func(path string) error { return os.Truncate(path, int64(page)) },
		"truncated and as long again": func(path string) error {
			if err := os.Truncate(path, 0); err != nil {
				return err
			}
			return os.Truncate(path, int64(2*page))
		},
		"longer":      func(path string) error { return os.Truncate(path, int64(3*page)) },
		"overwritten": func(path string) error { return os.WriteFile(path, []byte(random(2*page)), 0o600) },
		"mtime":       func(path string) error { return os.Chtimes(path, longAgo.Add(1), longAgo.Add(1)) },
	} {
		f := windowFile(t, random(2*page))
		// What is written within a tick of the file system's clock would keep its times.
		if err := os.Chtimes(f.Name(), longAgo, longAgo); err != nil {
			t.Fatal(err)
		}
		w, err := OpenWindow(f, 0, 1, 2*page)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := w.Unchanged(); err != nil {
			t.Errorf("%s: changed before anything was: %v", name, err)
		}
		if err := change(f.Name()); err != nil {
			t.Fatal(err)
		}
		if err := w.Unchanged(); err == nil || !strings.Contains(err.Error(), "changed") {
			t.Errorf("%s: %v; want it noticed", name, err)
		}
	}
}

func TestWindowOfASettledFile(t *testing.T) {
	f := windowFile(t, random(os.Getpagesize()))
	w, err := OpenWindow(f, 0, 1, os.Getpagesize())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	f.Close()
	if err := w.Unchanged(); err != nil {
		t.Errorf("a file that is closed has been settled, and yet: %v", err)
	}
}
