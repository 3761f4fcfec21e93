package transfer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// asUser runs a test where permission bits count: not as root, who has it run in another
// process.
func asUser(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if os.Geteuid() != 0 {
		test(t)
		return
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "user")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
}

// hardModes are those of files that their owner may not write to, or not even read.
var hardModes = []uint32{0o444, 0o200, 0}

// landBits lands a small file and one of more bytes that is not, of each mode, and commits
// them together.
func landBits(t *testing.T, s *staging, dir string) {
	t.Helper()
	var whole []Whole
	for _, mode := range hardModes {
		for _, size := range []int{5, maxPacked + 1} {
			content := random(size)
			e := wire.Entry{Path: fmt.Sprintf("%o-%d", mode, size), Size: int64(size), Mode: mode, MTimeNS: 5}
			sum := digest.BLAKE3.Whole([]byte(content))
			w := Whole{Digest: &sum, Kind: digest.BLAKE3}
			var err error
			if size <= maxPacked {
				w.Landing = putWhole(t, s, e, random(size + 1)[:size])
				_, err = w.Landing.WriteAt([]byte(content), 0) // it had arrived damaged
			} else {
				w.Landing = create(t, s, e)
				_, err = w.Landing.WriteAt([]byte(content), 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			whole = append(whole, w)
		}
	}
	for i, err := range s.Commit(whole) {
		p := whole[i].Landing.(*part)
		if err != nil {
			t.Error(err)
			continue
		}
		st, err := os.Stat(filepath.Join(dir, p.e.Path))
		if err != nil || uint32(st.Mode()) != p.e.Mode || st.Size() != p.e.Size {
			t.Errorf("%s: %v, %v", p.e.Path, st, err)
		}
	}
	if err := s.Close(false); err != nil {
		t.Error(err)
	}
}

// TestBitsDoNotForbidToLand, though files have them before they have their names.
func TestBitsDoNotForbidToLand(t *testing.T) {
	asUser(t, func(t *testing.T) {
		for name, option := range map[string]func(d *Directory){
			"plain":    func(*Directory) {},
			"cache":    func(d *Directory) { d.KeepCache = true },
			"readback": func(d *Directory) { d.Readback = true },
			"both":     func(d *Directory) { d.KeepCache, d.Readback, d.Direct = true, true, DirectAlways },
			"no sync":  func(d *Directory) { d.KeepCache, d.NoSync = true, true },
		} {
			t.Run(name, func(t *testing.T) {
				d, dir := into(t, OverwriteNever)
				option(d)
				landBits(t, stage(t, d), dir)
			})
			t.Run(name+" of parts", func(t *testing.T) {
				d, dir := into(t, OverwriteNever)
				option(d)
				s := stage(t, d)
				withoutNameless(s)
				landBits(t, s, dir)
			})
		}
	})
}

// TestBitsDoNotForbidToGoOn: an earlier try ended between the bits and the name.
func TestBitsDoNotForbidToGoOn(t *testing.T) {
	asUser(t, func(t *testing.T) {
		for _, mode := range hardModes {
			d, _ := into(t, OverwriteNever)
			s := stage(t, d)
			e := wire.Entry{Path: "f", Size: 2 * blockSize, Mode: mode, MTimeNS: 5, Version: 1}
			l := create(t, s, e)
			if _, err := l.WriteAt([]byte("words"), e.Size-5); err != nil {
				t.Fatal(err)
			}
			l.Verified(0, Digest{1})
			if err := l.(*part).finish(); err != nil {
				t.Fatal(err)
			}
			l.Leave()
			if err := s.Close(true); err != nil {
				t.Fatal(err)
			}
			s = stage(t, d)
			again, blocks, err := s.Resume(&e)
			if again == nil || len(blocks) != 1 || err != nil {
				t.Fatalf("%o: %v, %v, %v", mode, again, blocks, err)
			}
			if _, err := again.WriteAt([]byte("words"), 0); err != nil {
				t.Errorf("%o: %v", mode, err)
			}
			again.Leave()
			if err := s.Close(true); err != nil {
				t.Fatal(err)
			}
			s = stage(t, d)
			if l, err := s.Create(&e); err != nil { // what it has of it goes
				t.Errorf("%o: %v", mode, err)
			} else {
				l.Abort()
			}
			if err := s.Close(false); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestReadOnlyDirectoryTakesWhatItLacks: an earlier try finished it without a file that failed.
func TestReadOnlyDirectoryTakesWhatItLacks(t *testing.T) {
	asUser(t, func(t *testing.T) {
		for _, mode := range []uint32{0o555, 0o500, 0o300, 0} {
			d, dir := into(t, OverwriteNever)
			tree := wire.Entry{Path: "tree", Kind: wire.Dir, Mode: mode}
			for _, name := range []string{"", "f", "g"} { // a file more with each try
				s := stage(t, d)
				if err := s.Mkdir(&tree); err != nil {
					t.Fatal(err)
				}
				if name != "" {
					e := wire.Entry{Path: "tree/" + name, Size: 1, Mode: 0o600}
					if _, err := s.Check(&e); err != nil {
						t.Fatalf("%o: %v", mode, err)
					}
					l := putWhole(t, s, e, "x")
					if err := s.Commit([]Whole{{Landing: l}})[0]; err != nil {
						t.Errorf("%o: %v", mode, err)
					}
				}
				if err := s.Finish(&tree); err != nil {
					t.Errorf("%o: %v", mode, err)
				}
				if err := s.Close(false); err != nil {
					t.Error(err)
				}
				if st, err := os.Stat(filepath.Join(dir, "tree")); err != nil || uint32(st.Mode().Perm()) != mode {
					t.Errorf("%o: %v, %v", mode, st, err)
				}
			}
			_ = os.Chmod(filepath.Join(dir, "tree"), 0o700) // to be removed
		}
	})
}

// TestTimesThatAFileSystemKeeps are known again, and none that is another.
func TestTimesThatAFileSystemKeeps(t *testing.T) {
	const set int64 = 1_700_000_001_234_567_891
	for _, c := range []struct {
		kept int64
		is   bool
	}{
		{set, true},
		{1_700_000_001_234_567_800, true},
		{1_700_000_001_234_567_000, true},
		{1_700_000_001_230_000_000, true},
		{1_700_000_001_000_000_000, true},
		{1_700_000_000_000_000_000, true},
		{1_700_000_002_000_000_000, true}, // rounded
		{set + 1, false},
		{1_700_000_001_234_567_700, false},
		{1_700_000_001_234_565_000, false},
		{1_700_000_003_000_000_000, false},
		{1_700_000_004_000_000_000, false},
		{1_699_999_998_000_000_000, false},
	} {
		if got := keptTime(c.kept, set); got != c.is {
			t.Errorf("%d kept for %d: %v", c.kept, set, got)
		}
	}
}

// TestDirectoryKeepsItsGroupAndItsStickyBit, which no sender sets.
func TestDirectoryKeepsItsGroupAndItsStickyBit(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	s := stage(t, d)
	tree := wire.Entry{Path: "tree", Kind: wire.Dir, Mode: 0o6755}
	path := filepath.Join(dir, "tree")
	if err := errors.Join(os.Mkdir(path, 0o777), os.Chmod(path, 0o775|os.ModeSetgid|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Mkdir(&tree), s.Finish(&tree), s.Close(false)); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != os.ModeDir|os.ModeSetgid|os.ModeSticky|0o755 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// TestNoDirectoryIsWhereAnotherThingIs: what lands in it would land elsewhere.
func TestNoDirectoryIsWhereAnotherThingIs(t *testing.T) {
	d, dir := into(t, OverwriteAlways)
	s := stage(t, d)
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "old"), 0o700), os.Symlink("old", filepath.Join(dir, "new"))); err != nil {
		t.Fatal(err)
	}
	wantCode(t, s.Mkdir(&wire.Entry{Path: "new", Kind: wire.Dir, Mode: 0o755}), CodeExists, "not a directory")
	if err := s.Close(false); err != nil {
		t.Error(err)
	}
}
