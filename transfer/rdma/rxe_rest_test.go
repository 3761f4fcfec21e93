//go:build rxe

package rdma

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

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
