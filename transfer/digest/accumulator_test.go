package digest

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

const testBlock = 16 * testExtent

// extents are the nodes of a file's extents, by number.
func extents(k Kind, content []byte) (nodes []Node) {
	for off := 0; off < len(content); off += testExtent {
		nodes = append(nodes, k.Extent(content[off:min(off+testExtent, len(content))], int64(off)))
	}
	return nodes
}

// blockNode gives the node of a block that Add did not give: the file's last, where that is
// shorter. It covers what has come of it without a hole from its start.
func blockNode(a *Accumulator, block int64) (Node, bool) {
	if n, ok := a.nodes[place{a.block, block}]; ok {
		return n, true
	}
	// The pieces of an unfinished block, from its start, get smaller and smaller.
	var pieces [64]Node
	count, pos := 0, block
	for level := a.block - 1; level >= 0; level-- {
		pos <<= 1
		if n, ok := a.nodes[place{level, pos}]; ok {
			pieces[count] = n
			count++
			pos++
		}
	}
	if count == 0 {
		return Node{}, false
	}
	n := pieces[count-1]
	for i := count - 2; i >= 0; i-- {
		n = a.kind.merge(&pieces[i], &n, block == 0 && i == 0)
	}
	return n, true
}

// orders are permutations of n extents: as they lie, backwards, and shuffled.
func orders(n int, r *rand.Rand) [][]int {
	forth := make([]int, n)
	for i := range forth {
		forth[i] = i
	}
	back := slices.Clone(forth)
	slices.Reverse(back)
	return [][]int{forth, back, r.Perm(n), r.Perm(n)}
}

// xxh3Tree is the definition of the digest, by the program xxhsum alone.
func xxh3Tree(t *testing.T, content []byte) string {
	t.Helper()
	if len(content) <= testExtent {
		return tool(t, path(t, content), "xxhsum", "-q", "-H2")
	}
	left := testExtent
	for left*2 < len(content) {
		left *= 2
	}
	var both []byte
	for _, half := range []string{xxh3Tree(t, content[:left]), xxh3Tree(t, content[left:])} {
		sum, err := hex.DecodeString(half)
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, sum...)
	}
	return tool(t, path(t, both), "xxhsum", "-q", "-H2")
}

func TestExtentsMergeToTheFilesDigest(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, size := range append(sizes(), testBlock+1, 2*testBlock, 3*testBlock-5, 5*testBlock+3*testExtent) {
		content := random(size)
		want := map[Kind]string{
			BLAKE3: tool(t, path(t, content), "b3sum"),
			XXH3:   xxh3Tree(t, content),
			CRC32C: CRC32C.Hex(CRC32C.Whole(content)),
			None:   "",
		}
		for k := range want {
			nodes := extents(k, content)
			for _, order := range orders(len(nodes), r) {
				a := NewAccumulator(k, testExtent, testBlock)
				for _, i := range order {
					a.Add(int64(i), nodes[i])
				}
				got, err := a.Sum(int64(size))
				if k.Hex(got) != want[k] || err != nil {
					t.Errorf("%v of %d bytes: %x, %v, want %s", k, size, got, err, want[k])
				}
			}
		}
	}
}

