package ledger

import (
	"slices"
	"testing"
)

// wasteful is a ledger more than half of whose records are dead.
func wasteful() []record {
	all := story(7, 40)
	for i := range 40 {
		k := Key{0xaa, byte(i)}
		all = append(all, record{kind: kindPart, key: k, object: Object{Ino: uint64(i)}})
		for b := range uint32(4) {
			all = append(all, record{kind: kindBlock, key: k, block: b / 2, digest: [32]byte{byte(i), byte(b)}})
		}
		switch i % 4 {
		case 0:
			all = append(all, record{kind: kindForget, key: k})
		case 1, 2:
			all = append(all, record{kind: kindDigested, key: k, object: Object{Ino: uint64(i)}, digest: [32]byte{byte(i)}})
		}
	}
	return all
}

func sizeOf(t *testing.T, l *Ledger) int64 {
	t.Helper()
	n, err := l.file.Size()
	must(t, err)
	return n
}

func TestCompaction(t *testing.T) {
	root := into(t)
	records := wasteful()
	l := openIn(t, root)
	for _, r := range records {
		appendTo(l, r)
	}
	must(t, l.Sync())
	wantState(t, l, records)
	before := sizeOf(t, l)
	must(t, l.Close())

	l = openIn(t, root)
	wantState(t, l, records)
	after := sizeOf(t, l)
	if after > before/2 || l.index.records != l.index.living() {
		t.Errorf("%d bytes became %d, of %d records %d live", before, after, l.index.records, l.index.living())
	}
	wantNames(t, root, name)
	if _, err := Open(root, name, transfer); err == nil {
		t.Error("the new file is not locked")
	}
	more := record{kind: kindFinished, key: Key{0xbb}, object: Object{Ino: 1}}
	appendTo(l, more)
	must(t, l.Sync())
	must(t, l.Close())

	l = openIn(t, root)
	wantState(t, l, append(slices.Clone(records), more))
	if n := sizeOf(t, l); n != after+int64(sizes[kindFinished]) {
		t.Errorf("%d bytes: compacted once more, for nothing", n)
	}
	must(t, l.Close())
}

// TestCompactionInterrupted kills the receiver before each step of a compaction, and
// fails each, and cuts the power after it or does not. The ledger says the same, and
// in the end there is one file, compact.
func TestCompactionInterrupted(t *testing.T) {
	records := wasteful()
	b, _ := encode(records)
	for _, how := range []blows{blowsKill, blowsForever, blowsOnce} {
		steps := map[string]bool{}
		for fuse := 0; ; fuse++ {
			blown := ""
			for seed := range uint64(20) {
				d := holding(b)
				d.rng = newSim(seed).rng
				d.fuse, d.blows = fuse, how
				interrupted(t, d)
				if len(d.blown) == 0 {
					break // the fuse outlasts it all
				}
				blown = d.blown[0]
				if seed%2 == 0 || how == blowsForever {
					d.crash()
				} else {
					d.kill()
				}
				if blown == "sync" && how != blowsKill && len(d.names[name].cache) == 0 {
					continue // that of the old file failed: nothing is known
				}
				l := mustOpen(t, d)
				wantState(t, l, records)
				must(t, l.Close())
				l = mustOpen(t, d)
				if l.index.records > 2*l.index.living() || len(d.names) != 1 {
					t.Fatalf("%d names, %d records of which %d live", len(d.names), l.index.records, l.index.living())
				}
			}
			if blown == "" {
				break
			}
			steps[blown] = true
		}
		for _, step := range []string{"sync", "open", "write", "rename", "directory sync"} {
			if !steps[step] {
				t.Errorf("%v: no %s was interrupted: %v", how, step, steps)
			}
		}
	}
}

func interrupted(t *testing.T, d *simDir) {
	defer func() {
		if r := recover(); r != nil && r != any(errKilled) {
			panic(r)
		}
	}()
	l, err := open(d, name, transfer)
	if err == nil {
		wantState(t, l, wasteful())
		l.file.Close()
	}
}
