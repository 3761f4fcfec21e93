package transfer

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// syncs are what a Directory syncs, and has fail.
type syncs struct {
	files []string // base names
	all   int      // syncfs
	fail  error    // of syncfs
	bad   string   // base name of a file that fails
}

func watchSyncs(d *Directory) *syncs {
	w := new(syncs)
	d.fsync = func(f *os.File) error {
		name := filepath.Base(f.Name())
		w.files = append(w.files, name)
		if name == w.bad {
			return syscall.EIO
		}
		return f.Sync()
	}
	d.syncfs = func(*os.File) error {
		w.all++
		return w.fail
	}
	return w
}

// TestFailedSyncIsOneFilesAlone: the others of its group land, few or many.
func TestFailedSyncIsOneFilesAlone(t *testing.T) {
	for _, n := range []int{few, few + 1} {
		d, dir := into(t, OverwriteNever)
		w := watchSyncs(d)
		s := stage(t, d)
		want := make(map[string]string)
		var whole []Whole
		for i := range n {
			e := wire.Entry{Path: fmt.Sprint("f", i), Size: 5, Mode: 0o600}
			whole = append(whole, Whole{Landing: putWhole(t, s, e, "hello")})
			want[e.Path] = "hello"
		}
		w.bad = "f1"
		delete(want, w.bad)
		if n > few { // then a checkpoint has found out
			wantCode(t, whole[1].Landing.(*part).sync(), CodeLocalIO)
		}
		for i, err := range s.Commit(whole) {
			if i == 1 {
				wantCode(t, err, CodeLocalIO, "syncing", w.bad)
			} else if err != nil {
				t.Error(err)
			}
		}
		if err := s.Close(false); err != nil {
			t.Error(err)
		}
		wantFiles(t, dir, want)
	}
}

// TestSyncfsThatFailedIsNotAskedAgain: it told of the files of the next group too, which
// have to be asked for one by one. Of a small one that was closed nobody is told for sure.
func TestSyncfsThatFailedIsNotAskedAgain(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	w := watchSyncs(d)
	s := stage(t, d)
	withoutNameless(s)
	land := func(name string, size int) Whole {
		e := wire.Entry{Path: path.Join(name, "f"), Size: int64(size), Mode: 0o600}
		if err := s.Mkdir(&wire.Entry{Path: name, Kind: wire.Dir}); err != nil {
			t.Fatal(err)
		}
		if size <= maxPacked {
			return Whole{Landing: putWhole(t, s, e, random(size))}
		}
		l := create(t, s, e)
		if _, err := l.WriteAt([]byte(random(size)), 0); err != nil {
			t.Fatal(err)
		}
		return Whole{Landing: l}
	}
	var first, second []Whole
	for i := range few + 1 {
		first = append(first, land(fmt.Sprint("first", i), 5))
	}
	second = append(second, land("closed", 5))
	for i := range few + 1 {
		second = append(second, land(fmt.Sprint("open", i), maxPacked+1))
	}
	w.fail = syscall.EIO
	for _, err := range s.Commit(first) {
		wantCode(t, err, CodeLocalIO, "file system")
	}
	second = append(second, land("later", 5))
	w.fail, w.bad = nil, filepath.Base(second[1].Landing.(*part).name)
	for i, err := range s.Commit(second) {
		switch {
		case i == 0:
			wantCode(t, err, CodeLocalIO, "send it again")
		case i == 1:
			wantCode(t, err, CodeLocalIO, "syncing")
		case err != nil:
			t.Error(err)
		}
	}
	if w.all != 1 {
		t.Errorf("syncfs was called %d times", w.all)
	}
	for _, x := range second[2:] {
		p := x.Landing.(*part)
		if !slices.Contains(w.files, filepath.Base(p.name)) || !slices.Contains(w.files, path.Dir(p.e.Path)) {
			t.Errorf("%s was not synced", p.e.Path)
		}
	}
	if err := s.Close(false); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"first0/f", "closed/f", "open0/f"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s has its name", name)
		}
	}
}

// TestClosedPartsAreSyncedWithTheirFileSystem: a part's write that failed before it is
// opened again may be forgotten with its inode.
func TestClosedPartsAreSyncedWithTheirFileSystem(t *testing.T) {
	eachWay(t, func(t *testing.T, begin func(Overwrite) (*staging, string)) {
		s, _ := begin(OverwriteNever)
		w := watchSyncs(s.d)
		l := putWhole(t, s, wire.Entry{Path: "f", Size: 5, Mode: 0o600}, "hello")
		closed := l.(*part).closed()
		if err := commitOne(t, s, l); err != nil {
			t.Error(err)
		}
		if (w.all > 0) != closed {
			t.Errorf("closed: %v, and syncfs was called %d times", closed, w.all)
		}
	})
}

// TestDirectoryThatFailsHasADurableName: what landed in it was vouched for.
func TestDirectoryThatFailsHasADurableName(t *testing.T) {
	d, _ := into(t, OverwriteNever)
	w := watchSyncs(d)
	s := stage(t, d)
	for _, name := range []string{"parent", "parent/d"} {
		if err := s.Mkdir(&wire.Entry{Path: name, Kind: wire.Dir}); err != nil {
			t.Fatal(err)
		}
	}
	err := s.Finish(&wire.Entry{Path: "parent/d", Kind: wire.Dir, Mode: 0o755, Attrs: []wire.Attr{{Name: wire.ACLAccess, Value: []byte("no list")}}})
	wantCode(t, err, CodeLocalIO, "setting")
	if !slices.Contains(w.files, "parent") {
		t.Errorf("%v were synced", w.files)
	}
	if err := s.Close(false); err != nil {
		t.Error(err)
	}
}
