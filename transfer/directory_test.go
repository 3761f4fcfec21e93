package transfer

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// into opens a fresh directory as a sink.
func into(t *testing.T, o Overwrite) (*Directory, string) {
	t.Helper()
	dir := t.TempDir()
	d, err := OpenDirectory(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	d.tells = true // tests that want another say so, whatever they run on
	t.Cleanup(func() { d.Close() })
	return d, dir
}

// stage begins a transfer into a directory.
func stage(t *testing.T, d *Directory) *staging {
	t.Helper()
	s, err := d.Begin([16]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	return s.(*staging)
}

// staged is the path of an entry's part.
func staged(dir string, e *wire.Entry) string {
	return filepath.Join(dir, stagingPrefix+"07"+strings.Repeat("00", 15), partName(e, partSuffix))
}

func create(t *testing.T, s *staging, e wire.Entry) Landing {
	t.Helper()
	_, err := s.Check(&e)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Create(&e)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// commitOne commits one file and ends the transfer.
func commitOne(t *testing.T, s *staging, l Landing) error {
	t.Helper()
	err := s.Commit([]Whole{{Landing: l}})[0]
	if err := s.Close(false); err != nil {
		t.Error(err)
	}
	return err
}

func write(t *testing.T, path, words string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = f.WriteString(words) // no copy is made of it
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// wantFiles checks all the names of a directory, and their contents.
func wantFiles(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if words, ok := want[e.Name()]; !ok || err != nil || string(b) != words {
			t.Errorf("%.40s holds %.40q, %v; want %q (there: %v)", e.Name(), b, err, words, ok)
		}
	}
	if len(entries) != len(want) {
		t.Errorf("%d names, want %d", len(entries), len(want))
	}
}

func TestCommitGivesNameModeAndTimes(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	when := time.Date(1969, 7, 20, 20, 17, 40, 123456789, time.UTC) // before 1970: negative
	e := wire.Entry{Path: "f", Size: 5, Mode: 0o6751, MTimeNS: when.UnixNano()}
	s := stage(t, d)
	l := create(t, s, e)
	l.WriteAt([]byte("lo"), 3)
	l.WriteAt([]byte("hel"), 0)
	if _, err := os.Lstat(filepath.Join(dir, "f")); err == nil {
		t.Error("it has its name before it is whole")
	}
	st, err := os.Stat(staged(dir, &e))
	if err != nil || st.Mode() != 0o600 {
		t.Errorf("the part: %v, %v; want it private", st, err)
	}
	if err := commitOne(t, s, l); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{"f": "hello"})
	st, err = os.Stat(filepath.Join(dir, "f"))
	if err != nil || st.Mode() != 0o751 || !st.ModTime().Equal(when) {
		t.Errorf("mode %v, time %v, %v; want 0751 without setuid and setgid, and %v", st.Mode(), st.ModTime(), err, when)
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	s := stage(t, d)
	l := create(t, s, wire.Entry{Path: "f", Size: 5})
	l.WriteAt([]byte("hello"), 0)
	l.Abort()
	if err := s.Close(true); err != nil { // there is nothing to keep
		t.Error(err)
	}
	wantFiles(t, dir, nil)
}

// TestRenameDecides: the destination appears when everything has been looked at.
func TestRenameDecides(t *testing.T) {
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
		d, dir := into(t, c.o)
		s := stage(t, d)
		l := create(t, s, wire.Entry{Path: "f", Size: 3, Mode: 0o600, MTimeNS: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()})
		l.WriteAt([]byte("new"), 0)
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
	}
}

func TestCreateRefusesWhatItCantReplace(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"a directory":        func(p string) error { return os.Mkdir(p, 0o755) },
		"a FIFO":             func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"a symlink":          func(p string) error { return os.Symlink("elsewhere", p) },
		"a symlink out":      func(p string) error { return os.Symlink("/etc/passwd", p) },
		"a symlink to a dir": func(p string) error { return os.Symlink("/", p) },
	} {
		d, dir := into(t, OverwriteAlways)
		if err := make(filepath.Join(dir, "f")); err != nil {
			t.Fatal(err)
		}
		s := stage(t, d)
		_, err := s.Check(&wire.Entry{Path: "f"})
		wantCode(t, err, CodeExists, "not a regular file")
		s.Close(false)
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("%s: %v are left", name, entries)
		}
	}
}

