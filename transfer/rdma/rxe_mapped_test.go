//go:build rxe

package rdma

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// fileFeed is a feed whose extents land in a file, which is compared with what was sent.
type fileFeed struct {
	feed
	pl        *puller
	file      *os.File
	placed    int
	displaced []error
	at        [2]uint64
}

func (f *fileFeed) Verifying() bool { return true }

func (f *fileFeed) Place(transfer.Extent) *os.File {
	for i := range f.pl.asked {
		if mr := f.pl.sink.region(i); mr != nil && f.at[0] == 0 {
			f.at = [2]uint64{uint64(mr.RKey()), mr.Addr(0)}
		}
	}
	return f.file
}

func (f *fileFeed) Placed(e transfer.Extent, b []byte, _ time.Duration) error {
	ring := f.pl.res.data.Bytes()
	if at := uintptr(unsafe.Pointer(&b[0])) - uintptr(unsafe.Pointer(&ring[0])); at < uintptr(len(ring)) {
		f.t.Error("what landed is looked at where the sender can write")
	}
	if _, err := f.file.ReadAt(b, e.Off); err != nil {
		return err
	}
	f.placed++
	return f.Land(e, b)
}

func (f *fileFeed) Displaced(_ transfer.Extent, err error) { f.displaced = append(f.displaced, err) }

// mappedEnds are ends whose receiver maps what lands into a fresh file below dir.
func mappedEnds(t *testing.T, op, dir string, size, most int) (*ends, *fileFeed) {
	t.Helper()
	e := newEnds(t, op, size, 4*mib)
	e.puller.sink = newMapped(e.puller.res, e.puller.depth, e.puller.extent)
	want, err := os.ReadFile(e.path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(dir, "landed"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return e, &fileFeed{feed: feed{t: t, want: want, size: size, most: most}, pl: e.puller, file: file}
}

// fileSystem mounts one of a kind until the test ends.
func fileSystem(t *testing.T, size, kind string) string {
	t.Helper()
	dir := filepath.Join("/dev/shm", strings.ReplaceAll(t.Name(), "/", "-"))
	faults := func(args ...string) {
		if out, err := exec.Command("../../testbed/faults", args...).CombinedOutput(); err != nil {
			t.Fatalf("faults %v: %v\n%s", args, err, out)
		}
	}
	faults("smallfs", dir, size, kind)
	t.Cleanup(func() { faults("smallfs-off", dir) })
	return dir
}

func eachMappedOp(t *testing.T, f func(t *testing.T, op string)) {
	for _, op := range []string{OpWrite, OpRead} {
		t.Run(op, func(t *testing.T) { f(t, op) })
	}
}

// TestMapped lands a file twice over, in tmpfs, whose pages are pinned, in ext4, whose
// pages the device pages on demand, and on a file system of which nothing is known, where
// the ring has it all (TestSinkMapped has the other ops). The last extent is shorter.
func TestMapped(t *testing.T) {
	eachMappedOp(t, func(t *testing.T, op string) {
		for _, kind := range map[string][]string{OpWrite: {"ext4", "unknown"}, OpRead: {"tmpfs"}}[op] {
			t.Run(kind, func(t *testing.T) {
				const size, most = 5*mib + 1, 12
				dir := t.TempDir() // the machine's root: an overlay
				if kind != "unknown" {
					dir = fileSystem(t, "64M", kind)
				}
				e, f := mappedEnds(t, op, dir, size, most)
				if err := e.pull(t, &f.feed); err != nil || f.landed != most { // a feed without files
					t.Fatalf("without a file %d of %d extents landed: %v", f.landed, most, err)
				}
				f.next, f.landed = 0, 0
				if err := e.pullInto(t, f); err != nil {
					t.Fatalf("after %d of %d extents: %v", f.landed, most, err)
				}
				if want := map[bool]int{true: most}[kind != "unknown"]; f.landed != most || f.placed != want {
					t.Errorf("%d extents landed, %d of them in the file", f.landed, f.placed)
				}
				if want := map[bool]string{true: "sink=mapped", false: "sink=ring"}[kind != "unknown"]; !strings.HasSuffix(e.puller.Describe(), want) {
					t.Errorf("it describes itself as %q", e.puller.Describe())
				}
				e.cancelAndWait()
				for i := range e.puller.depth {
					if e.puller.sink.region(i) != nil {
						t.Errorf("the file is registered still, for request %d", i)
					}
				}
				if kind == "unknown" {
					return
				}
				if err := f.file.Sync(); err != nil {
					t.Fatal(err)
				}
				// What the disk has, not the pages.
				if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0); err != nil {
					t.Fatal(err)
				}
				got, err := os.ReadFile(f.file.Name())
				if err != nil || !bytes.Equal(got, f.want) {
					t.Errorf("the file is not what was sent (%d bytes of %d, %v)", len(got), size, err)
				}
			})
		}
	})
}

func (e *ends) pullInto(t *testing.T, f *fileFeed) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return e.puller.Pull(ctx, f)
}

