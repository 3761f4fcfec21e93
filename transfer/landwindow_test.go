package transfer

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLandingWindow: whose pages may be pinned, whose are paged, and whose are left alone.
func TestLandingWindow(t *testing.T) {
	shm, err := os.CreateTemp("/dev/shm", "rdmaxfer-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(shm.Name())
	defer shm.Close()
	disk, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var fs unix.Statfs_t
	if err := unix.Statfs(disk.Name(), &fs); err != nil {
		t.Fatal(err)
	}
	memory := fs.Type == unix.TMPFS_MAGIC
	for _, c := range []struct {
		file             *os.File
		onDemand         bool // the device pages
		there, mayNotPin bool
	}{
		{shm, false, true, false},
		{shm, true, true, false},
		{disk, false, memory, !memory},
		{disk, true, windowed[int64(fs.Type)] != "", !memory},
		{null, true, false, false},
	} {
		w, err := OpenLandingWindow(c.file, mib, 5000, c.onDemand)
		if there := err == nil; there != c.there || err != nil && !errors.Is(err, ErrNoWindow) {
			t.Errorf("%s, on demand %v: %v", c.file.Name(), c.onDemand, err)
		}
		if err != nil {
			continue
		}
		if st, err := c.file.Stat(); err != nil || st.Size() < mib+5000 || w.OnDemand != c.mayNotPin || len(w.Mapping()) != 5000 {
			t.Errorf("%s: %d bytes are mapped of %d, on demand %v, %v", c.file.Name(), len(w.Mapping()), st.Size(), w.OnDemand, err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSignalsLeaveRoom: what one breaks off is begun again, and nothing else is.
func TestSignalsLeaveRoom(t *testing.T) {
	for _, want := range []error{nil, unix.ENOSPC} {
		calls := 0
		err := uninterrupted(func() error {
			if calls++; calls < 3 {
				return unix.EINTR
			}
			return want
		})
		if err != want || calls != 3 {
			t.Errorf("%v after %d calls, want %v", err, calls, want)
		}
	}
}