// TestRenameDoesNotFollow: a symlink that appears late is replaced, not followed.
func TestRenameDoesNotFollow(t *testing.T) {
	d, dir := into(t, OverwriteAlways)
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, "precious")
	s := stage(t, d)
	l := create(t, s, wire.Entry{Path: "f", Size: 3})
	l.WriteAt([]byte("new"), 0)
	os.Symlink(outside, filepath.Join(dir, "f"))
	if err := commitOne(t, s, l); CodeOf(err) != CodeExists {
		t.Error(err)
	}
	if b, _ := os.ReadFile(outside); string(b) != "precious" {
		t.Errorf("the symlink's target holds %q", b)
	}
}

func TestStalePartIsUsedAgainFromNothing(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	e := wire.Entry{Path: "f", Size: 2, Mode: 0o600}
	s := stage(t, d)
	write(t, staged(dir, &e), "what a killed receiver left")
	l := create(t, s, e)
	l.WriteAt([]byte("ok"), 0)
	if err := commitOne(t, s, l); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{"f": "ok"})
}

func TestTransferInUseIsRefused(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	s := stage(t, d)
	l := create(t, s, wire.Entry{Path: "f", Size: 5, Mode: 0o600})
	l.WriteAt([]byte("hello"), 0)
	_, err := d.Begin([16]byte{7})
	wantCode(t, err, CodeExists, "another rdmaxfer")
	if err := commitOne(t, s, l); err != nil { // and the first was not disturbed
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{"f": "hello"})
}

// TestHiddenDirectoryMustBeOurs: it is neither followed nor used if others can write
// to it.
func TestHiddenDirectoryMustBeOurs(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"a file":           func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"a symlink out":    func(p string) error { return os.Symlink("/tmp", p) },
		"a FIFO":           func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"open for others":  func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, 0o770)) },
		"somebody else's":  func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Chown(p, 1, 1)) },
		"a symlink within": func(p string) error { return os.Symlink(".", p) },
	} {
		if os.Geteuid() != 0 && name == "somebody else's" {
			continue // only root can make that
		}
		d, dir := into(t, OverwriteAlways)
		if err := make(filepath.Join(dir, stagingPrefix+"07"+strings.Repeat("00", 15))); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Begin([16]byte{7}); err == nil {
			t.Errorf("%s: taken for the transfer's own", name)
		}
	}
}

