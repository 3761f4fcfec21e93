package rdma

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// madeEnd notes that it was closed.
type madeEnd struct{ closed bool }

func (m *madeEnd) Close() error {
	m.closed = true
	return nil
}

// TestDriverThatHangs is not waited for, and what it makes at last is closed; one that answers
// late, but in time for whoever ends, hands over what it made.
func TestDriverThatHangs(t *testing.T) {
	for _, c := range []struct {
		name           string
		takes, context time.Duration
		left           bool // behind
	}{
		{"at once", 0, time.Minute, false},
		{"late", time.Second + hangGrace - 1, time.Second, false},
		{"hangs", time.Hour, time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.context)
				defer cancel()
				made := new(madeEnd)
				began := time.Now()
				got, err := unlessHung(ctx, "x0", func() (*madeEnd, error) {
					time.Sleep(c.takes)
					return made, nil
				})
				if c.left {
					if got != nil || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "x0 has not answered") || time.Since(began) != c.context+hangGrace {
						t.Errorf("%v, %v after %v", got, err, time.Since(began))
					}
				} else if got != made || err != nil {
					t.Errorf("%v, %v", got, err)
				}
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				if made.closed != c.left || hung.Load() != 0 {
					t.Errorf("closed %t, %d left behind", made.closed, hung.Load())
				}
			})
		})
	}
}

// TestDriversThatHangAreCounted: each keeps a thread, and nobody asks them without end.
func TestDriversThatHangAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		over := make(chan struct{})
		var asked atomic.Int32
		for range mostHung + 3 {
			_, err := unlessHung(ctx, "x0", func() (*madeEnd, error) {
				asked.Add(1)
				<-over
				return nil, errors.New("at last")
			})
			if err == nil {
				t.Error("nothing hangs")
			}
		}
		close(over)
		synctest.Wait()
		if asked.Load() != mostHung || hung.Load() != 0 {
			t.Errorf("asked %d times, %d left behind", asked.Load(), hung.Load())
		}
	})
}

// TestConnectThatIsNotAskedFor leaves nothing of the lane behind.
func TestConnectThatIsNotAskedFor(t *testing.T) {
	hung.Store(mostHung)
	defer hung.Store(0)
	memory := &Budget{total: 4 << 20, left: 1 << 20}
	pl := &puller{extent: 1 << 20, depth: 3, res: &resources{memory: memory, shape: shape{payload: 3 << 20}}}
	if _, err := pl.Connect(t.Context(), nil); !errors.Is(err, errNotAsked) {
		t.Error(err)
	}
	if memory.left != memory.total {
		t.Errorf("%d bytes of %d came back", memory.left, memory.total)
	}
}
