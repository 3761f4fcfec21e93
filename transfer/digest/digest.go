// Package digest takes digests of files that arrive as extents in any order.
//
// An extent has a [Node], two neighbouring nodes merge into their parent's, and the
// topmost node has the digest of the file. Extents are aligned and of one
// power-of-two size, the file's tail shorter, so they are the leaves of the tree that
// BLAKE3 has anyway: the left subtree of n leaves has the largest power of two of
// them that leaves something for the right one (BLAKE3 paper, 2.1). An [Accumulator]
// merges them as they come and keeps little more than the holes.
//
//	kind    the file's digest
//	blake3  what b3sum prints
//	crc32c  the CRC-32C of its bytes (RFC 3720, Castagnoli), however it was cut
//	xxh3    of one extent what "xxhsum -H2" prints; of more the XXH3-128 of the
//	        digests of the tree's two halves, 16 bytes each, most significant byte
//	        first: it depends on the size of an extent
//	none    nothing
//
// Only BLAKE3 withstands somebody who wants two files of one digest; the others find
// what devices, memories and programs do to bytes.
package digest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"

	"github.com/zeebo/xxh3"
)

// Kind is how bytes are verified. The zero Kind is BLAKE3.
type Kind uint8

// The kinds.
const (
	BLAKE3 Kind = iota
	XXH3        // XXH3, 128 bits
	CRC32C      // CRC-32C, Castagnoli's polynomial
	None        // nothing is verified
)

// Kinds are the names that Parse takes, by Kind.
var Kinds = [...]string{BLAKE3: "blake3", XXH3: "xxh3", CRC32C: "crc32c", None: "none"}

// Parse gives the kind of a name.
func Parse(name string) (Kind, error) {
	for k, n := range Kinds {
		if n == name {
			return Kind(k), nil
		}
	}
	return None, fmt.Errorf("verify %q: no such kind of digest (there are blake3, xxh3, crc32c and none)", name)
}

// String is the name that Parse takes.
func (k Kind) String() string {
	if int(k) < len(Kinds) {
		return Kinds[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Size is how many bytes of a Sum count: 32, 16, 4 or, for None, 0.
func (k Kind) Size() int {
	switch k {
	case BLAKE3:
		return 32
	case XXH3:
		return 16
	case CRC32C:
		return 4
	}
	return 0
}

// Sum is a digest of any kind, left-aligned, the rest zero: as tools print it, the
// integers among them most significant byte first.
type Sum [32]byte

// Hex is s as tools print it: only what counts for k, "" for None.
func (k Kind) Hex(s Sum) string { return hex.EncodeToString(s[:k.Size()]) }

// AppendHex appends Hex to b.
func (k Kind) AppendHex(b []byte, s Sum) []byte { return hex.AppendEncode(b, s[:k.Size()]) }

// Node is the digest of a subtree: of an extent, of a block of extents, of a file.
type Node struct {
	// Sum is what two ends compare and a ledger keeps. For BLAKE3 it is the
	// subtree's chaining value, which is not what b3sum prints for the same bytes.
	Sum Sum
	// Root is the digest of the file, should the file be this subtree. It is there
	// at offset 0 alone. A ledger stores it with a file's first block if the kind is
	// BLAKE3, or can't end a file of that one block.
	Root Sum
	// Len is how many bytes the subtree covers.
	Len int64
}

// Extent takes the digest of p, which is at off of its file. off is a multiple of
// the extent size, which is a power of two and 16 KiB at least; p is not longer. It
// allocates nothing.
func (k Kind) Extent(p []byte, off int64) Node {
	n := Node{Len: int64(len(p))}
	switch k {
	case BLAKE3:
		sub := blake3Subtree(p, uint64(off)/blake3Chunk)
		n.Sum = blake3Sum(&sub)
		if off == 0 {
			n.Root = blake3Root(&sub)
		}
		return n
	case XXH3:
		n.Sum = xxh3Sum(p)
	case CRC32C:
		n.Sum = crc32cSum(crc32.Checksum(p, castagnoli))
	}
	if off == 0 {
		n.Root = n.Sum
	}
	return n
}

// Whole takes the digest of a whole file. It allocates nothing, and is quicker with
// a p of 8 to 16 KiB that has capacity up to 16 KiB: the vectors read over its end then,
// where it must be copied otherwise.
func (k Kind) Whole(p []byte) Sum {
	if k == BLAKE3 {
		return blake3Whole(p)
	}
	return k.Extent(p, 0).Root
}

// merge gives the parent of two neighbours. first says that left is at offset 0.
func (k Kind) merge(left, right *Node, first bool) Node {
	n := Node{Len: left.Len + right.Len}
	switch k {
	case BLAKE3:
		sub := blake3Parent(&left.Sum, &right.Sum)
		n.Sum = blake3Sum(&sub)
		if first {
			n.Root = blake3Root(&sub)
		}
		return n
	case XXH3:
		var both [32]byte
		copy(both[:16], left.Sum[:])
		copy(both[16:], right.Sum[:])
		n.Sum = xxh3Sum(both[:])
	case CRC32C:
		n.Sum = crc32cSum(crc32cConcat(crc32cValue(&left.Sum), crc32cValue(&right.Sum), right.Len))
	}
	if first {
		n.Root = n.Sum
	}
	return n
}

func xxh3Sum(p []byte) (s Sum) {
	h := xxh3.Hash128(p)
	binary.BigEndian.PutUint64(s[:], h.Hi)
	binary.BigEndian.PutUint64(s[8:], h.Lo)
	return s
}
