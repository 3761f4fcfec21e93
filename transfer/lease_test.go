package transfer

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// lease takes one of a file (fcntl(2)). broken is told when somebody wants the file, until it is
// stopped; letGo lets them have it.
func lease(t *testing.T, path string) (broken chan os.Signal, letGo func()) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	broken = make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGIO)
	set := func(kind int) {
		if _, err := unix.FcntlInt(file.Fd(), unix.F_SETLEASE, kind); err != nil {
			t.Error(err)
		}
	}
	set(unix.F_WRLCK)
	return broken, func() { set(unix.F_UNLCK) }
}

// TestLeasedSource: who has a lease of it is asked to let go, and is waited for.
func TestLeasedSource(t *testing.T) {
	dir := t.TempDir()
	for name, read := range map[string]func(*Source) error{
		"small": func(s *Source) error {
			f, err := s.Next()
			if err != nil {
				return err
			}
			b := make([]byte, f.Size)
			s.failed = func(_ uint32, why error) { err = why }
			if ok, rerr := s.Read(wire.Request{Length: uint32(f.Size), Count: 1}, b); err == nil && (!ok || rerr != nil || string(b) != "hello") {
				err = fmt.Errorf("%t, %v: %q", ok, rerr, b)
			}
			return err
		},
		"large": func(s *Source) error {
			f, err := openSource(s.walk.roots[0])
			if err == nil {
				f.Close()
			}
			return err
		},
	} {
		path := filepath.Join(dir, name)
		write(t, path, "hello")
		src, err := OpenSource([]string{path}, SourceOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		broken, letGo := lease(t, path)
		var holder sync.WaitGroup
		holder.Go(func() {
			<-broken
			letGo()
		})
		if err := read(src); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		signal.Stop(broken)
		close(broken)
		holder.Wait()
	}
}

// TestLeaseHoldsUpNobodyElse: a file that somebody has a lease of is given up at once.
func TestLeaseHoldsUpNobodyElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "hello")
	f := newSourceFile(&found{path: path, stamp: stampOfPath(t, path), entry: wire.Entry{Size: 5}}, new(storage))
	broken, letGo := lease(t, path)
	defer signal.Stop(broken)
	before := openFiles(t)
	opened := make(chan error, 1)
	go func() {
		_, err := f.open()
		opened <- err
	}()
	<-broken // it waits
	f.release()
	select {
	case err := <-opened:
		t.Errorf("it has not waited: %v", err)
	default:
	}
	letGo()
	if err := <-opened; err != errOver {
		t.Error(err)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