// TestLedgerBlocks restores a random half of the blocks from what a ledger would
// have kept of an earlier transfer, and sends the extents of the others.
func TestLedgerBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, size := range []int{1, testExtent, 5*testExtent + 1, testBlock - 1, testBlock, testBlock + 1,
		2*testBlock - testExtent, 3*testBlock + 7*testExtent + 9, 4*testBlock - 1, 6*testBlock + 3} {
		content := random(size)
		for _, k := range kinds {
			nodes := extents(k, content)
			first := NewAccumulator(k, testExtent, testBlock)
			blocks := make([]Node, (size+testBlock-1)/testBlock)
			for _, i := range r.Perm(len(nodes)) {
				if n, done := first.Add(int64(i), nodes[i]); done {
					blocks[i/16] = n
				}
			}
			want, err := first.Sum(int64(size))
			if err != nil {
				t.Fatal(err)
			}
			if last := len(blocks) - 1; blocks[last] == (Node{}) {
				blocks[last], _ = blockNode(first, int64(last))
			}
			for range 20 {
				again := NewAccumulator(k, testExtent, testBlock)
				var missing []int
				for b, n := range blocks {
					if r.IntN(2) == 0 {
						if b > 0 {
							n.Root = Sum{} // 32 bytes, that is what is kept
						}
						again.AddBlock(int64(b), n)
					} else {
						for i := b * 16; i < min(b*16+16, len(nodes)); i++ {
							missing = append(missing, i)
						}
					}
				}
				r.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
				for _, i := range missing {
					again.Add(int64(i), nodes[i])
				}
				if got, err := again.Sum(int64(size)); got != want || err != nil {
					t.Fatalf("%v of %d bytes, %v sent again: %x, %v, want %x", k, size, missing, got, err, want)
				}
			}
		}
	}
}

func TestSumFailsOn(t *testing.T) {
	const size = testBlock + 3*testExtent + 1
	content := random(size)
	nodes := extents(BLAKE3, content)
	block0 := func(a *Accumulator) (n Node) {
		for i, e := range nodes[:16] {
			n, _ = a.Add(int64(i), e)
		}
		return n
	}
	rest := func(a *Accumulator) {
		for i, e := range nodes[16:] {
			a.Add(int64(16+i), e)
		}
	}
	all := func(a *Accumulator) { block0(a); rest(a) }
	for name, c := range map[string]struct {
		fill func(*Accumulator)
		size int64
		want error
	}{
		"nothing":              {func(*Accumulator) {}, size, ErrIncomplete},
		"a hole in front":      {rest, size, ErrIncomplete},
		"a hole at the end":    {func(a *Accumulator) { block0(a) }, size, ErrIncomplete},
		"a longer file":        {all, size + 1, ErrIncomplete},
		"a shorter file":       {all, size - 1, ErrOverlap},
		"fewer extents":        {all, testBlock, ErrOverlap},
		"an empty file":        {all, 0, ErrOverlap},
		"a negative size":      {all, -1, ErrOverlap},
		"an extent twice":      {func(a *Accumulator) { all(a); a.Add(3, nodes[3]) }, size, ErrOverlap},
		"the tail twice":       {func(a *Accumulator) { all(a); a.Add(19, nodes[19]) }, size, ErrOverlap},
		"a pair twice":         {func(a *Accumulator) { a.Add(0, nodes[0]); a.Add(1, nodes[1]); a.Add(0, nodes[2]); a.Add(1, nodes[3]) }, 2 * testExtent, ErrOverlap},
		"a short left one":     {func(a *Accumulator) { a.Add(0, Node{Len: 5}); a.Add(1, nodes[1]) }, testExtent + 5, ErrOverlap},
		"a block over extents": {func(a *Accumulator) { a.Add(5, nodes[5]); a.AddBlock(0, Node{Len: testBlock}); rest(a) }, size, ErrOverlap},
		"a short one in the middle": {func(a *Accumulator) {
			all(a)
			a.Add(20, nodes[0])
		}, size + testExtent, ErrOverlap},
		"too long a one": {func(a *Accumulator) { a.Add(0, Node{Len: testExtent + 1}) }, testExtent + 1, ErrOverlap},
		"an empty one":   {func(a *Accumulator) { a.Add(0, Node{}) }, 0, ErrOverlap},
		"a negative one": {func(a *Accumulator) { a.Add(-1, nodes[0]) }, size, ErrOverlap},
		"a block, no root": {func(a *Accumulator) {
			n := block0(NewAccumulator(BLAKE3, testExtent, testBlock))
			n.Root = Sum{}
			a.AddBlock(0, n)
		}, testBlock, ErrRoot},
		"short blocks only": {func(a *Accumulator) { a.AddBlock(0, Node{Len: 5}); a.AddBlock(1, Node{Len: 5}) }, testBlock + 5, ErrIncomplete},
	} {
		a := NewAccumulator(BLAKE3, testExtent, testBlock)
		c.fill(a)
		if got, err := a.Sum(c.size); !errors.Is(err, c.want) || got != (Sum{}) {
			t.Errorf("%s: %x, %v, want %v", name, got, err, c.want)
		}
	}
}

