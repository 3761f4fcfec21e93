package transfer

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestSourcesAreDeleted that have arrived, and no directory. When something failed,
// links stay too: what makes them durable may be what failed.
func TestSourcesAreDeleted(t *testing.T) {
	for _, c := range []struct{ exists, left int }{{0, 0}, {1, 6}} {
		synctest.Test(t, func(t *testing.T) {
			root := hardLinked(t)
			write(t, filepath.Join(root, "f"), "x")
			if err := os.Symlink("small", filepath.Join(root, "link")); err != nil {
				t.Fatal(err)
			}
			e := newEngine(t, nil)
			if c.exists > 0 {
				if err := os.Mkdir(filepath.Join(e.dir, "tree"), 0o755); err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(e.dir, "tree/f"), "another")
			}
			var err error
			if e.Source, err = OpenSource([]string{root}, SourceOptions{HardLinks: true, Links: true}); err != nil {
				t.Fatal(err)
			}
			e.Sender.DeleteSource = true
			s, r := e.run(t, t.Context(), t.Context())
			for _, end := range []*end{s, r} {
				if end.Failed != c.exists || (end.err != nil) != (c.exists > 0) {
					t.Errorf("%d failed, %v", end.Failed, end.err)
				}
			}
			var left []string
			for _, name := range []string{"small", "a/small", "b/small", "large", "a/large", "b/large", "link", "f"} {
				if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
					left = append(left, name)
				}
			}
			if len(left) != c.left {
				t.Errorf("left: %v, want %d", left, c.left)
			}
			for _, name := range []string{"a", "b"} {
				if _, err := os.Stat(filepath.Join(root, name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestWhatChangedIsNotDeleted, nor what has another's name, though it looks alike.
func TestWhatChangedIsNotDeleted(t *testing.T) {
	old := time.Unix(1e9, 0)
	for name, change := range map[string]func(path string) error{
		"nothing": func(string) error { return nil },
		"written": func(path string) error { return os.WriteFile(path, []byte("y"), 0o600) },
		"written and set back": func(path string) error {
			for was := changedAt(t, path); changedAt(t, path) == was; { // the kernel's clock has ticks
				if err := errors.Join(os.WriteFile(path, []byte("y"), 0o600), os.Chtimes(path, old, old)); err != nil {
					return err
				}
			}
			return nil
		},
		"replaced": func(path string) error {
			return errors.Join(os.Rename(path, path+"-"), os.Link(path+"-", path), os.WriteFile(path, []byte("z"), 0o600))
		},
		"a link": func(path string) error { return errors.Join(os.Rename(path, path+"-"), os.Symlink(path+"-", path)) },
		"gone":   os.Remove,
	} {
		path := filepath.Join(t.TempDir(), "f")
		write(t, path, "x")
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(path, path+"=another name"); err != nil { // no excuse for a change
			t.Fatal(err)
		}
		src, err := OpenSource([]string{path}, SourceOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := src.Next(); err != nil {
			t.Fatal(err)
		}
		if err := change(path); err != nil {
			t.Fatal(err)
		}
		err = src.files[0].remove(make(map[[2]uint64]stamp))
		_, there := os.Lstat(path)
		if name == "nothing" && (err != nil || there == nil) || name != "nothing" && CodeOf(err) != CodeLocalIO || name != "nothing" && name != "gone" && there != nil {
			t.Errorf("%s: %v, %v", name, err, there)
		}
		src.Close()
	}
}

// TestLaterNameIsOfWhatWasSent: what changed between two names of a file is not removed
// under the second, which is a link to what was sent.
func TestLaterNameIsOfWhatWasSent(t *testing.T) {
	for _, change := range []bool{false, true} {
		root, old := t.TempDir(), time.Unix(1e9, 0)
		a, b := filepath.Join(root, "a"), filepath.Join(root, "b")
		write(t, a, "x")
		if err := errors.Join(os.Chtimes(a, old, old), os.Link(a, b)); err != nil {
			t.Fatal(err)
		}
		src, err := OpenSource([]string{a, b}, SourceOptions{HardLinks: true})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		if _, err := src.Next(); err != nil {
			t.Fatal(err)
		}
		for was := changedAt(t, a); change && changedAt(t, a) == was; { // the kernel's clock has ticks
			if err := errors.Join(os.WriteFile(a, []byte("y"), 0o600), os.Chtimes(a, old, old)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := src.Next(); err != nil {
			t.Fatal(err)
		}
		for n, path := range []string{a, b} {
			err := src.files[uint32(n)].remove(make(map[[2]uint64]stamp))
			if n == 1 && !change {
				continue // removing the first changed the inode, which nobody noted here
			}
			if _, there := os.Lstat(path); (err != nil) != change || (there == nil) != change {
				t.Errorf("changed %v, name %d: %v, %v", change, n, err, there)
			}
		}
	}
}

// TestWhatIsReceivedOntoItselfIsNotDeleted: the link that is there already is the source.
func TestWhatIsReceivedOntoItselfIsNotDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil)
		root := filepath.Join(e.dir, "tree")
		link := filepath.Join(root, "link")
		if err := errors.Join(os.Mkdir(root, 0o755), os.Symlink("nowhere", link)); err != nil {
			t.Fatal(err)
		}
		var err error
		if e.Source, err = OpenSource([]string{root}, SourceOptions{Links: true}); err != nil {
			t.Fatal(err)
		}
		waitForTick(t, link)
		e.Sender.DeleteSource = true
		s, _ := e.run(t, t.Context(), t.Context())
		wantCode(t, s.err, CodePartial, "not what was sent any more")
		if _, err := os.Lstat(link); err != nil {
			t.Error(err)
		}
	})
}

// TestNamedLinkIsNotDeleted, nor what it leads to, which was sent: who sends "link" may mean
// either.
func TestNamedLinkIsNotDeleted(t *testing.T) {
	root := t.TempDir()
	a, link := filepath.Join(root, "a"), filepath.Join(root, "link")
	write(t, a, "x")
	if err := os.Symlink(a, link); err != nil {
		t.Fatal(err)
	}
	src, err := OpenSource([]string{link}, SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := src.Next(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, src.files[0].remove(make(map[[2]uint64]stamp)), CodeLocalIO, "is a link")
	for _, path := range []string{a, link} {
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
}

// waitForTick waits until a change of what path names would be another time of it: the
// kernel's clock has ticks.
func waitForTick(t *testing.T, path string) {
	t.Helper()
	was := changedAt(t, path)
	for other := filepath.Join(t.TempDir(), "f"); ; {
		write(t, other, "x")
		if changedAt(t, other) != was {
			return
		}
	}
}

// TestEachSourceLeftIsNamed, and a stream has none.
func TestEachSourceLeftIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil, [2]string{"f", "x"}, [2]string{"g", "y"}, [2]string{"h", random(mib)})
		e.Sender.DeleteSource = true
		roots := e.Source.walk.roots
		e.lane.meddle = func(a *memAnswer) (err error) { // small files, f and g, have been read and compared
			for n := a.r.File; n < a.r.File+a.r.Count; n++ {
				err = errors.Join(err, os.Chtimes(roots[n], time.Unix(1, 1), time.Unix(1, 1)))
			}
			return err
		}
		s, _ := e.run(t, t.Context(), t.Context())
		wantCode(t, s.err, CodePartial, "2 of 3")
		left := 0
		for _, f := range s.files {
			if f.Left != nil {
				left++
			}
		}
		if left != 2 {
			t.Errorf("%d of 2 are named: %+v", left, s.files)
		}
		if _, err := os.Lstat(roots[2]); err == nil {
			t.Error("h is still here")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil)
		e.Sender.DeleteSource = true
		e.Source.walk.roots = []string{StdinPath}
		s, _ := e.run(t, t.Context(), t.Context())
		wantCode(t, s.err, CodeUsage, "stream")
	})
}

// changedAt is when a file's inode was last changed.
func changedAt(t *testing.T, path string) unix.Timespec {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ctim
}

// TestNothingIsDeletedForAPromise: a receiver that keeps nothing, or that nobody asked
// to verify.
func TestNothingIsDeletedForAPromise(t *testing.T) {
	for name, spoil := range map[string]func(*engine){
		"discard":     func(e *engine) { e.Sink = Discard{} },
		"no sync":     func(e *engine) { e.Sink.(*Directory).NoSync = true },
		"no verified": func(e *engine) { e.Sender.Verify = VerifyNone },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, nil, [2]string{"f", "x"})
				e.Sender.DeleteSource = true
				spoil(e)
				s, _ := e.run(t, t.Context(), t.Context())
				wantCode(t, s.err, CodeUsage, "not deleted")
				if _, err := os.Stat(e.Source.walk.roots[0]); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestNothingIsDeletedBelowADirectoryThatFailed: its name may not be durable.
func TestNothingIsDeletedBelowADirectoryThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := filepath.Join(t.TempDir(), "tree")
		for _, dir := range []string{"good", "bad/inner"} {
			if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(root, dir, "f"), "x")
		}
		e := treeEngine(t, root, SourceOptions{})
		d := e.Sink.(*Directory)
		d.tells = false // each directory is synced by itself
		sync := d.fsync
		d.fsync = func(f *os.File) error {
			if st, err := f.Stat(); err == nil && st.IsDir() && filepath.Base(f.Name()) == "bad" {
				return unix.EIO
			}
			return sync(f)
		}
		e.Sender.DeleteSource = true
		s, _ := e.run(t, t.Context(), t.Context())
		wantCode(t, s.err, CodePartial)
		for dir, stays := range map[string]bool{"good": false, "bad/inner": true} {
			if _, err := os.Stat(filepath.Join(root, dir, "f")); (err == nil) != stays {
				t.Errorf("%s: %v", dir, err)
			}
		}
	})
}
