package transfer

import (
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// hardLinked makes a tree of a small file and a large one with three names each.
func hardLinked(t *testing.T) (root string) {
	root = filepath.Join(t.TempDir(), "tree")
	for _, dir := range []string{"a", "b"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(root, "small"), "x")
	write(t, filepath.Join(root, "large"), random(3*mib+5))
	for _, name := range []string{"small", "large"} {
		for _, dir := range []string{"a", "b"} {
			if err := os.Link(filepath.Join(root, name), filepath.Join(root, dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

// names counts the different files among the names of one.
func names(t *testing.T, dir, name string) int {
	var files []os.FileInfo
next:
	for _, path := range []string{name, "a/" + name, "b/" + name} {
		st, err := os.Lstat(filepath.Join(dir, "tree", path))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if os.SameFile(f, st) {
				continue next
			}
		}
		files = append(files, st)
	}
	return len(files)
}

func TestHardLinks(t *testing.T) {
	for _, keep := range []bool{true, false} {
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, nil)
				var err error
				if e.Source, err = OpenSource([]string{hardLinked(t)}, SourceOptions{HardLinks: keep}); err != nil {
					t.Fatal(err)
				}
				want, bytes := 1, int64(3*mib+6)
				if !keep {
					want, bytes = 3, 3*bytes
				}
				s, r := e.run(t, t.Context(), t.Context())
				for _, end := range []*end{s, r} {
					if end.err != nil || end.Files != 6 || end.Bytes != bytes {
						t.Errorf("%d files, %d bytes, %v", end.Files, end.Bytes, end.err)
					}
				}
				for _, name := range []string{"small", "large"} {
					if n := names(t, e.dir, name); n != want {
						t.Errorf("%s is %d files, want %d", name, n, want)
					}
				}
			})
		})
	}
}

// TestHardLinkOfALostFileIsLost too: what has its name at the destination is another.
func TestHardLinkOfALostFileIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil)
		var err error
		if e.Source, err = OpenSource([]string{hardLinked(t)}, SourceOptions{HardLinks: true}); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{"", "a", "b"} {
			if err := os.MkdirAll(filepath.Join(e.dir, "tree", dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, path := range []string{"small", "a/small", "b/small"} { // whichever comes first
			write(t, filepath.Join(e.dir, "tree", path), "another")
		}
		s, r := e.run(t, t.Context(), t.Context())
		for _, end := range []*end{s, r} {
			if CodeOf(end.err) != CodePartial || end.Files != 3 || end.Failed != 3 {
				t.Errorf("%d files, %d failed, %v", end.Files, end.Failed, end.err)
			}
		}
		if n := names(t, e.dir, "small"); n != 3 {
			t.Errorf("a name was given to a file that was there: %d files", n)
		}
		if n := names(t, e.dir, "large"); n != 1 {
			t.Errorf("large is %d files", n)
		}
	})
}

// TestHardLinkSaysWhichFileItIs by its path, whatever number a sender gives: what failed stands
// there as it stood before.
func TestHardLinkSaysWhichFileItIs(t *testing.T) {
	m := newManifest()
	m.lost[maphash.String(m.seed, "secret")] = CodeExists
	wantCode(t, m.lostFirst(&wire.Entry{File: 3, Path: "y", Kind: wire.HardLink, Link: "secret", First: 2}), CodeExists, "did not land")
	if err := m.lostFirst(&wire.Entry{File: 3, Path: "y", Kind: wire.HardLink, Link: "x", First: 2}); err != nil {
		t.Error(err)
	}
}
