package ledger

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

var transfer = [16]byte{'t', 'r', 'a', 'n', 's', 'f', 'e', 'r'}

var name = Name(transfer)

// model is what a list of records means, by the documentation alone.
type model struct {
	parts    map[Key]modelPart
	finished map[Key]Finished
}

type modelPart struct {
	object Object
	blocks map[uint32][32]byte
}

func modelOf(records []record) model {
	m := model{map[Key]modelPart{}, map[Key]Finished{}}
	for _, r := range records {
		switch r.kind {
		case kindPart:
			m.parts[r.key] = modelPart{r.object, map[uint32][32]byte{}}
			delete(m.finished, r.key)
		case kindBlock:
			if p, ok := m.parts[r.key]; ok {
				p.blocks[r.block] = r.digest
			}
		case kindFinished, kindDigested:
			delete(m.parts, r.key)
			m.finished[r.key] = Finished{r.object, r.digest, r.kind == kindDigested}
		case kindForget:
			delete(m.parts, r.key)
			delete(m.finished, r.key)
		}
	}
	return m
}

// stateOf asks a ledger for everything that it knows.
func stateOf(l *Ledger) (model, error) {
	m := modelOf(nil)
	for k := range l.index.parts {
		p, ok := l.Part(k)
		if !ok {
			return m, fmt.Errorf("part %x can't be read back", k)
		}
		blocks := maps.Collect(p.Blocks())
		sorted := slices.IsSortedFunc(p.Runs, func(a, b Run) int { return int(int64(a.First) - int64(b.First)) })
		if !sorted || len(blocks) != len(p.Digests) {
			return m, fmt.Errorf("part %x: runs %v do not go with %d digests", k, p.Runs, len(p.Digests))
		}
		m.parts[k] = modelPart{p.Object, blocks}
	}
	for k := range l.index.finished {
		f, ok := l.Finished(k)
		if !ok {
			return m, fmt.Errorf("finished %x can't be read back", k)
		}
		m.finished[k] = f
	}
	if parts, finished := l.Len(); parts != len(m.parts) || finished != len(m.finished) {
		return m, fmt.Errorf("Len says %d, %d", parts, finished)
	}
	return m, nil
}

// wantState fails unless l knows exactly what the records say.
func wantState(t *testing.T, l *Ledger, records []record) {
	t.Helper()
	got, err := stateOf(l)
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, got, modelOf(records))
}

func wantSame(t *testing.T, got, want model) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("the ledger knows\n%v\nwant\n%v", got, want)
	}
}

// appendTo appends a record by the method for it.
func appendTo(l *Ledger, r record) {
	switch r.kind {
	case kindPart:
		l.AppendPart(r.key, r.object)
	case kindBlock:
		l.AppendBlock(r.key, r.block, r.digest)
	case kindFinished, kindDigested:
		l.AppendFinished(r.key, Finished{r.object, r.digest, r.kind == kindDigested})
	case kindForget:
		l.AppendForget(r.key)
	}
}

// draw makes a random record about one of few keys, so that they meet, with a
// content that no other record has.
func draw(rng *rand.Rand, keys int) record {
	r := record{kind: kind(1 + rng.IntN(int(kinds)-1)), key: Key{byte(rng.IntN(keys)), 0xff}}
	if rng.IntN(2) == 0 {
		r.kind = kindBlock
	}
	switch r.kind {
	case kindPart, kindFinished, kindDigested:
		r.object = Object{rng.Uint64(), rng.Uint64(), int64(rng.Uint64())}
	case kindBlock:
		r.block = rng.Uint32N(6)
		if rng.IntN(4) == 0 {
			r.block = ^r.block
		}
	}
	if r.kind == kindBlock || r.kind == kindDigested {
		for i := range 4 {
			binary.BigEndian.PutUint64(r.digest[8*i:], rng.Uint64())
		}
	}
	return r
}

// story is n records, beginning with one of each kind that can stand alone.
func story(seed uint64, n int) []record {
	rng := rand.New(rand.NewPCG(seed, 1))
	all := []record{
		{kind: kindPart, key: Key{1}, object: Object{1, 2, -3}},
		{kind: kindBlock, key: Key{1}, block: 7, digest: [32]byte{7}},
		{kind: kindBlock, key: Key{1}, block: 6, digest: [32]byte{6}},
		{kind: kindBlock, key: Key{1}, block: 7, digest: [32]byte{8}},
		{kind: kindFinished, key: Key{2}, object: Object{4, 5, 6}},
		{kind: kindDigested, key: Key{3}, object: Object{4, 7, 8}, digest: [32]byte{9}},
		{kind: kindForget, key: Key{2}},
	}
	for len(all) < n {
		all = append(all, draw(rng, 8))
	}
	return all
}

// encode writes records as a ledger has them, and gives where each ends.
func encode(records []record) (b []byte, ends []int) {
	b, sum := newHeader(transfer)
	for i := range records {
		b, sum = appendRecord(b, sum, &records[i])
		ends = append(ends, len(b))
	}
	return b, ends
}

func mustOpen(t *testing.T, d directory) *Ledger {
	t.Helper()
	l, err := open(d, name, transfer)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// holding is a disk with one file under the ledger's name.
func holding(b []byte) *simDir {
	d := newSim(0)
	d.names[name] = &simInode{cache: slices.Clone(b), disk: slices.Clone(b), ghost: slices.Clone(b)}
	d.durable = maps.Clone(d.names)
	return d
}