// TestMemoryIsTheHoles: 64 GiB through a window of 64 extents in flight.
func TestMemoryIsTheHoles(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	a := NewAccumulator(CRC32C, 1<<20, 16<<20)
	node := CRC32C.Extent(random(1000), 1<<20)
	node.Len = 1 << 20
	var inFlight []int64
	most := 0
	for i := range int64(64 << 10) {
		inFlight = append(inFlight, i)
		if len(inFlight) < 64 {
			continue
		}
		n := r.IntN(len(inFlight))
		a.Add(inFlight[n], node)
		inFlight = slices.Delete(inFlight, n, n+1)
		most = max(most, len(a.nodes))
	}
	// A hole splits at most one subtree of each level.
	if most > 64*17 {
		t.Errorf("%d nodes are kept", most)
	}
}

func TestAddAllocatesNothing(t *testing.T) {
	for _, k := range kinds {
		a := NewAccumulator(k, 1<<20, 16<<20)
		node := k.Extent(random(1000), 1<<20)
		node.Len = 1 << 20
		next := int64(0)
		// Neighbours come in turn: there are always holes.
		add := func() { a.Add(next^5, node); next++ }
		for range 4096 {
			add()
		}
		if n := testing.AllocsPerRun(4096, add); n != 0 {
			t.Errorf("%v: %v allocations an extent", k, n)
		}
	}
}

// FuzzAccumulator adds the extents of a file in any order and with any block
// restored, and compares with the digest of the whole.
func FuzzAccumulator(f *testing.F) {
	f.Add(uint32(0), uint64(1), uint8(0))
	f.Add(uint32(3*testBlock+5), uint64(9), uint8(2))
	f.Fuzz(func(t *testing.T, size uint32, seed uint64, kind uint8) {
		k := kinds[int(kind)%len(kinds)]
		content := random(int(size % (5 * testBlock)))
		r := rand.New(rand.NewPCG(seed, 0))
		nodes := extents(k, content)
		a, in := NewAccumulator(k, testExtent, testBlock), NewAccumulator(k, testExtent, testBlock)
		for _, i := range r.Perm(len(nodes)) {
			in.Add(int64(i), nodes[i])
		}
		want, err := in.Sum(int64(len(content)))
		if err != nil || k != XXH3 && want != k.Whole(content) {
			t.Fatalf("%x, %v", want, err)
		}
		for b := 0; b*16 < len(nodes); b++ {
			block := nodes[b*16 : min(b*16+16, len(nodes))]
			one := NewAccumulator(k, testExtent, testBlock)
			for i, n := range block {
				one.Add(int64(b*16+i), n)
			}
			n, ok := blockNode(one, int64(b))
			if !ok {
				t.Fatal("no node of a complete block")
			}
			if r.IntN(2) == 0 {
				a.AddBlock(int64(b), n)
				continue
			}
			for _, i := range r.Perm(len(block)) {
				a.Add(int64(b*16+i), block[i])
			}
		}
		if got, err := a.Sum(int64(len(content))); got != want || err != nil {
			t.Errorf("%x, %v, want %x", got, err, want)
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.String(), func(b *testing.B) {
			a := NewAccumulator(k, 1<<20, 16<<20)
			node := Node{Len: 1 << 20}
			next := int64(0)
			for b.Loop() {
				a.Add(next^5, node)
				next++
			}
		})
	}
}
