package transfer

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/limit"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// TestLaneThatIsGivenUpWaitsForNoLimit: its turn is the others', and what it holds is freed.
func TestLaneThatIsGivenUpWaitsForNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := against(t, t.Context(), func(s *Sender) { s.Limit = 1 })
		bad.lane.Prepare(t.Context(), nil, LaneParams{ID: 1, Depth: 1}, new(wire.OpenLane))
		bad.say(welcome, &wire.OpenLane{ID: 1, Depth: 1, RDMA: &wire.RDMALane{QP: wire.QueuePair{MTU: 1}}}, &wire.Plan{})
		await[*wire.ManifestEnd](bad.hostile)
		lane := bad.lane.lanes[1]
		lane.requests <- wire.Request{Count: 1, Length: uint32(len("hello"))}
		synctest.Wait()
		bad.say(&wire.LaneDown{ID: 1})
		synctest.Wait()
		select {
		case <-lane.broken:
		default:
			t.Error("its server waits for the rate limit still")
		}
		bad.finish()
	})
}

// TestLowLimitEndsNoLane: an answer comes when every lane had its turn.
func TestLowLimitEndsNoLane(t *testing.T) {
	for _, lanes := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			e := rails(t, lanes, 6, nil, nil)
			e.Sender.Limit = 32_000 // 33 s an extent
			_, r, _ := e.runWhole(t)
			for _, p := range r.plans {
				if p.Reason != "" {
					t.Errorf("%d lanes: %+v", lanes, p)
				}
			}
		})
	}
}

// TestReceiverHearsOfALowLimitAlone: one that is older does not know the word, and needs it not.
func TestReceiverHearsOfALowLimitAlone(t *testing.T) {
	for r, want := range map[limit.Rate]limit.Rate{0: 0, 1: 1, 32_000: 32_000, 1 << 20: 1 << 20, 10 << 20: 0, 1 << 40: 0} {
		if got := lowRate(r); got != want {
			t.Errorf("of %d bytes a second it is told %d, want %d", r, got, want)
		}
	}
}

// trickle is a lane that brings a byte a second.
type trickle struct {
	Puller
	began, until time.Time
}

func (l *trickle) Arrived() uint64 {
	now := time.Now()
	if now.After(l.until) {
		now = l.until
	}
	return uint64(now.Sub(l.began) / time.Second)
}

func (*trickle) Busy() bool { return false }

// slowDisk is a lane whose extent has come, and goes into its file.
type slowDisk struct{ Puller }

func (slowDisk) Arrived() uint64 { return mib }
func (slowDisk) Busy() bool      { return true }

// TestSlowDiskOfAPlacedExtentIsNoSilence, nor is it another lane's to end.
func TestSlowDiskOfAPlacedExtentIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(lanes)
		l.init(&pull{sched: newScheduler(mib)})
		ended := false
		f := &laneFeed{l: l, id: 1, kill: func(error) { ended = true }, puller: slowDisk{}, since: time.Now()}
		idle := &laneFeed{l: l, id: 2, typical: time.Millisecond}
		l.up[1], l.up[2] = f, idle
		f.taken = []taken{{Extent: Extent{Len: mib}, at: time.Now(), placed: time.Now()}}
		for range 100 {
			time.Sleep(time.Second)
			if _, ok := idle.TryNext(); ok || ended || f.stalled(time.Now(), stallLimit) {
				t.Fatal("a lane was ended, or taken for silent")
			}
		}
	})
}

// TestSlowLinkIsNoSilence: an extent may take minutes, while something of it comes.
func TestSlowLinkIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		f := &laneFeed{taken: []taken{{}}, since: now, puller: &trickle{began: now, until: now.Add(time.Hour)}}
		for range 60 * 60 {
			time.Sleep(time.Second)
			if f.stalled(time.Now(), stallLimit) {
				t.Fatalf("stalled after %v", time.Since(now))
			}
		}
		time.Sleep(stallLimit + 1)
		if !f.stalled(time.Now(), stallLimit) {
			t.Error("not stalled, though nothing comes any more")
		}
	})
}

// TestPlacedExtentsOnASlowLink: who has landed nothing yet does not know better than the lane
// in whose file an extent lands for long.
func TestPlacedExtentsOnASlowLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(lanes)
		l.init(&pull{sched: newScheduler(mib)})
		ended := false
		busy := &laneFeed{l: l, id: 1, kill: func(error) { ended = true }}
		idle := &laneFeed{l: l, id: 2}
		l.up[1], l.up[2] = busy, idle
		busy.taken = []taken{{Extent: Extent{Len: mib}, at: time.Now(), placed: time.Now()}}
		time.Sleep(stallLimit)
		if _, ok := idle.TryNext(); ok || ended {
			t.Error("a lane was ended by one that knows nothing")
		}
		idle.typical = stallLimit / 3
		if _, ok := idle.TryNext(); ok || !ended {
			t.Error("it was not ended by one that is quicker")
		}
	})
}
