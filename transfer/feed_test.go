package transfer

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestSlowDiskIsNoSilence of the peer's: what came is being written.
func TestSlowDiskIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &laneFeed{taken: []taken{{}}, since: time.Now()}
		f.lands(true)
		time.Sleep(2 * stallLimit)
		if f.stalled(time.Now(), stallLimit) {
			t.Error("stalled while it writes")
		}
		f.lands(false)
		if f.stalled(time.Now(), stallLimit) {
			t.Error("stalled as soon as that is written")
		}
		time.Sleep(2 * stallLimit)
		if !f.stalled(time.Now(), stallLimit) {
			t.Error("not stalled, though nothing comes")
		}
	})
}

// TestHandsOfOthers: who waits for one, since other transfers have them all, can be ended.
func TestHandsOfOthers(t *testing.T) {
	for range cap(hands) {
		hands <- struct{}{}
	}
	defer func() {
		for range cap(hands) {
			<-hands
		}
	}()
	var files [][2]string
	for i := range 4 {
		files = append(files, [2]string{fmt.Sprint(i), "small"})
	}
	stopped := errors.New("stopped by its user")
	ctx, cancel := context.WithCancelCause(t.Context())
	asked := make(chan struct{}, 1)
	e := newEngine(t, func(*memAnswer) error {
		select {
		case asked <- struct{}{}:
		default:
		}
		return nil
	}, files...)
	go func() {
		<-asked
		cancel(stopped)
	}()
	if _, r := e.run(t, t.Context(), ctx); !errors.Is(r.err, stopped) {
		t.Errorf("%v", r.err)
	}
}

// TestWhatComesInItsTurnIsServedOnce, though the last of many was asked for long ago; and in no
// haste while the sender names more. When nothing comes any more, another lane asks for it.
func TestWhatComesInItsTurnIsServedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(lanes)
		l.init(&pull{sched: newScheduler(mib)})
		l.p.manifest.ended = true
		f := &laneFeed{l: l, id: 1}
		idle := &laneFeed{l: l, id: 2, typical: 10 * time.Millisecond}
		l.up[1], l.up[2] = f, idle
		ask := func() (last Extent) {
			for n := range uint32(16) {
				last = Extent{File: n, Len: mib}
				f.take(last, nil)
			}
			return last
		}
		last := ask()
		for n := range uint32(12) {
			time.Sleep(40 * time.Millisecond)
			f.untake(Extent{File: n, Len: mib})
		}
		if e, ok := idle.TryNext(); ok {
			t.Fatalf("%v, which is to come in 160 ms, was asked for twice", e)
		}
		time.Sleep(worthTwice)
		if e, ok := idle.TryNext(); !ok || e != last {
			t.Fatalf("%v, %v, though nothing comes", e, ok)
		}

		l.p.manifest = manifest{entries: 16, granted: 17}
		f.taken, idle.taken = nil, nil
		last = ask()
		time.Sleep(unknownTime)
		if e, ok := idle.TryNext(); ok {
			t.Fatalf("%v was asked for twice, though there is more to come", e)
		}
		time.Sleep(time.Millisecond)
		if e, ok := idle.TryNext(); !ok || e != last {
			t.Fatalf("%v, %v, though nothing comes", e, ok)
		}
	})
}
