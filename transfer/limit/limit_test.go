package limit

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const extent = 1 << 20

// off reports how far d is from what bytes take at a rate.
func off(d time.Duration, bytes int, r Rate) time.Duration {
	return (d - time.Duration(float64(bytes)/float64(r)*float64(time.Second))).Abs()
}

// TestExactFromTheFirstByte: at no extent has more gone than the rate allows since
// the first was asked for, nor less.
func TestExactFromTheFirstByte(t *testing.T) {
	for _, r := range []Rate{1, 999, 20_000_000, 20 << 20, 12_500_000_000} {
		synctest.Test(t, func(t *testing.T) {
			l := New(r)
			time.Sleep(time.Hour) // a limiter is made before its transfer begins
			began, bytes := time.Now(), 0
			for i := range 200 {
				n := min(extent, 10*int(r)) + i
				if err := l.Wait(t.Context(), n); err != nil {
					t.Fatal(err)
				}
				bytes += n
				if d := off(time.Since(began), bytes, r); d > 2*time.Nanosecond {
					t.Fatalf("%d bytes a second: %d bytes after %v, wrong by %v", r, bytes, time.Since(began), d)
				}
			}
		})
	}
}

// TestLanesShareTheRate whatever their number, and take turns.
func TestLanesShareTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lanes, each, r = 8, 50, Rate(20_000_000)
		l := New(r)
		began := time.Now()
		var done [lanes]time.Duration
		var all sync.WaitGroup
		for lane := range lanes {
			all.Go(func() {
				for range each {
					l.Wait(t.Context(), extent)
				}
				done[lane] = time.Since(began)
			})
		}
		all.Wait()
		if d := off(time.Since(began), lanes*each*extent, r); d > 10*time.Nanosecond {
			t.Errorf("%v, wrong by %v", time.Since(began), d)
		}
		first := done[0]
		for _, d := range done {
			first = min(first, d)
		}
		// Nobody is ahead by more than an extent of each.
		if lead := time.Since(began) - first; lead > lanes*extent*time.Second/time.Duration(r) {
			t.Errorf("a lane was %v ahead", lead)
		}
	})
}

// TestAPauseIsLost but for 10 ms.
func TestAPauseIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 100 * extent
		l := New(r)
		l.Wait(t.Context(), extent)
		for _, c := range []struct{ pause, want time.Duration }{
			{0, 10 * time.Millisecond},
			{4 * time.Millisecond, 6 * time.Millisecond}, // a timer that came late
			{10 * time.Millisecond, 0},
			{time.Hour, 0},
			{0, 10 * time.Millisecond},
		} {
			time.Sleep(c.pause)
			began := time.Now()
			l.Wait(t.Context(), extent)
			if got := time.Since(began); (got - c.want).Abs() > 2*time.Nanosecond {
				t.Errorf("%v after a pause of %v, want %v", got, c.pause, c.want)
			}
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1000)
		gone := errors.New("the lane is gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(3*time.Second, func() { cancel(gone) })
		began := time.Now()
		if err := l.Wait(ctx, 5000); !errors.Is(err, gone) || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err := l.Wait(ctx, 1); !errors.Is(err, gone) {
			t.Errorf("after the end: %v", err)
		}
		short, stop := context.WithTimeout(t.Context(), time.Millisecond)
		defer stop()
		if err := l.Wait(short, 5000); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("past the deadline: %v", err)
		}
		// What nobody got is there for others: 1 byte a millisecond, as ever.
		began = time.Now()
		l.Wait(t.Context(), 10)
		if got := time.Since(began); got > 10*time.Millisecond {
			t.Errorf("10 bytes took %v", got)
		}
	})
}

func TestNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l *Limiter
		began := time.Now()
		if err := l.Wait(t.Context(), math.MaxInt); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Wait(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("after the end: %v", err)
		}
	})
}