// TestPartIsMadeAnew, whatever is where it belongs. Nothing is followed, emptied or kept
// waiting for.
func TestPartIsMadeAnew(t *testing.T) {
	e := wire.Entry{Path: "f", Size: 5}
	for name, make := range map[string]func(dir, part string) error{
		"a symlink": func(dir, part string) error { return os.Symlink("precious", part) },
		"a symlink out": func(dir, part string) error {
			return os.Symlink("/etc/passwd", part)
		},
		"a dangling symlink": func(dir, part string) error { return os.Symlink("nothing", part) },
		"a hard link":        func(dir, part string) error { return os.Link(filepath.Join(dir, "precious"), part) },
		"a FIFO":             func(dir, part string) error { return syscall.Mkfifo(part, 0o600) },
		"a directory":        func(dir, part string) error { return os.Mkdir(part, 0o700) },
		"a socket":           func(dir, part string) error { return unix.Mknod(part, unix.S_IFSOCK|0o600, 0) },
		"a part":             func(dir, part string) error { return os.WriteFile(part, []byte("stale"), 0o600) },
		"somebody else's": func(dir, part string) error { // of a transfer with --owner
			return errors.Join(os.WriteFile(part, []byte("stale"), 0o600), os.Chown(part, 1, 1))
		},
	} {
		if os.Geteuid() != 0 && name == "somebody else's" {
			continue // only root can make that
		}
		d, dir := into(t, OverwriteAlways)
		s := stage(t, d)
		precious := filepath.Join(dir, "precious")
		write(t, precious, "precious")
		if err := make(dir, staged(dir, &e)); err != nil {
			t.Fatal(err)
		}
		l, err := s.Create(&e)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var st unix.Stat_t
		if err := unix.Lstat(staged(dir, &e), &st); err != nil || st.Mode != unix.S_IFREG|0o600 || st.Nlink != 1 || st.Size != 0 || int(st.Uid) != os.Geteuid() {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
		l.Abort()
		if b, _ := os.ReadFile(precious); string(b) != "precious" {
			t.Errorf("%s: the file beside it holds %q", name, b)
		}
		if _, err := os.Stat(filepath.Join(dir, "nothing")); err == nil {
			t.Errorf("%s: the symlink was followed", name)
		}
	}
}

func TestNoFileLandsAsAPart(t *testing.T) {
	d, dir := into(t, OverwriteAlways)
	s := stage(t, d)
	victim := wire.Entry{Path: "victim", Size: 5, Mode: 0o600}
	l := create(t, s, victim)
	l.WriteAt([]byte("right"), 0)
	for _, path := range []string{strings.TrimPrefix(staged(dir, &victim), dir+"/"), s.name, stagingPrefix + "x", ".RDMAxfer-x/y", ".rdm\u200baxfer-x", ".rdmaxfer-\u200b"} {
		_, err := s.Check(&wire.Entry{Path: path, Size: 5})
		wantCode(t, err, CodeUsage, "on their way")
	}
	for _, path := range []string{".rdmaxfer", "rdmaxfer-x", "d/.rdmaxfer-x", ".rdm-axfer-x"} {
		if _, err := s.Check(&wire.Entry{Path: path, Size: 5}); err != nil {
			t.Error(err)
		}
	}
	if err := commitOne(t, s, l); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{"victim": "right"})
}

func TestNamesOf255BytesLand(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	name := strings.Repeat("n", 255)
	s := stage(t, d)
	if err := commitOne(t, s, create(t, s, wire.Entry{Path: name, Mode: 0o600})); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{name: ""})
}

func TestWhatDoesNotFitIsRefusedAtOnce(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	s := stage(t, d)
	_, err := s.Check(&wire.Entry{Path: "f", Size: wire.MaxSize})
	wantCode(t, err, CodeLocalIO, "free", "--into")
	s.Close(true)
	wantFiles(t, dir, nil)
}

func TestOpenDirectoryRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	for _, path := range []string{file, file + "/nowhere", ""} {
		_, err := OpenDirectory(path, OverwriteNever)
		wantCode(t, err, CodeLocalIO, "destination")
	}
}

// TestFailedCommitLeavesNothing: the file's name is that of a directory by then.
func TestFailedCommitLeavesNothing(t *testing.T) {
	d, dir := into(t, OverwriteAlways)
	s := stage(t, d)
	l := create(t, s, wire.Entry{Path: "f"})
	if err := os.Mkdir(filepath.Join(dir, "f"), 0o755); err != nil {
		t.Fatal(err)
	}
	wantCode(t, commitOne(t, s, l), CodeExists)
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("%v", entries)
	}
}

