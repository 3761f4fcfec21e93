package ledger

import (
	"cmp"
	"slices"
)

// place is a record's offset in the file, in units of four bytes, which keeps a
// million finished files small. The file can't grow beyond maxSize therefore.
type place uint32

const maxSize = 1 << 34

func placeOf(off int64) place     { return place(off / 4) }
func (p place) offset() int64     { return int64(p) * 4 }
func (p place) is(off int64) bool { return p.offset() == off }

// index is what a ledger's records come to: where in the file the living ones are.
// Objects and digests of finished files, and digests of blocks, stay in the file.
type index struct {
	parts    map[Key]*progress
	finished map[Key]place
	records  int // living and dead
}

// progress is an unfinished file.
type progress struct {
	at     place
	blocks []landed
}

// landed is one block of a part. Of two for the same block the later one counts.
type landed struct {
	block uint32
	at    place
}

func newIndex() index {
	return index{parts: map[Key]*progress{}, finished: map[Key]place{}}
}

// apply takes in the record at off.
func (x *index) apply(off int64, r *record) {
	x.records++
	at := placeOf(off)
	switch r.kind {
	case kindPart:
		delete(x.finished, r.key)
		x.parts[r.key] = &progress{at: at}
	case kindBlock:
		if p := x.parts[r.key]; p != nil {
			p.blocks = append(p.blocks, landed{r.block, at})
		}
	case kindFinished, kindDigested:
		delete(x.parts, r.key)
		x.finished[r.key] = at
	case kindForget:
		delete(x.parts, r.key)
		delete(x.finished, r.key)
	}
}

// settle sorts a part's blocks and drops those that landed again later.
func (p *progress) settle() {
	slices.SortFunc(p.blocks, func(a, b landed) int {
		if c := cmp.Compare(a.block, b.block); c != 0 {
			return c
		}
		return cmp.Compare(b.at, a.at) // the latest first
	})
	p.blocks = slices.CompactFunc(p.blocks, func(a, b landed) bool { return a.block == b.block })
}

// living counts the records that still mean something.
func (x *index) living() int {
	n := len(x.parts) + len(x.finished)
	for _, p := range x.parts {
		p.settle()
		n += len(p.blocks)
	}
	return n
}

// lives reports whether the record at off still means something. Parts are settled.
func (x *index) lives(off int64, r *record) bool {
	switch r.kind {
	case kindPart:
		p := x.parts[r.key]
		return p != nil && p.at.is(off)
	case kindBlock:
		p := x.parts[r.key]
		if p == nil {
			return false
		}
		i, ok := slices.BinarySearchFunc(p.blocks, r.block, func(l landed, block uint32) int {
			return cmp.Compare(l.block, block)
		})
		return ok && p.blocks[i].at.is(off)
	case kindFinished, kindDigested:
		at, ok := x.finished[r.key]
		return ok && at.is(off)
	}
	return false
}
