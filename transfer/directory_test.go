package transfer

import (
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
	t.Cleanup(func() { d.Close() })
	return d, dir
}

func create(t *testing.T, d *Directory, e wire.Entry) Landing {
	t.Helper()
	l, err := d.Create(&e)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func write(t *testing.T, path, words string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(words), 0o600); err != nil {
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
	l := create(t, d, e)
	l.WriteAt([]byte("lo"), 3)
	l.WriteAt([]byte("hel"), 0)
	if _, err := os.Lstat(filepath.Join(dir, "f")); err == nil {
		t.Error("it has its name before it is whole")
	}
	st, err := os.Stat(filepath.Join(dir, partName(&e)))
	if err != nil || st.Mode() != 0o600 {
		t.Errorf("the part: %v, %v; want it private", st, err)
	}
	if err := l.Commit(); err != nil {
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
	l := create(t, d, wire.Entry{Path: "f", Size: 5})
	l.WriteAt([]byte("hello"), 0)
	l.Abort()
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
		l := create(t, d, wire.Entry{Path: "f", Size: 3, Mode: 0o600, MTimeNS: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()})
		l.WriteAt([]byte("new"), 0)
		f := filepath.Join(dir, "f")
		write(t, f, "precious")
		os.Chtimes(f, c.mtime, c.mtime)
		err := l.Commit()
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
		_, err := d.Create(&wire.Entry{Path: "f"})
		wantCode(t, err, CodeExists, "not a regular file")
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
	l := create(t, d, wire.Entry{Path: "f", Size: 3})
	l.WriteAt([]byte("new"), 0)
	os.Symlink(outside, filepath.Join(dir, "f"))
	if err := l.Commit(); CodeOf(err) != CodeExists {
		t.Error(err)
	}
	if b, _ := os.ReadFile(outside); string(b) != "precious" {
		t.Errorf("the symlink's target holds %q", b)
	}
}

func TestStalePartIsUsedAgainFromNothing(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	e := wire.Entry{Path: "f", Size: 2, Mode: 0o600}
	write(t, filepath.Join(dir, partName(&e)), "what a killed receiver left")
	l := create(t, d, e)
	l.WriteAt([]byte("ok"), 0)
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{"f": "ok"})
}

func TestPartInUseIsRefused(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	e := wire.Entry{Path: "f", Size: 5, Mode: 0o600}
	l := create(t, d, e)
	l.WriteAt([]byte("hello"), 0)
	_, err := d.Create(&e)
	wantCode(t, err, CodeExists, "another rdmaxfer")
	if err := l.Commit(); err != nil { // and the first was not disturbed
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{"f": "hello"})
}

// TestPartMustBeAPart puts other things where the part belongs. None is followed,
// emptied or kept waiting for.
func TestPartMustBeAPart(t *testing.T) {
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
	} {
		d, dir := into(t, OverwriteAlways)
		precious := filepath.Join(dir, "precious")
		write(t, precious, "precious")
		if err := make(dir, filepath.Join(dir, partName(&e))); err != nil {
			t.Fatal(err)
		}
		if l, err := d.Create(&e); err == nil {
			t.Errorf("%s: taken for a part", name)
			l.Abort()
		}
		if b, _ := os.ReadFile(precious); string(b) != "precious" {
			t.Errorf("%s: the file beside it holds %q", name, b)
		}
		if _, err := os.Stat(filepath.Join(dir, "nothing")); err == nil {
			t.Errorf("%s: the symlink was followed", name)
		}
	}
}

// TestReplacedPartIsNotMistaken: somebody else's file under the part's name gets
// neither the times nor the name of the one that was received, nor is it removed.
func TestReplacedPartIsNotMistaken(t *testing.T) {
	for name, end := range map[string]func(Landing) error{
		"commit": Landing.Commit,
		"abort":  func(l Landing) error { l.Abort(); return nil },
	} {
		d, dir := into(t, OverwriteNever)
		e := wire.Entry{Path: "f", Size: 5, Mode: 0o600, MTimeNS: 1}
		l := create(t, d, e)
		l.WriteAt([]byte("hello"), 0)
		part := filepath.Join(dir, partName(&e))
		os.Remove(part)
		write(t, part, "stranger")
		if err := end(l); name == "commit" {
			wantCode(t, err, CodeExists, "replaced")
		}
		wantFiles(t, dir, map[string]string{partName(&e): "stranger"})
		if st, err := os.Stat(part); err != nil || st.ModTime().UnixNano() == 1 {
			t.Errorf("%s: the stranger's file has the time of the one that was received", name)
		}
	}
}

func TestNoFileLandsAsAPart(t *testing.T) {
	d, dir := into(t, OverwriteAlways)
	victim := wire.Entry{Path: "victim", Size: 5, Mode: 0o600}
	l := create(t, d, victim)
	l.WriteAt([]byte("right"), 0)
	_, err := d.Create(&wire.Entry{Path: partName(&victim), Size: 5})
	wantCode(t, err, CodeUsage, "parts")
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{"victim": "right"})
}

func TestNamesOf255BytesLand(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	name := strings.Repeat("n", 255)
	if err := create(t, d, wire.Entry{Path: name, Mode: 0o600}).Commit(); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{name: ""})
}

func TestWhatDoesNotFitIsRefusedAtOnce(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	_, err := d.Create(&wire.Entry{Path: "f", Size: wire.MaxSize})
	wantCode(t, err, CodeLocalIO, "free", "--into")
	_, err = d.Create(&wire.Entry{Path: "d/f"})
	wantCode(t, err, CodeUsage, "directories")
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
	l := create(t, d, wire.Entry{Path: "f"})
	if err := os.Mkdir(filepath.Join(dir, "f"), 0o755); err != nil {
		t.Fatal(err)
	}
	wantCode(t, l.Commit(), CodeExists)
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("%v", entries)
	}
}
