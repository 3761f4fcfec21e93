package transfer

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// putWhole makes a small file as a receiver does.
func putWhole(t *testing.T, s *staging, e wire.Entry, words string) Landing {
	t.Helper()
	if _, err := s.Check(&e); err != nil {
		t.Fatal(err)
	}
	l, err := s.Put(&e, []byte(words))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// withoutNameless has a staging find that its file system can't make files without a name.
func withoutNameless(s *staging) { s.nameless.once.Do(func() {}) }

// eachWay runs a test with files that have no name while they land, and with parts.
func eachWay(t *testing.T, test func(t *testing.T, o func(Overwrite) (*staging, string))) {
	for _, way := range []string{"nameless", "parts"} {
		t.Run(way, func(t *testing.T) {
			test(t, func(o Overwrite) (*staging, string) {
				d, dir := into(t, o)
				s := stage(t, d)
				if way == "parts" {
					withoutNameless(s)
				}
				return s, dir
			})
		})
	}
}

// inHidden lists a transfer's hidden directory.
func inHidden(t *testing.T, s *staging, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(dir, s.name))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// TestSmallFileHasNoNameBeforeItsOwn: on the file systems that tests run on.
func TestSmallFileHasNoNameBeforeItsOwn(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	s := stage(t, d)
	l := putWhole(t, s, wire.Entry{Path: "f", Size: 5, Mode: 0o600}, "hello")
	if names := inHidden(t, s, dir); len(names) > 0 {
		t.Errorf("%v in the hidden directory", names)
	}
	if n := d.nameless.Load(); n != 1 {
		t.Errorf("%d files are counted", n)
	}
	if err := commitOne(t, s, l); err != nil {
		t.Fatal(err)
	}
	if n := d.nameless.Load(); n != 0 {
		t.Errorf("%d files are counted", n)
	}
	wantFiles(t, dir, map[string]string{"f": "hello"})
}

func TestPutGivesNameModeAndTimes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	eachWay(t, func(t *testing.T, begin func(Overwrite) (*staging, string)) {
		s, dir := begin(OverwriteNever)
		when := time.Date(1969, 7, 20, 20, 17, 40, 123456789, time.UTC)
		want := map[string]os.FileMode{"all": 0o777, "read": 0o444, "none": 0, "plain": 0o644, "set": 0o755}
		var whole []Whole
		for name, mode := range want {
			e := wire.Entry{Path: name, Size: 5, Mode: uint32(mode), MTimeNS: when.UnixNano()}
			if name == "set" {
				e.Mode |= 0o6000
			}
			whole = append(whole, Whole{Landing: putWhole(t, s, e, "hello")})
		}
		for i, err := range s.Commit(whole) {
			if err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
		if err := s.Close(false); err != nil {
			t.Error(err)
		}
		for name, mode := range want {
			st, err := os.Stat(filepath.Join(dir, name))
			if err != nil || st.Mode() != mode || !st.ModTime().Equal(when) {
				t.Errorf("%s: %v, %v", name, st, err)
			}
		}
	})
}

// TestPutDecidesByTheName: the destination appears when everything has been looked at.
func TestPutDecidesByTheName(t *testing.T) {
	for _, c := range []struct {
		o     Overwrite
		mtime time.Time // of the one that appears; the source is of 2000
		code  Code
	}{
		{OverwriteNever, time.Unix(0, 0), CodeExists},
		{OverwriteNewer, time.Unix(1<<31, 0), CodeExists},
		{OverwriteNewer, time.Unix(0, 0), CodeOK},
		{OverwriteAlways, time.Unix(1<<31, 0), CodeOK},
	} {
		eachWay(t, func(t *testing.T, begin func(Overwrite) (*staging, string)) {
			s, dir := begin(c.o)
			e := wire.Entry{Path: "f", Size: 3, Mode: 0o600, MTimeNS: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()}
			l := putWhole(t, s, e, "new")
			if len(inHidden(t, s, dir)) == 0 { // of a receiver that was killed
				write(t, staged(dir, &e), "stale")
			}
			f := filepath.Join(dir, "f")
			write(t, f, "precious")
			os.Chtimes(f, c.mtime, c.mtime)
			err := commitOne(t, s, l)
			want := "new"
			if c.code != CodeOK {
				want = "precious"
				wantCode(t, err, c.code, "exists", "--overwrite")
			} else if err != nil {
				t.Error(err)
			}
			wantFiles(t, dir, map[string]string{"f": want})
		})
	}
}

// TestPutFollowsNothing: a symlink that appears late is refused, or a directory that is
// swapped for one, and nothing lands where it points to.
func TestPutFollowsNothing(t *testing.T) {
	for _, o := range []Overwrite{OverwriteNever, OverwriteAlways} {
		eachWay(t, func(t *testing.T, begin func(Overwrite) (*staging, string)) {
			s, dir := begin(o)
			outside := t.TempDir()
			write(t, filepath.Join(outside, "victim"), "precious")
			if err := os.Mkdir(filepath.Join(dir, "old"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := s.Mkdir(&wire.Entry{Path: "new", Kind: wire.Dir}); err != nil {
				t.Fatal(err)
			}
			var whole []Whole
			for _, name := range []string{"link", "old/f", "new/f", "old/victim", "new/victim"} {
				whole = append(whole, Whole{Landing: putWhole(t, s, wire.Entry{Path: name, Size: 3, Mode: 0o600}, "new")})
			}
			if err := os.Symlink(filepath.Join(outside, "victim"), filepath.Join(dir, "link")); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"old", "new"} {
				name = filepath.Join(dir, name)
				if err := os.Rename(name, name+".moved"); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(outside, name); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{"old/late", "new/late"} { // and what comes after that
				l, err := s.Put(&wire.Entry{Path: name, Size: 3, Mode: 0o600}, []byte("new"))
				if err != nil {
					t.Fatal(err)
				}
				whole = append(whole, Whole{Landing: l})
			}
			for i, err := range s.Commit(whole) {
				if err == nil {
					t.Errorf("%d landed", i)
				}
			}
			if err := s.Close(false); err != nil {
				t.Error(err)
			}
			wantFiles(t, outside, map[string]string{"victim": "precious"})
			for _, name := range []string{"old.moved", "new.moved"} {
				wantFiles(t, filepath.Join(dir, name), nil)
			}
		})
	}
}

// TestPutAgain: what arrived damaged is replaced, and its time set anew.
func TestPutAgain(t *testing.T) {
	eachWay(t, func(t *testing.T, begin func(Overwrite) (*staging, string)) {
		s, dir := begin(OverwriteNever)
		l := putWhole(t, s, wire.Entry{Path: "f", Size: 5, Mode: 0o400, MTimeNS: 5e9}, "wrong")
		if _, err := l.WriteAt([]byte("right"), 0); err != nil {
			t.Fatal(err)
		}
		if err := commitOne(t, s, l); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, dir, map[string]string{"f": "right"})
		st, err := os.Stat(filepath.Join(dir, "f"))
		if err != nil || !st.ModTime().Equal(time.Unix(5, 0)) || st.Mode() != 0o400 {
			t.Errorf("%v, %v", st, err)
		}
	})
}

// TestDescriptorsAreBounded: what is beyond the bound lands by a part, and what is given
// up makes room.
func TestDescriptorsAreBounded(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	d.mostNameless = 1
	s := stage(t, d)
	given := putWhole(t, s, wire.Entry{Path: "given up", Size: 1, Mode: 0o600}, "g")
	var whole []Whole
	for _, name := range []string{"a", "b"} {
		whole = append(whole, Whole{Landing: putWhole(t, s, wire.Entry{Path: name, Size: 1, Mode: 0o600}, name)})
	}
	if names := inHidden(t, s, dir); len(names) != 2 {
		t.Errorf("%v in the hidden directory, want two parts", names)
	}
	given.Abort()
	whole = append(whole, Whole{Landing: putWhole(t, s, wire.Entry{Path: "c", Size: 1, Mode: 0o600}, "c")})
	if names := inHidden(t, s, dir); len(names) != 2 {
		t.Errorf("%v in the hidden directory, want no third part", names)
	}
	for _, err := range s.Commit(whole) {
		if err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(false); err != nil {
		t.Error(err)
	}
	if n := d.nameless.Load(); n != 0 {
		t.Errorf("%d files are counted", n)
	}
	wantFiles(t, dir, map[string]string{"a": "a", "b": "b", "c": "c"})
	if left := openDescriptors(t, filepath.Join(dir, s.name)); len(left) > 0 {
		t.Errorf("open: %v", left)
	}
}

// TestKilledBeforeTheName: the ledger has the file, its name was never given, and so it is
// gone. It comes again.
func TestKilledBeforeTheName(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	s := stage(t, d)
	e := wire.Entry{Path: "f", Size: 5, Mode: 0o600, MTimeNS: 7}
	l := putWhole(t, s, e, "hello").(*part)
	if err := s.record([]*part{l}); err != nil {
		t.Fatal(err)
	}
	l.over()
	if err := s.Close(true); err != nil {
		t.Fatal(err)
	}
	s = stage(t, d)
	if done, err := s.Check(&e); done != nil || err != nil {
		t.Errorf("%v, %v", done, err)
	}
	if err := s.Commit([]Whole{{Landing: putWhole(t, s, e, "again")}})[0]; err != nil {
		t.Fatal(err)
	}
	if err := s.Close(true); err != nil { // interrupted, with that file finished
		t.Fatal(err)
	}
	s = stage(t, d)
	if done, err := s.Check(&e); done == nil || err != nil {
		t.Errorf("what has its name is not known: %v, %v", done, err)
	}
	if err := s.Close(false); err != nil {
		t.Error(err)
	}
	wantFiles(t, dir, map[string]string{"f": "again"})
}

// TestExistingDirectoryIsLookedInto, though it stays open from one entry to the next.
func TestExistingDirectoryIsLookedInto(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	s := stage(t, d)
	for _, name := range []string{"x", "y"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "f"), "precious")
		if _, err := s.Check(&wire.Entry{Path: name + "/g", Size: 1}); err != nil {
			t.Error(err)
		}
		_, err := s.Check(&wire.Entry{Path: name + "/f", Size: 1})
		wantCode(t, err, CodeExists, "exists")
	}
	write(t, filepath.Join(dir, "z"), "")
	_, err := s.Check(&wire.Entry{Path: "z/f", Size: 1})
	wantCode(t, err, CodeExists, "directory is none")
	s.Close(false)
	if left := openDescriptors(t, dir); len(left) > 0 {
		t.Errorf("open: %v", left)
	}
}

// TestNamelessFilesAreMadeInside: not even a file that nobody can find is made where a link
// leads to, or on another file system, which nobody would sync.
func TestNamelessFilesAreMadeInside(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	s := stage(t, d)
	defer s.Close(false)
	if err := os.Symlink(t.TempDir(), filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"out", "..", "/"} {
		if fd, err := openNameless(int(s.top.Fd()), name, 0o600); err == nil {
			t.Errorf("made in %s", name)
			syscall.Close(fd)
		}
	}
	root, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if fd, err := openNameless(int(root.Fd()), "dev/shm", 0o600); err == nil {
		t.Error("made on another file system")
		syscall.Close(fd)
	}
}

// TestPutTogether lands more files than are made, or named, at one go, among them such as can't
// be like the others: beyond the bound of descriptors, with an attribute, into a directory that
// is gone, by a name that is taken meanwhile.
func TestPutTogether(t *testing.T) {
	eachWay(t, func(t *testing.T, begin func(Overwrite) (*staging, string)) {
		s, dir := begin(OverwriteNever)
		s.d.mostNameless = 100
		want := map[string]string{"taken": "precious"}
		var list []*small
		add := func(e wire.Entry, words string) {
			e.Size, e.MTimeNS = int64(len(words)), 5e9
			list = append(list, &small{entry: &e, bytes: []byte(words)})
		}
		for i := range 120 {
			name := fmt.Sprintf("%03d", i)
			want[name] = "content of " + name
			add(wire.Entry{Path: name, Mode: 0o600 + uint32(i%8)}, want[name])
		}
		want["attr"], want["empty"] = "a", ""
		add(wire.Entry{Path: "attr", Mode: 0o400, Attrs: []wire.Attr{{Name: "user.test", Value: []byte("value")}}}, "a")
		add(wire.Entry{Path: "empty", Mode: 0o644}, "")
		add(wire.Entry{Path: "gone/f", Mode: 0o644}, "lost")
		add(wire.Entry{Path: "taken", Mode: 0o644}, "late")
		list[0], list[len(list)-1] = list[len(list)-1], list[0]
		s.putTogether(list)
		write(t, filepath.Join(dir, "taken"), "precious")
		var whole []Whole
		for _, x := range list {
			if x.err != nil {
				t.Fatalf("%s: %v", x.entry.Path, x.err)
			}
			whole = append(whole, Whole{Landing: x.landing})
		}
		for i, err := range s.Commit(whole) {
			switch name := list[i].entry.Path; name {
			case "taken":
				wantCode(t, err, CodeExists, "exists")
			case "gone/f":
				wantCode(t, err, CodeLocalIO, "destination")
			default:
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				st, err := os.Stat(filepath.Join(dir, name))
				if err != nil || uint32(st.Mode()) != list[i].entry.Mode || !st.ModTime().Equal(time.Unix(5, 0)) {
					t.Errorf("%s: %v, %v", name, st, err)
				}
			}
		}
		value := make([]byte, 8)
		if n, err := unix.Getxattr(filepath.Join(dir, "attr"), "user.test", value); string(value[:max(n, 0)]) != "value" {
			t.Errorf("the attribute: %q, %v", value, err)
		}
		if err := s.Close(false); err != nil {
			t.Error(err)
		}
		wantFiles(t, dir, want)
		if n := s.d.nameless.Load(); n != 0 {
			t.Errorf("%d files are counted", n)
		}
		if left := openDescriptors(t, dir); len(left) > 0 {
			t.Errorf("open: %v", left)
		}
	})
}
