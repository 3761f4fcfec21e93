package transfer

import (
	"context"
	"io"
	"syscall"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// nullLane is the receiver's engine with one lane that moves nothing: scheduler, feed and
// landing of extents whose bytes nobody touches, 16 in flight.
func nullLane(extents int) (run func(n int) error) {
	p := &pull{
		Receiver: &Receiver{Sink: Discard{}, Progress: new(Progress)},
		ctx:      context.Background(), sched: newScheduler(DefaultExtentSize),
		files: make(map[uint32]*inbound), dest: nowhere{}, verify: digest.None,
	}
	p.lanes.init(p)
	size := int64(extents) * DefaultExtentSize
	p.files[0] = &inbound{entry: wire.Entry{Size: size}, size: size, total: extents + 1} // it never ends
	p.sched.add(0, size)
	feed := &laneFeed{l: &p.lanes}
	p.lanes.up[1] = feed
	b := make([]byte, DefaultExtentSize)
	flying := make([]Extent, 0, DefaultDepth)
	return func(n int) error {
		for range n {
			e, ok := feed.TryNext()
			if !ok {
				return io.EOF
			}
			if flying = append(flying, e); len(flying) == DefaultDepth {
				first := flying[0]
				flying = append(flying[:0], flying[1:]...)
				if err := feed.Land(first, b); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// cpu is what this process has used, ns.
func cpu(b *testing.B) int64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return r.Utime.Nano() + r.Stime.Nano()
}

// BenchmarkNullLane is the receiving engine's ceiling: an operation is an extent of 1 MiB.
func BenchmarkNullLane(b *testing.B) {
	run := nullLane(b.N + 1000)
	if err := run(1000); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(DefaultExtentSize)
	b.ResetTimer()
	before := cpu(b)
	if err := run(b.N); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}

// TestNullLaneAllocatesNothing an extent, but for the bitmap of what has landed, which
// grows by doubling.
func TestNullLaneAllocatesNothing(t *testing.T) {
	run := nullLane(110_000)
	if err := run(2000); err != nil {
		t.Fatal(err)
	}
	n := testing.AllocsPerRun(100, func() {
		if err := run(1000); err != nil {
			t.Fatal(err)
		}
	})
	if n >= 1 {
		t.Errorf("%v allocations in 1000 extents", n)
	}
}
