package transfer

import (
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// What a peer says there is to be measured takes no memory: only what is in flight does.
// Answers may come in any order.
func TestMeasuredFeedKeepsWhatIsInFlight(t *testing.T) {
	f := &measuredFeed{Measure: &wire.Measure{Size: 2, Depth: 3, Extents: math.MaxUint32, Nanoseconds: math.MaxInt64},
		began: func() error { return nil }, took: NewLatency()}
	var flying []Extent
	last := int64(-2)
	for i := range 1000 {
		for {
			e, ok := f.TryNext()
			if !ok {
				break
			}
			if e.Off != last+2 || e.Len != 2 {
				t.Fatalf("after %d: %+v", last, e)
			}
			last = e.Off
			flying = append(flying, e)
		}
		if len(flying) != 3 || cap(f.inFlight) > 4 {
			t.Fatalf("%d in flight, room for %d", len(flying), cap(f.inFlight))
		}
		n := i % 3
		if err := f.Land(flying[n], make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		flying = append(flying[:n], flying[n+1:]...)
	}
	if f.landed != 999 { // the first began it
		t.Errorf("%d landed", f.landed)
	}
}

// What holds one answer up counts for all that were due meanwhile, as it would for those
// who wait for them: a stall of 55 ms with a request due every 10 ms is one of 55, of 46 and
// so on, and not one slow answer among fast ones.
func TestOpenLoopCountsFromWhenItWasDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		f := &measuredFeed{Measure: &wire.Measure{Size: 1, Depth: 1, Extents: 9, Nanoseconds: int64(145 * ms), Interval: int64(10 * ms)},
			began: func() error { return nil }, took: NewLatency(), await: func(at time.Time) { time.Sleep(time.Until(at)) }}
		for i := 0; !f.over; i++ {
			e, ok := f.TryNext()
			if !ok {
				t.Fatal("nothing is in flight, and no request comes")
			}
			if _, ok := f.TryNext(); ok {
				t.Fatal("two are in flight")
			}
			time.Sleep(map[bool]time.Duration{true: 55 * ms, false: ms}[i == 5])
			if err := f.Land(e, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		var got []int64
		for _, bar := range f.took.Distribution() {
			for range bar.Count {
				got = append(got, int64(math.Round(float64(bar.To)/1e6)))
			}
		}
		// Due from 10 to 150 ms; the one at 50 ms stalls, and those until 100 ms behind it.
		want := []int64{1, 1, 1, 1, 1, 1, 1, 1, 1, 10, 19, 28, 37, 46, 55}
		if !slices.Equal(got, want) {
			t.Errorf("%v ms, want %v", got, want)
		}
	})
}

func TestUsageIsReadAsTheKernelWritesIt(t *testing.T) {
	busy, soft, idle := hostTicks([]byte("cpu  100 20 3 4000 500 6 7 8 9 10"))
	if busy != 1360*time.Millisecond || soft != 70*time.Millisecond || idle != 45*time.Second {
		t.Errorf("busy %v, softirq %v, idle %v", busy, soft, idle)
	}
	m := memoryOf([]byte("Name:\tx\nVmPin:\t     512 kB\nVmHWM:\t   10240 kB\nVmRSS:\t    9000 kB\nRssAnon:\t    2048 kB\nRssFile:\t 1 kB\n"))
	if m != (Memory{2 << 20, 512 << 10, 10 << 20}) {
		t.Errorf("%+v", m)
	}
	if m := memoryUsed(); m.Anonymous <= 0 || m.Peak < m.Anonymous {
		t.Errorf("%+v", m)
	}
}

// TestMeasuredIsNotHashed: a digest would cost more than most of what is measured.
func TestMeasuredIsNotHashed(t *testing.T) {
	file, source, err := memorySource()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	defer source.Close()
	if source.Verifying() {
		t.Error("the sender takes digests of what it measures with")
	}
}

// Whoever has the key may know what hardware there is, without the leave that programs need,
// as often as it asks; what the receiver was not told to tell is empty.
func TestHardwareIsTold(t *testing.T) {
	for name, tell := range map[string]func() *wire.Hardware{
		"told":   func() *wire.Hardware { return &wire.Hardware{Kernel: "7.3", Devices: []wire.HardwareDevice{}} },
		"silent": nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			h, over := measuringWith(t, func(r *Receiver) { r.Hardware = tell })
			for range 2 {
				h.say(&wire.AskHardware{})
				if got := await[*wire.Hardware](h); got.Devices == nil || (got.Kernel == "7.3") != (name == "told") {
					t.Errorf("%s: %+v", name, got)
				}
			}
			h.say(&wire.ManifestEnd{})
			synctest.Wait() // it has heard that before the end
			h.s.Close()
			if err := <-over; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
