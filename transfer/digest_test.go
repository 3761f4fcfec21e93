package transfer

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"lukechampine.com/blake3"
)

// TestExtentsMergeToTheFilesDigest hashes files of awkward sizes extent by extent
// and compares with the library's own digest of the whole.
func TestExtentsMergeToTheFilesDigest(t *testing.T) {
	const extent = 64 << 10
	sizes := []int{0, 1, 1023, 1024, 1025, batch - 1, batch, batch + 1, extent - 1, extent, extent + 1,
		2*extent - 1, 2 * extent, 2*extent + 1, 3*extent + 1, 7*extent + 5000, 8 * extent, 13 * extent}
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range sizes {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		var parts []Digest
		for off := 0; off < size || off == 0; off += extent {
			parts = append(parts, hashExtent(data[off:min(off+extent, size)], int64(off), int64(size)))
		}
		got := parts[0]
		if len(parts) > 1 {
			got = mergeExtents(parts)
		}
		if want := Digest(blake3.Sum256(data)); got != want {
			t.Errorf("%d bytes in %d extents: %x, want %x", size, len(parts), got, want)
		}
	}
}

func TestHashingAllocatesNothing(t *testing.T) {
	data := make([]byte, 1<<20)
	if n := testing.AllocsPerRun(3, func() { hashExtent(data, 0, 1<<21) }); n != 0 {
		t.Errorf("%v allocations an extent", n)
	}
}

func BenchmarkHashExtent(b *testing.B) {
	for _, size := range []int{64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size>>10, "KiB"), func(b *testing.B) {
			data := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				hashExtent(data, 0, int64(size)*2)
			}
		})
	}
}
