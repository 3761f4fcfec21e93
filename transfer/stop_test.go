package transfer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// TestStoppedEndLeavesNothingElse than its parts: it ends either end's context in the middle.
func TestStoppedEndLeavesNothingElse(t *testing.T) {
	signal := &Error{Code: 130, Err: errors.New("stopped by a signal")}
	for _, who := range []string{"sender", "receiver"} {
		for _, at := range []int{0, 5} {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancelCause(t.Context())
				e := newEngine(t, func(a *memAnswer) error {
					if a.nth == at {
						stop(signal)
					}
					return nil
				}, [2]string{"f", random(30 * mib)}, [2]string{"g", ""})
				sctx, rctx := ctx, t.Context()
				if who == "receiver" {
					sctx, rctx = rctx, sctx
				}
				s, r := e.run(t, sctx, rctx)
				stopped, other := s, r
				if who == "receiver" {
					stopped, other = r, s
				}
				if CodeOf(stopped.err) != 130 {
					t.Errorf("%s: %v", who, stopped.err)
				}
				wantCode(t, other.err, CodeConnect, "stopped by a signal")
				if left := openDescriptors(t, e.dir); len(left) > 0 {
					t.Errorf("open: %v", left)
				}
				for _, f := range r.files {
					if f.Err == nil && f.Path != "g" {
						t.Errorf("%s landed", f.Path)
					}
				}
				os.Remove(filepath.Join(e.dir, "g")) // an empty file may have landed before
				wantStaged(t, e.dir)
			})
		}
	}
}

// wantStaged checks that a directory holds nothing, or no more than what an interrupted
// transfer left.
func wantStaged(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), stagingPrefix) {
			t.Errorf("%s is left", e.Name())
		}
	}
}

// gate is a sink whose Check waits.
type gate struct {
	Sink
	entered, open chan struct{}
}

func (g *gate) Begin(id [16]byte) (Destination, error) {
	d, err := g.Sink.Begin(id)
	return gated{d, g}, err
}

type gated struct {
	Destination
	g *gate
}

func (d gated) Check(e *wire.Entry) (*Finished, error) {
	d.g.entered <- struct{}{}
	<-d.g.open
	return d.Destination.Check(e)
}

// TestStoppedInTheMiddleOfTheManifest: an entry that is at work when the transfer
// is given up, and such as come after it, leave nothing.
func TestStoppedInTheMiddleOfTheManifest(t *testing.T) {
	for _, wait := range []time.Duration{lingerTime / 2, 2 * lingerTime} { // by the bubble's clock
		synctest.Test(t, func(t *testing.T) {
			ctx, stop := context.WithCancelCause(t.Context())
			d, dir := into(t, OverwriteNever)
			g := &gate{d, make(chan struct{}, 100), make(chan struct{})}
			bad := againstReceiver(t, ctx, VerifyBLAKE3, g)
			bad.dir = dir
			bad.say(entry(0, "a", 5))
			<-g.entered
			stop(errors.New("stopped"))
			time.Sleep(wait)
			close(g.open)
			bad.say(entry(1, "b", 5), entry(2, "c", 5))
			wantCode(t, bad.finish().err, CodeOther, "stopped")
			wantFiles(t, dir, nil)
			if n := len(g.entered); n > 0 {
				t.Errorf("%d entries were begun after the end", n)
			}
		})
	}
}

// slow is a transport that takes its time, whatever its context says.
type slow struct {
	*memory
	closed *bool
}

func (s slow) Prepare(ctx context.Context, h *wire.Hello, p LaneParams, open *wire.OpenLane) (PendingPuller, error) {
	time.Sleep(5 * time.Second)
	_, err := s.memory.Prepare(ctx, h, p, open)
	return s, err
}

func (s slow) Connect(context.Context, *wire.LaneAnswer) (Puller, error) { panic("nobody answered") }

func (s slow) Close() error {
	*s.closed = true
	return nil
}

// TestStoppedWhileALaneOpens: what it holds is freed before the transfer is over.
func TestStoppedWhileALaneOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil)
		closed := false
		e.Receiver.RDMA = slow{e.lane, &closed}
		ctx, stop := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { stop(errors.New("stopped")) })
		_, r := e.run(t, t.Context(), ctx)
		wantCode(t, r.err, CodeOther, "stopped")
		if !closed {
			t.Error("the lane is still held")
		}
	})
}

func TestStoppedBeforeTheGreeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil)
		a, b := sessions(t)
		h := newHostile(t, a)
		ctx, stop := context.WithCancelCause(t.Context())
		go func() {
			await[*wire.Abort](h)
			a.Close()
		}()
		time.AfterFunc(time.Second, func() { stop(os.ErrProcessDone) })
		began := time.Now()
		if _, err := e.Receive(ctx, b); !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// dull is an observer that is slow to take things in.
type dull struct {
	end
	awake bool
}

func (d *dull) Paths(*PathReport) {}

func (d *dull) Planned(Plan) {
	time.Sleep(5 * time.Second)
	d.awake = true
}

// TestStoppedSenderHasEnded: nothing of it goes on when it has given its result.
func TestStoppedSenderHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		e := newEngine(t, nil)
		a, b := sessions(t)
		h := newHostile(t, b)
		observer := new(dull)
		e.Sender.Observer = observer
		go func() {
			h.say(welcome, &wire.Plan{})
			synctest.Wait() // the observer sleeps
			stop()
			await[*wire.Abort](h)
			b.Close()
		}()
		if _, err := e.over(ctx, a, nil); err == nil {
			t.Error("no error")
		}
		if !observer.awake {
			t.Error("its observer is still being told things")
		}
	})
}
