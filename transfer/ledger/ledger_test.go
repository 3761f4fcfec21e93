package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// into opens a fresh directory.
func into(t testing.TB) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func openIn(t testing.TB, root *os.Root) *Ledger {
	t.Helper()
	l, err := Open(root, name, transfer)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func wantNames(t *testing.T, root *os.Root, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(root.Name())
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("the directory holds %q, want %q", got, want)
	}
}

func TestKnownAgain(t *testing.T) {
	root := into(t)
	records := story(5, 60)
	l := openIn(t, root)
	for i, r := range records[:50] {
		appendTo(l, r)
		wantState(t, l, records[:i+1]) // out of the buffer or out of the file
		if i%7 == 0 {
			must(t, l.Sync())
		}
	}
	must(t, l.Sync())
	for _, r := range records[50:] {
		appendTo(l, r) // and never synced
	}
	must(t, l.Close())
	st, err := root.Lstat(name)
	if err != nil || st.Mode() != 0o600 {
		t.Errorf("the ledger is %v, %v; want it private", st, err)
	}
	l = openIn(t, root)
	wantState(t, l, records[:50])
	must(t, l.Remove())
	wantNames(t, root)
}

func TestPartInRuns(t *testing.T) {
	l := mustOpen(t, newSim(0))
	k := Key{1}
	l.AppendPart(k, Object{Ino: 1})
	for _, b := range []uint32{9, 3, 0, 4, 1<<32 - 1, 2, 3, 1<<32 - 2} {
		l.AppendBlock(k, b, [32]byte{byte(b)})
	}
	p, ok := l.Part(k)
	want := []Run{{0, 1}, {2, 3}, {9, 1}, {1<<32 - 2, 2}}
	if !ok || !slices.Equal(p.Runs, want) {
		t.Fatalf("runs %v, %v; want %v", p, ok, want)
	}
	var blocks []uint32
	for b, d := range p.Blocks() {
		blocks = append(blocks, b)
		if d != [32]byte{byte(b)} {
			t.Errorf("block %d has the digest of another: %x", b, d)
		}
	}
	if want := []uint32{0, 2, 3, 4, 9, 1<<32 - 2, 1<<32 - 1}; !slices.Equal(blocks, want) {
		t.Errorf("blocks %d, want %d", blocks, want)
	}
	for range p.Blocks() {
		break
	}
}

// TestEmptyIsRemoved: a refused transfer leaves nothing, nor does one whose parts
// were all given up.
func TestEmptyIsRemoved(t *testing.T) {
	root := into(t)
	must(t, openIn(t, root).Close())
	wantNames(t, root)

	l := openIn(t, root)
	l.AppendPart(Key{1}, Object{})
	must(t, l.Close()) // not synced: it was never so
	wantNames(t, root)

	l = openIn(t, root)
	l.AppendPart(Key{1}, Object{})
	must(t, l.Sync())
	l.AppendForget(Key{1})
	must(t, l.Sync())
	must(t, l.Close())
	wantNames(t, root)
}

func TestClosed(t *testing.T) {
	root := into(t)
	l := openIn(t, root)
	must(t, l.Remove())
	other := openIn(t, root)
	defer other.Close()
	for what, err := range map[string]error{"Close": l.Close(), "Remove": l.Remove(), "Sync": l.Sync()} {
		if !errors.Is(err, errClosed) {
			t.Errorf("%s of a closed ledger: %v", what, err)
		}
	}
	wantNames(t, root, name) // the other's
}

// TestRemovesItsOwnAlone: somebody took the ledger away, and another began anew.
func TestRemovesItsOwnAlone(t *testing.T) {
	root := into(t)
	l := openIn(t, root)
	must(t, root.Remove(name))
	other := openIn(t, root)
	must(t, l.Remove())
	wantNames(t, root, name)
	must(t, other.Remove())
	wantNames(t, root)
}

// TestFailedSync fails one operation of a Sync. What is in the cache would be read
// as good, and a second sync would succeed.
func TestFailedSync(t *testing.T) {
	records := story(6, 60)
	for _, synced := range []int{0, 20} {
		for fuse, op := range []string{"write", "sync", "directory sync"} {
			if synced > 0 && op == "directory sync" {
				continue // of the first Sync alone
			}
			d := newSim(uint64(fuse))
			l := mustOpen(t, d)
			for _, r := range records[:synced] {
				appendTo(l, r)
			}
			must(t, l.Sync())
			for _, r := range records[synced:50] {
				appendTo(l, r)
			}
			d.fuse = fuse
			err := l.Sync()
			if !errors.Is(err, errSim) || !strings.Contains(err.Error(), name) || len(d.blown) != 1 || d.blown[0] != op {
				t.Fatalf("%v failed, and Sync says %v; want %s to fail", d.blown, err, op)
			}
			for _, r := range records[50:] {
				appendTo(l, r)
			}
			if again := l.Sync(); again != err {
				t.Errorf("the second Sync says %v, want %v", again, err)
			}
			if e := l.Close(); !errors.Is(e, err) {
				t.Errorf("Close says %v, want %v", e, err)
			}
			l = mustOpen(t, d)
			wantState(t, l, records[:synced])
			must(t, l.Close())
		}
	}
}

