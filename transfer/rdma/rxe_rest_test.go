//go:build rxe

package rdma

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// TestTheEndIsSeenAmongCompletions: who is told to end asks for nothing more, and answers
// nothing that waits.
func TestTheEndIsSeenAmongCompletions(t *testing.T) {
	eachOp(t, func(t *testing.T, op string) {
		e := newEndsWithin(t, op, mib, nil, nil)
		e.cancel = func() {}
		e.served <- nil // nobody does
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		f := &feed{t: t, size: mib, most: 8}
		if err := e.puller.Pull(ended, f); !errors.Is(err, context.Canceled) || f.next > 0 {
			t.Fatalf("the receiver took %d extents: %v", f.next, err)
		}
		for range e.puller.depth / 2 { // the last of them is signalled
			e.puller.post(transfer.Extent{})
		}
		if err := e.puller.flush(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := e.puller.handle(ctx, f); err != nil { // they have arrived
			t.Fatal(err)
		}
		if err := e.server.Serve(ended, e.src); err != nil || e.server.posted > 0 {
			t.Errorf("the sender answered %d requests: %v", e.server.posted, err)
		}
	})
}

// TestNothingIsPinnedAtRest: when the receiver has asked for all that there is, no window is
// kept, neither one whose last answers are not known to have left, nor one that is made then.
func TestNothingIsPinnedAtRest(t *testing.T) {
	eachOp(t, func(t *testing.T, op string) {
		for name, c := range map[string]struct{ window, extents int }{"lent": {4 * mib, 46}, "being made": {32 * mib, 2}} {
			t.Run(name, func(t *testing.T) {
				const size = 32 * mib
				e := newEndsWithin(t, op, size, nil, nil)
				e.server.windows.size, e.server.windows.least = c.window, 2*mib
				e.server.credits = ibverbs.NewSendCredits(e.server.sends, e.server.sends/2) // few signals
				var made atomic.Int64
				wake := e.server.windows.wake
				e.server.windows.wake = func() {
					wake()
					made.Add(1)
				}
				e.serve(t)
				f := &feed{t: t, size: size, most: c.extents}
				f.onLand = func(landed int) {
					if landed == 1 && name == "lent" {
						awaitWindow(t)
					}
				}
				if err := e.pull(t, f); err != nil || f.landed != f.most {
					t.Fatalf("%d of %d extents landed: %v", f.landed, f.most, err)
				}
				for end := time.Now().Add(patience); made.Load() == 0 || ibverbs.Live()["MR"] > 4; runtime.Gosched() {
					if time.Now().After(end) {
						t.Fatal("a window is registered still")
					}
				}
			})
		}
	})
}

// TestPinnedMemoryIsLimited, which the budget did not know: the ring and the pool are as deep
// as they can be, and a pool that is shallower than the ring serves it. It runs in a process
// that has not the capability for more: the kernel takes a device's calls from whoever opened
// it, so no thread can do without for a while.
func TestPinnedMemoryIsLimited(t *testing.T) {
	const child = "RDMAXFER_TEST_PINNED"
	if os.Getenv(child) == "" {
		cmd := exec.Command("setpriv", "--bounding-set=-ipc_lock", "--", os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), child+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	mine, theirs := NewBudget(64*mib), NewBudget(64*mib)
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		op         string
		limit      uint64
		ring, pool int
	}{
		{OpSend, 13 * mib, 8, 4},
		{OpSend, 19 * mib, 16, 2},
		{OpWrite, 19 * mib, 16, 2},
	} {
		t.Run(fmt.Sprint(c.op, c.pool), func(t *testing.T) {
			const size = 6 * mib // there are no windows of that
			lim.Cur = c.limit
			if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &lim); err != nil {
				t.Fatal(err)
			}
			e := newEndsOf(t, size, func() (*puller, *server) { return connected(t, c.op, "", 16, mine, theirs) })
			own, other := 64-mine.left/mib, 64-(theirs.left+maxWindows*int64(e.server.windows.size))/mib
			if e.puller.depth != c.ring || own != int64(c.ring) || e.server.pool != c.pool || other != int64(c.pool) {
				t.Errorf("a ring of %d for %d MiB and a pool of %d for %d", e.puller.depth, own, e.server.pool, other)
			}
			e.serve(t)
			f := &feed{t: t, size: size, most: 46}
			if err := e.pull(t, f); err != nil || f.landed != f.most {
				t.Errorf("%d of %d extents landed: %v", f.landed, f.most, err)
			}
		})
	}
}

// TestPriceOfADisk: what comes from one tells nothing of windows, by whichever way, and what
// is in the page cache does.
func TestPriceOfADisk(t *testing.T) {
	path := filepath.Join(fileSystem(t, "64M", "ext4"), "file")
	if err := os.WriteFile(path, make([]byte, 16*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, get := range map[string]func() (int64, error){
		"read": func() (int64, error) { return io.Copy(io.Discard, io.NewSectionReader(f, 0, 16*mib)) },
		"window": func() (int64, error) {
			w, err := transfer.OpenWindow(f, 0, mib, 16*mib)
			if err != nil {
				return 0, err
			}
			return int64(len(w.Mapping())), w.Close()
		},
	} {
		for _, cached := range []bool{false, true} {
			if !cached {
				if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
					t.Fatal(err)
				}
			}
			var p price
			p.add(func() int64 {
				n, err := get()
				if n != 16*mib || err != nil {
					t.Errorf("%s: %d bytes: %v", name, n, err)
				}
				return n
			})
			if p.known() != cached {
				t.Errorf("%s, in the page cache %v: %v of %d bytes", name, cached, p.time, p.bytes)
			}
		}
	}
}
