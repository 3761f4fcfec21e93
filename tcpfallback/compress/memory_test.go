//go:build !race

// The race detector empties the pools inside the zstd library now and then.

package compress

import (
	"runtime"
	"testing"
)

func TestSteadyStateAllocatesNothing(t *testing.T) {
	var e Encoder
	var d Decoder
	for _, p := range [][]byte{text(extent), random(extent), text(4 * extent), text(4000)} {
		dst, back := make([]byte, Bound(len(p))), make([]byte, len(p))
		var encoded []byte
		var ok bool
		if n := testing.AllocsPerRun(20, func() { encoded, ok = e.Encode(dst, p) }); n != 0 {
			t.Errorf("encoding %d bytes: %v allocations", len(p), n)
		}
		if !ok {
			continue
		}
		if n := testing.AllocsPerRun(20, func() {
			if err := d.Decode(back, encoded); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("decoding %d bytes: %v allocations", len(p), n)
		}
	}
}

func TestChoosingAllocatesNothing(t *testing.T) {
	dst, p := make([]byte, Bound(extent)), text(extent)
	for _, mode := range []Mode{Auto, Zstd, None} {
		c := NewChooser(mode)
		if n := testing.AllocsPerRun(20, func() { c.Start(); c.Payload(dst, p); c.Sent() }); n != 0 {
			t.Errorf("%v: %v allocations an extent", mode, n)
		}
	}
}

// TestMemoryOfALane: what one keeps, whatever it was given.
func TestMemoryOfALane(t *testing.T) {
	p := text(16 * extent)
	dst, back := make([]byte, Bound(len(p))), make([]byte, len(p))
	var e Encoder
	var d Decoder
	before := heap()
	encoded, _ := e.Encode(dst, p)
	sending := heap() - before
	if err := d.Decode(back, encoded); err != nil {
		t.Fatal(err)
	}
	receiving := heap() - before - sending
	if sending > 2<<20 || receiving > 512<<10 {
		t.Errorf("%d bytes at the sending end, %d at the receiving one", sending, receiving)
	}
	runtime.KeepAlive([]any{&e, &d, p, dst, back})
}
