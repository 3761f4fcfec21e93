package transfer

import (
	"math"
	"testing"

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
