package transfer

import (
	"fmt"
	"os"
	"path/filepath"
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
