package digest

import (
	"errors"
	"fmt"
	"math/bits"
)

// Errors of [Accumulator.Sum], wrapped with what is wrong.
var (
	// ErrIncomplete: extents are missing.
	ErrIncomplete = errors.New("the digest is incomplete")
	// ErrOverlap: an extent was added twice, or does not belong to the file.
	ErrOverlap = errors.New("an extent is counted twice or is none of the file's")
	// ErrRoot: the file is one block that was added without its Root.
	ErrRoot = errors.New("the root of the only block is not known (take its digest again)")
)

// Accumulator makes a file's digest of its extents' nodes, in any order. It merges
// two neighbouring subtrees as soon as it has both, so it keeps a node for each hole,
// and a few dozen more at the most. The file's length need not be known before Sum.
//
// What is added can't be taken out again: compare an extent with the sender's digest
// first. It is not safe for concurrent use. Where the kind is None every method does
// nothing.
type Accumulator struct {
	kind   Kind
	extent int64 // bytes
	block  int   // level of a block: it has 1<<block extents
	nodes  map[place]Node
	levels uint64 // bit l: there may be a node at level l
	err    error  // what Sum will say whatever comes
}

// place is a subtree: pos<<level is the number of its first extent.
type place struct {
	level int
	pos   int64
}

// NewAccumulator makes one for a file of extents of extentSize bytes and ledger
// blocks of blockSize, both powers of two, blockSize not the smaller one.
func NewAccumulator(k Kind, extentSize, blockSize int64) *Accumulator {
	if extentSize < blake3Batch || extentSize&(extentSize-1) != 0 || blockSize < extentSize || blockSize&(blockSize-1) != 0 {
		panic(fmt.Sprintf("digest: extents of %d bytes in blocks of %d", extentSize, blockSize))
	}
	return &Accumulator{
		kind:   k,
		extent: extentSize,
		block:  bits.TrailingZeros64(uint64(blockSize / extentSize)),
		nodes:  make(map[place]Node),
	}
}

// Add takes the node of the extent number index. When that made a whole block, a
// file's last and shorter one not among them, it gives the block's node and true.
func (a *Accumulator) Add(index int64, n Node) (block Node, done bool) {
	return a.add(place{0, index}, n)
}

// AddBlock takes the node of the block number block, as a ledger kept it: its Sum,
// its Len, and the Root of the first. A shorter one must be the file's last.
func (a *Accumulator) AddBlock(block int64, n Node) {
	a.add(place{a.block, block}, n)
}

func (a *Accumulator) add(at place, n Node) (block Node, done bool) {
	switch {
	case a.kind == None:
		return Node{}, false
	case at.pos < 0 || n.Len <= 0 || n.Len > a.full(at.level) || a.covered(at):
		if a.err == nil {
			a.err = fmt.Errorf("%w: %d bytes at %d", ErrOverlap, n.Len, at.pos*a.full(at.level))
		}
		return Node{}, false
	}
	for {
		if at.level == a.block {
			block, done = n, true
		}
		sibling := place{at.level, at.pos ^ 1}
		other, ok := a.nodes[sibling]
		if !ok {
			break
		}
		left, right := &n, &other
		if at.pos&1 != 0 {
			left, right = right, left
		}
		if left.Len != a.full(at.level) {
			break // a short extent is not the last: Sum will say so
		}
		delete(a.nodes, sibling)
		n = a.kind.merge(left, right, at.pos <= 1)
		at = place{at.level + 1, at.pos >> 1}
	}
	a.nodes[at] = n
	a.levels |= 1 << at.level
	return block, done
}

// full is how many bytes a subtree of that level has unless it is the last.
func (a *Accumulator) full(level int) int64 { return a.extent << level }

// covered reports whether a subtree that is here already has the one at at.
func (a *Accumulator) covered(at place) bool {
	for l := a.levels >> at.level; l != 0; l &= l - 1 {
		up := bits.TrailingZeros64(l)
		if _, ok := a.nodes[place{at.level + up, at.pos >> up}]; ok {
			return true
		}
	}
	return false
}

// Sum is the digest of the file of size bytes that the extents make. It fails unless
// they are all there, once each. It changes nothing.
func (a *Accumulator) Sum(size int64) (Sum, error) {
	switch {
	case a.kind == None:
		return Sum{}, nil
	case a.err != nil:
		return Sum{}, a.err
	case size == 0 && len(a.nodes) == 0:
		return a.kind.Whole(nil), nil
	}
	var have int64
	for _, n := range a.nodes {
		have += n.Len
	}
	root, ok := a.join(size)
	switch {
	case have < size:
		return Sum{}, fmt.Errorf("%w: %d bytes of %d", ErrIncomplete, have, size)
	case have > size || !ok:
		return Sum{}, fmt.Errorf("%w: %d bytes do not make a file of %d", ErrOverlap, have, size)
	case a.kind != BLAKE3:
		return root.Sum, nil
	case root.Root == Sum{}:
		return Sum{}, ErrRoot
	}
	return root.Root, nil
}

// join merges the subtrees of a file of size bytes, and reports whether they are
// the ones that are here.
func (a *Accumulator) join(size int64) (n Node, ok bool) {
	extents := (size + a.extent - 1) / a.extent
	// A last block that was added as one, though it is shorter, may have merged with
	// those before it: then it counts as a whole one.
	if last := extents >> a.block; extents&(1<<a.block-1) != 0 && a.covered(place{a.block, last}) {
		extents = (last + 1) << a.block
	}
	for left := extents; left > 0; left &= left - 1 {
		level := bits.TrailingZeros64(uint64(left))
		pos := left>>level - 1
		sub, ok := a.nodes[place{level, pos}]
		switch {
		case !ok:
			return Node{}, false
		case left == extents:
			n = sub
		case sub.Len != a.full(level):
			return Node{}, false
		default:
			n = a.kind.merge(&sub, &n, pos == 0)
		}
	}
	return n, n.Len == size
}
