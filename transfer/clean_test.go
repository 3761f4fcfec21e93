package transfer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer/ledger"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

func TestClean(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	names := func() (list []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	// A transfer that was interrupted: a part of 1 MiB, and a ledger.
	s := stage(t, d)
	create(t, s, wire.Entry{Path: "f", Size: 20 * mib}).WriteAt([]byte(random(mib)), 0)
	close(s.stop)
	s.checking.Wait()
	if err := s.ledger.Close(); err != nil {
		t.Fatal(err)
	}
	s.release()
	old := names()
	// One that runs, and what is nobody's to remove.
	running, err := d.Begin([16]byte{8})
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close(false)
	elsewhere := t.TempDir()
	write(t, filepath.Join(elsewhere, "precious"), "x")
	trap := filepath.Join(dir, stagingPrefix+strings.Repeat("99", 16))
	if err := os.Symlink(elsewhere, trap); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "precious"), "x")
	theirs := filepath.Join(dir, stagingPrefix+strings.Repeat("aa", 16))
	if err := os.Mkdir(theirs, 0o755); err != nil { // others may write, or read, there: it is not ours
		t.Fatal(err)
	}

	for _, remove := range []bool{false, true} {
		before := names()
		list, err := d.Clean(remove)
		if err != nil || len(list) != 2 {
			t.Fatalf("%+v, %v", list, err)
		}
		for _, s := range list {
			if busy := strings.HasSuffix(s.Path, "08"+strings.Repeat("00", 15)); s.Busy != busy || s.Removed != (remove && !busy) || !busy && s.Bytes < mib {
				t.Errorf("remove %v: %+v", remove, s)
			}
		}
		gone := 0
		if remove {
			gone = len(old)
		}
		if after := names(); len(after) != len(before)-gone {
			t.Errorf("remove %v: %v became %v", remove, before, after)
		}
	}
	for _, path := range []string{filepath.Join(elsewhere, "precious"), filepath.Join(dir, "precious"), trap, theirs} {
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
	if list, err := d.Clean(true); err != nil || len(list) != 1 {
		t.Errorf("again: %+v, %v", list, err)
	}
}

// TestCleanOfALedgerAlone: its directory is gone.
func TestCleanOfALedgerAlone(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	l, err := ledger.Open(d.root, ledger.Name([16]byte{7}), [16]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	l.AppendFinished(ledger.Key{1}, ledger.Finished{})
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	if list, err := d.Clean(true); err != nil || len(list) != 1 || !list[0].Busy {
		t.Errorf("%+v, %v", list, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if list, err := d.Clean(true); err != nil || len(list) != 1 || !list[0].Removed {
		t.Errorf("%+v, %v", list, err)
	}
	wantFiles(t, dir, nil)
}
