package transfer

import (
	"encoding/binary"
	"math/bits"

	"lukechampine.com/blake3/guts"
)

// An extent's digest is the chaining value of its subtree in the file's BLAKE3
// tree (BLAKE3 paper, 2.1): extents are aligned powers of two, so each is a
// subtree of its own and they merge, whatever the order in which they came, into
// the digest that b3sum prints for the file. A file of one extent has no tree
// above it: its extent's digest is the file's.

// Digest is 32 bytes of BLAKE3: of an extent's subtree, or of a whole file.
type Digest [32]byte

const (
	chunk = guts.ChunkSize
	batch = guts.MaxSIMD * chunk // what is hashed side by side in one go
)

// hashExtent gives the digest of the extent at off of a file of size bytes. off is
// a multiple of the extent size, which is a power of two and at least batch.
func hashExtent(p []byte, off, size int64) Digest {
	n := hashSubtree(p, uint64(off)/chunk)
	if int64(len(p)) == size {
		n.Flags |= guts.FlagRoot
	}
	return nodeDigest(n)
}

// mergeExtents gives the digest of a file of at least two extents.
func mergeExtents(extents []Digest) Digest {
	n := mergeNode(extents)
	n.Flags |= guts.FlagRoot
	return nodeDigest(n)
}

// leftLen is how much of n lies in the left subtree: the largest power of two
// that leaves something for the right one. n is at least 2.
func leftLen(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

func hashSubtree(p []byte, counter uint64) guts.Node {
	switch {
	case len(p) == batch:
		return guts.CompressBuffer((*[batch]byte)(p), batch, &guts.IV, counter, 0)
	case len(p) < batch:
		var short [batch]byte
		copy(short[:], p)
		return guts.CompressBuffer(&short, len(p), &guts.IV, counter, 0)
	}
	left := leftLen(len(p))
	l := hashSubtree(p[:left], counter)
	r := hashSubtree(p[left:], counter+uint64(left)/chunk)
	return guts.ParentNode(guts.ChainingValue(l), guts.ChainingValue(r), &guts.IV, 0)
}

func mergeNode(d []Digest) guts.Node {
	half := func(d []Digest) [8]uint32 {
		if len(d) == 1 {
			return digestWords(d[0])
		}
		return guts.ChainingValue(mergeNode(d))
	}
	left := leftLen(len(d))
	return guts.ParentNode(half(d[:left]), half(d[left:]), &guts.IV, 0)
}

func nodeDigest(n guts.Node) (d Digest) {
	for i, w := range guts.ChainingValue(n) {
		binary.LittleEndian.PutUint32(d[4*i:], w)
	}
	return d
}

func digestWords(d Digest) (w [8]uint32) {
	for i := range w {
		w[i] = binary.LittleEndian.Uint32(d[4*i:])
	}
	return w
}