// TestFailedSyncAtOpen: a receiver was killed before it synced, and the next one finds
// out that the disk fails. What it read may be in the cache alone.
func TestFailedSyncAtOpen(t *testing.T) {
	d := newSim(1)
	l := mustOpen(t, d)
	for _, r := range story(8, 40) {
		appendTo(l, r)
	}
	d.fuse, d.blows = 1, blowsKill
	func() {
		defer func() { recover() }()
		t.Errorf("not killed: %v", l.Sync())
	}()
	d.kill()
	d.fuse, d.blows = 0, blowsOnce
	if _, err := open(d, name, transfer); !errors.Is(err, errSim) || !slices.Equal(d.blown, []string{"sync", "sync"}) {
		t.Fatalf("%v failed, and Open says %v", d.blown, err)
	}
	wantState(t, mustOpen(t, d), nil)
}

func TestFull(t *testing.T) {
	l := mustOpen(t, newSim(0))
	l.AppendPart(Key{1}, Object{})
	must(t, l.Sync())
	l.size = maxSize - maxRecord/2 // as good as written: nothing is read below
	l.AppendForget(Key{1})
	if err := l.Sync(); err == nil || !strings.Contains(err.Error(), "full") {
		t.Error(err)
	}
}

// TestMustBeALedger puts other things where the ledger belongs. None is followed,
// emptied, waited for or removed.
func TestMustBeALedger(t *testing.T) {
	for what, make := range map[string]func(dir, ledger string) error{
		"a symlink":          func(_, l string) error { return os.Symlink("precious", l) },
		"a symlink out":      func(_, l string) error { return os.Symlink("/etc/passwd", l) },
		"a dangling symlink": func(_, l string) error { return os.Symlink("nothing", l) },
		"a hard link":        func(dir, l string) error { return os.Link(filepath.Join(dir, "precious"), l) },
		"a FIFO":             func(_, l string) error { return syscall.Mkfifo(l, 0o600) },
		"a directory":        func(_, l string) error { return os.Mkdir(l, 0o700) },
		"a socket":           func(_, l string) error { return unix.Mknod(l, unix.S_IFSOCK|0o600, 0) },
		"writable by all": func(_, l string) error {
			return errors.Join(os.WriteFile(l, []byte("x"), 0o600), os.Chmod(l, 0o622))
		},
	} {
		t.Run(what, func(t *testing.T) {
			root := into(t)
			dir := root.Name()
			must(t, os.WriteFile(filepath.Join(dir, "precious"), []byte("precious"), 0o600))
			must(t, make(dir, filepath.Join(dir, name)))
			if l, err := Open(root, name, transfer); !errors.Is(err, ErrForeign) {
				t.Errorf("%v, %v; want it refused", l, err)
			}
			if s, err := List(root); len(s) > 0 || err != nil {
				t.Errorf("listed: %v, %v", s, err)
			}
			if err := Clean(root, name); !errors.Is(err, ErrForeign) {
				t.Errorf("cleaned: %v", err)
			}
			if b, _ := os.ReadFile(filepath.Join(dir, "precious")); string(b) != "precious" {
				t.Errorf("what lies beside it holds %q now", b)
			}
			wantNames(t, root, name, "precious")
		})
	}
}

func TestForeign(t *testing.T) {
	mine := syscall.Stat_t{Mode: unix.S_IFREG | 0o600, Nlink: 1, Uid: 7}
	if foreign(&mine, 7) {
		t.Error("one's own is foreign")
	}
	for what, change := range map[string]func(*syscall.Stat_t){
		"another user":    func(st *syscall.Stat_t) { st.Uid = 0 },
		"a second name":   func(st *syscall.Stat_t) { st.Nlink = 2 },
		"the group's too": func(st *syscall.Stat_t) { st.Mode |= 0o020 },
		"a device":        func(st *syscall.Stat_t) { st.Mode = unix.S_IFBLK | 0o600 },
	} {
		st := mine
		change(&st)
		if !foreign(&st, 7) {
			t.Errorf("%s: not foreign", what)
		}
	}
}

func TestObject(t *testing.T) {
	dir := t.TempDir()
	object := func(n string) Object {
		f, err := os.OpenFile(filepath.Join(dir, n), os.O_CREATE|os.O_RDWR, 0o600)
		must(t, err)
		defer f.Close()
		o, err := ObjectOf(f)
		must(t, err)
		return o
	}
	a, b := object("a"), object("b")
	if a == b || a.Ino == b.Ino || a.Dev != b.Dev {
		t.Errorf("two files: %v, %v", a, b)
	}
	must(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "c")))
	must(t, os.WriteFile(filepath.Join(dir, "c"), []byte("longer"), 0o600))
	if c := object("c"); c != a {
		t.Errorf("renamed and written: %v, was %v", c, a)
	}
	st, err := os.Stat(filepath.Join(dir, "c"))
	must(t, err)
	if sys := st.Sys().(*syscall.Stat_t); sys.Ino != a.Ino || sys.Dev != a.Dev {
		t.Errorf("stat says dev %d inode %d, ObjectOf %v", sys.Dev, sys.Ino, a)
	}
	if f, err := os.Open(filepath.Join(dir, "c")); err == nil {
		f.Close()
		if _, err := ObjectOf(f); err == nil {
			t.Error("a closed file has an identity")
		}
	}
}