// TestNoFileOfATreeReplacesAnother, as two names would that a file system takes for one; the
// next batch may.
func TestNoFileOfATreeReplacesAnother(t *testing.T) {
	for name, land := range map[string]func(t *testing.T, s *staging, e wire.Entry) Landing{
		"small": func(t *testing.T, s *staging, e wire.Entry) Landing { return putWhole(t, s, e, "hello") },
		"large": func(t *testing.T, s *staging, e wire.Entry) Landing {
			l := create(t, s, e)
			if _, err := l.WriteAt([]byte("hello"), 0); err != nil {
				t.Fatal(err)
			}
			return l
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, dir := into(t, OverwriteAlways)
			write(t, filepath.Join(dir, "f"), "old")
			waitForTick(t, filepath.Join(dir, "f"))
			s := stage(t, d)
			s.began = bornAt(int(s.dir.Fd()), "") // as where it does
			waitForTick(t, filepath.Join(dir, s.name))
			e := wire.Entry{Path: "f", Size: 5, Mode: 0o600}
			commit := func() error { return s.Commit([]Whole{{Landing: land(t, s, e)}})[0] }
			if err := commit(); err != nil {
				t.Fatal(err)
			}
			err := commit()
			if s.began == 0 { // the file system of the tests keeps no times of birth
				if err != nil {
					t.Error(err)
				}
			} else {
				wantCode(t, err, CodeExists, "has come since this transfer began")
			}
			s.begins()
			if err := commit(); err != nil {
				t.Errorf("the next batch: %v", err)
			}
			if err := s.Close(false); err != nil {
				t.Error(err)
			}
			if len(hidden(t, dir)) > 0 {
				t.Errorf("left: %v", hidden(t, dir))
			}
		})
	}
}

// TestNoFileReplacesOneOfAnEarlierTry of the same transfer, either.
func TestNoFileReplacesOneOfAnEarlierTry(t *testing.T) {
	d, _ := into(t, OverwriteAlways)
	one := wire.Entry{Path: "f", Size: 5, Mode: 0o600, MTimeNS: 1e18}
	s := stage(t, d)
	if err := s.Commit([]Whole{{Landing: putWhole(t, s, one, "hello")}})[0]; err != nil {
		t.Fatal(err)
	}
	if err := s.Close(true); err != nil {
		t.Fatal(err)
	}
	s = stage(t, d)
	s.began = math.MaxInt64 // as where names are folded
	if done, err := s.Check(&one); done == nil || err != nil {
		t.Fatalf("%v, %v", done, err)
	}
	other := wire.Entry{Path: "f", Size: 6, Mode: 0o600, MTimeNS: 2e18} // by another name for the same
	wantCode(t, s.Commit([]Whole{{Landing: putWhole(t, s, other, "others")}})[0], CodeExists, "has come since this transfer began")
	s.begins()
	if err := s.Commit([]Whole{{Landing: putWhole(t, s, other, "others")}})[0]; err != nil {
		t.Errorf("the next batch: %v", err)
	}
	if err := s.Close(false); err != nil {
		t.Error(err)
	}
}

// TestCreateForgetsWhatWasFinished: its record would speak of the new part, where inodes are
// used again.
func TestCreateForgetsWhatWasFinished(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	e := wire.Entry{Path: "f", Size: 5, Mode: 0o600, MTimeNS: 1e18}
	s := stage(t, d)
	if err := s.Commit([]Whole{{Landing: putWhole(t, s, e, "hello")}})[0]; err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "f")); err != nil {
		t.Fatal(err)
	}
	l := create(t, s, e)
	if _, known := s.ledger.Finished(partKey(&e)); known {
		t.Error("the ledger says that it is finished")
	}
	l.Abort()
	if err := s.Close(false); err != nil {
		t.Error(err)
	}
}

// hidden are the names of a directory that begin with a dot.
func hidden(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestUnsyncedFileThatCannotBeClosed does not land: its file system has lost what was written.
func TestUnsyncedFileThatCannotBeClosed(t *testing.T) {
	for _, mode := range []uint32{0o600, 0o200} { // what can be opened again is closed before
		d, dir := into(t, OverwriteNever)
		d.NoSync = true
		s := stage(t, d)
		e := wire.Entry{Path: "f", Size: 5, Mode: mode}
		l := create(t, s, e)
		p := l.(*part)
		if _, err := p.WriteAt([]byte("hello"), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := p.open(); err != nil {
			t.Fatal(err)
		}
		if err := p.finish(); err != nil {
			t.Fatal(err)
		}
		p.file.Close()
		wantCode(t, commitOne(t, s, l), CodeLocalIO, "closing")
		wantFiles(t, dir, nil)
	}
}
