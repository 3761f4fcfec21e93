package transfer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
)

// putAt is what a lane that places extents does.
func putAt(_ context.Context, _ string, file *os.File, e Extent, p []byte) error {
	_, err := file.WriteAt(p, e.Off)
	return err
}

// placing runs a transfer whose lanes place what they can, and gives how many extents
// they did.
func placing(t *testing.T, verify string, place func(ctx context.Context, path string, file *os.File, e Extent, p []byte) error, files ...[2]string) (s, r *end, n int) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil, files...)
		e.Sender.Verify = verify
		var mu sync.Mutex
		e.lane.place = func(ctx context.Context, path string, file *os.File, x Extent, p []byte) error {
			mu.Lock()
			defer mu.Unlock()
			n++
			return place(ctx, path, file, x, p)
		}
		s, r = e.run(t, t.Context(), t.Context())
		for _, f := range files {
			got, err := os.ReadFile(filepath.Join(e.dir, f[0]))
			landed := err == nil && string(got) == f[1]
			if whole := r.err == nil || f[0] == "good"; landed != whole {
				t.Errorf("%s: %d bytes of %d, %v; whole: %t, want %t", f[0], len(got), len(f[1]), err, landed, whole)
			}
		}
	})
	return s, r, n
}

func TestPlacedExtentsAreThere(t *testing.T) {
	for _, verify := range []string{VerifyBLAKE3, VerifyCRC32C, VerifyNone} {
		// The small ones travel in a pack, which is not placed.
		s, r, n := placing(t, verify, putAt, [2]string{"f", random(5*mib + 7)}, [2]string{"small", random(1000)}, [2]string{"g", random(2 * mib)}, [2]string{"holes", string(make([]byte, 4*mib))})
		if s.err != nil || r.err != nil || n < 8 {
			t.Errorf("%s: %d extents were placed: %v, %v", verify, n, s.err, r.err)
		}
	}
}

// TestDigestsOfPlacedExtentsAreTheFiles: what lies in the file is what is verified.
func TestDigestsOfPlacedExtentsAreTheFiles(t *testing.T) {
	for times := 1; times <= maxAttempts; times++ {
		left := times
		s, r, n := placing(t, VerifyBLAKE3, func(ctx context.Context, path string, file *os.File, e Extent, p []byte) error {
			if err := putAt(ctx, path, file, e, p); err != nil || e.Off != mib || left == 0 {
				return err
			}
			left--
			_, err := file.WriteAt([]byte{p[77] ^ 1}, e.Off+77)
			return err
		}, [2]string{"f", random(3 * mib)})
		if times < maxAttempts {
			if s.err != nil || r.err != nil || n != 3+times {
				t.Errorf("damaged %d times: %d were placed, %v, %v", times, n, s.err, r.err)
			}
			continue
		}
		wantCode(t, s.err, CodeIntegrity, "damaged")
		wantCode(t, r.err, CodeIntegrity, "damaged")
	}
}

// TestDisplacedExtentFailsItsFile alone, by the error that the write had.
func TestDisplacedExtentFailsItsFile(t *testing.T) {
	s, r, _ := placing(t, VerifyBLAKE3, func(ctx context.Context, path string, file *os.File, e Extent, p []byte) error {
		if e.File == 0 && e.Off == mib {
			return syscall.ENOSPC
		}
		return putAt(ctx, path, file, e, p)
	}, [2]string{"full", random(3 * mib)}, [2]string{"good", random(2 * mib)})
	for _, end := range []*end{s, r} {
		wantCode(t, end.err, CodePartial, "1 of 2")
		if end.Failed != 1 || end.Files != 1 {
			t.Errorf("%+v", end.Result)
		}
	}
	for _, f := range r.files {
		if f.Err != nil {
			wantCode(t, f.Err, CodeLocalIO, "no space left on device", "make room")
		}
	}
}

// TestLaneThatBreaksInAPlacedExtent gives it back: it lands over the next lane, which
// places nothing here.
func TestLaneThatBreaksInAPlacedExtent(t *testing.T) {
	broke := false
	s, r, n := placing(t, VerifyNone, func(ctx context.Context, path string, file *os.File, e Extent, p []byte) error {
		if e.Off == mib && !broke {
			broke = true
			if err := putAt(ctx, path, file, e, make([]byte, 1000)); err != nil {
				return err
			}
			return errBroken
		}
		return putAt(ctx, path, file, e, p)
	}, [2]string{"f", random(4 * mib)})
	if s.err != nil || r.err != nil || n != 2 {
		t.Errorf("%d were placed: %v, %v", n, s.err, r.err)
	}
}

// TestLaneThatIsStuckInAPlacedExtent holds nothing up, though no other lane may have the
// extent as long as it lives.
func TestLaneThatIsStuckInAPlacedExtent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rails(t, 2, 64, even, nil)
		var once sync.Once
		e.lane.place = func(ctx context.Context, path string, file *os.File, x Extent, p []byte) error {
			stuck := false
			if path == "two" {
				once.Do(func() { stuck = true })
			}
			if stuck {
				<-ctx.Done()
				return errBroken
			}
			return putAt(ctx, path, file, x, p)
		}
		if _, r, _ := e.runWhole(t); r.Elapsed > 5*time.Second {
			t.Errorf("it took %v", r.Elapsed)
		}
	})
}

// TestPlacedExtentIsOneLanesAlone: while it lands no other lane is given it, and what two
// lanes have is not placed.
func TestPlacedExtentIsOneLanesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		p := &pull{Receiver: new(Receiver), sched: newScheduler(mib), files: make(map[uint32]*inbound), verify: digest.None}
		p.lanes.init(p)
		p.files[0] = &inbound{landing: nowhere{file}, total: 2, size: 2 * mib}
		var ended error
		slow := &laneFeed{l: &p.lanes, id: 1, kill: func(err error) { ended = errors.Join(ended, err) }}
		quick := &laneFeed{l: &p.lanes, id: 2, typical: unknownTime}
		p.lanes.up[1], p.lanes.up[2] = slow, quick

		shared := Extent{Off: mib, Len: mib}
		slow.take(shared, nil)
		time.Sleep(2*unknownTime + 1)
		if got, ok := quick.TryNext(); !ok || got != shared {
			t.Fatalf("took over %v, %v", got, ok)
		}
		if slow.Place(shared) != nil || quick.Place(shared) != nil {
			t.Error("what two lanes have was placed")
		}

		alone := Extent{Len: mib}
		slow.take(alone, nil)
		if slow.Place(alone) != file {
			t.Fatal("not placed")
		}
		time.Sleep(2 * unknownTime)
		if e, ok := quick.TryNext(); ok || ended != nil {
			t.Errorf("%v was given to two lanes, or the first was ended too early: %v", e, ended)
		}
		time.Sleep(time.Nanosecond)
		if e, ok := quick.TryNext(); ok || ended == nil {
			t.Errorf("%v was given to two lanes, or the first was not ended", e)
		}
		if back := slow.rest(); len(back) != 1 || back[0] != alone {
			t.Errorf("the lane that ended gives back %v", back)
		}
	})
}
