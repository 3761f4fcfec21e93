package digest

import (
	"encoding/binary"
	"math/bits"
	"sync"

	zeebo "github.com/zeebo/blake3"
	"lukechampine.com/blake3/guts"
)

const (
	blake3Chunk = guts.ChunkSize
	blake3Batch = guts.MaxSIMD * blake3Chunk // what is hashed side by side in one go
)

// scratch is room for what is shorter than a batch. What an earlier use left in it
// does no harm: vectors hash it too and nobody looks at the outcome.
var scratch = sync.Pool{New: func() any { return new([blake3Batch]byte) }}

// blake3Subtree hashes p, whose first chunk is the file's chunk number counter.
func blake3Subtree(p []byte, counter uint64) guts.Node {
	switch {
	case cap(p) >= blake3Batch && len(p) <= blake3Batch:
		return guts.CompressBuffer((*[blake3Batch]byte)(p[:blake3Batch]), len(p), &guts.IV, counter, 0)
	case len(p) <= blake3Chunk:
		return guts.CompressChunk(p, &guts.IV, counter, 0)
	case len(p) < blake3Batch:
		buf := scratch.Get().(*[blake3Batch]byte)
		copy(buf[:], p)
		n := guts.CompressBuffer(buf, len(p), &guts.IV, counter, 0)
		scratch.Put(buf)
		return n
	}
	// The largest power of two that leaves something for the right subtree.
	left := 1 << (bits.Len(uint(len(p)-1)) - 1)
	l := blake3Subtree(p[:left], counter)
	r := blake3Subtree(p[left:], counter+uint64(left)/blake3Chunk)
	return guts.ParentNode(guts.ChainingValue(l), guts.ChainingValue(r), &guts.IV, 0)
}

// blake3Few is up to where the other library hashes a whole file faster, bytes: the vectors
// of this one work on 16 chunks whether there are as many or not.
const blake3Few = 8 << 10

// blake3Whole is the digest of a whole file.
func blake3Whole(p []byte) Sum {
	if len(p) <= blake3Few {
		return zeebo.Sum256(p)
	}
	sub := blake3Subtree(p, 0)
	return blake3Root(&sub)
}

func blake3Parent(left, right *Sum) guts.Node {
	return guts.ParentNode(blake3Words(left), blake3Words(right), &guts.IV, 0)
}

// blake3Sum is the node's chaining value.
func blake3Sum(n *guts.Node) (s Sum) {
	for i, w := range guts.ChainingValue(*n) {
		binary.LittleEndian.PutUint32(s[4*i:], w)
	}
	return s
}

// blake3Root is the digest of a file that is n and nothing else.
func blake3Root(n *guts.Node) Sum {
	root := *n
	root.Flags |= guts.FlagRoot
	return blake3Sum(&root)
}

func blake3Words(s *Sum) (w [8]uint32) {
	for i := range w {
		w[i] = binary.LittleEndian.Uint32(s[4*i:])
	}
	return w
}
