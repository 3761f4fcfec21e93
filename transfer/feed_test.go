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