// cancelAndWait ends the sender, whose end the clean-up hears of again.
func (e *ends) cancelAndWait() {
	e.cancel()
	e.served <- <-e.served
}

// TestMappedFull: that there is no room is fallocate's error, and the file's alone.
func TestMappedFull(t *testing.T) {
	e, f := mappedEnds(t, OpRead, fileSystem(t, "3M", "tmpfs"), 8*mib, 8)
	if err := e.pullInto(t, f); err != nil {
		t.Fatal(err)
	}
	if f.placed != 3 || len(f.displaced) != 5 || !errors.Is(f.displaced[0], syscall.ENOSPC) {
		t.Errorf("%d extents landed; %v", f.placed, f.displaced)
	}
}

// TestMappedBreaks: when a lane has ended nothing lands in the file any more.
func TestMappedBreaks(t *testing.T) {
	eachMappedOp(t, func(t *testing.T, op string) {
		e, f := mappedEnds(t, op, fileSystem(t, "64M", "tmpfs"), 8*mib, 1<<20)
		f.onLand = func(landed int) {
			if landed == 6 {
				if err := e.server.res.qp.Fail(); err != nil {
					t.Error(err)
				}
			}
		}
		var wc *ibverbs.WCError
		if err := e.pullInto(t, f); !errors.As(err, &wc) {
			t.Errorf("the receiver ended with %v; want a completion's error", err)
		}
		if err := errors.Join(e.puller.res.disconnect(), e.puller.sink.close()); err != nil {
			t.Error(err)
		}
		before, err := os.ReadFile(f.file.Name())
		if err != nil {
			t.Fatal(err)
		}
		e.cancelAndWait()
		if after, err := os.ReadFile(f.file.Name()); err != nil || !bytes.Equal(before, after) {
			t.Errorf("something landed after the lane had ended (%v)", err)
		}
	})
}

// TestMappedIsOver: the sender can't reach what has landed.
func TestMappedIsOver(t *testing.T) {
	e, f := mappedEnds(t, OpWrite, fileSystem(t, "64M", "tmpfs"), 8*mib, 8)
	if err := e.pullInto(t, f); err != nil || f.placed != 8 {
		t.Fatal(f.placed, err)
	}
	e.cancelAndWait()
	wr := ibverbs.SendWR{Opcode: ibverbs.OpWrite, Flags: ibverbs.SendSignaled, RKey: uint32(f.at[0]), RemoteAddr: f.at[1], NumSGE: 1}
	wr.SGE[0] = e.server.res.data.SGE(0, 4096)
	if _, err := e.server.res.qp.PostSend([]ibverbs.SendWR{wr}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		n, err := e.server.res.cq.WaitPoll(ctx, e.server.wcs[:1])
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 || e.server.wcs[0].ID != 0 {
			continue // of an answer
		}
		if s := e.server.wcs[0].Status; s != ibverbs.WCRemAccessErr {
			t.Errorf("a write to where an extent had landed: %v", s)
		}
		return
	}
}

// TestMappedHasTimeToPage: on hardware it is the receiver's timer that says how long a page
// may take (soft-RoCE pages while the message waits, and never uses it).
func TestMappedHasTimeToPage(t *testing.T) {
	eachMappedOp(t, func(t *testing.T, op string) {
		pl, s := connected(t, op, SinkMapped, 4, nil, nil)
		if !pl.sink.onDemand {
			t.Error("this device does not page on demand")
		}
		want := map[string]uint8{OpWrite: pagingTimer, OpRead: 12}[op]
		if mine, theirs := pl.res.qp.Params().MinRNRTimer, s.res.qp.Params().MinRNRTimer; mine != want || theirs != 12 {
			t.Errorf("%d at the receiver, %d at the sender", mine, theirs)
		}
		if err := errors.Join(pl.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
}
