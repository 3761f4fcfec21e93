package ledger

import (
	"encoding/binary"
	"slices"
	"testing"
)

// wantPrefix opens a file, wants what the records say, and that it can be gone on
// with: one more record, and what the next receiver reads.
func wantPrefix(t *testing.T, b []byte, records []record) {
	t.Helper()
	d := holding(b)
	l := mustOpen(t, d)
	wantState(t, l, records)
	if n, _ := l.file.Size(); n != l.size {
		t.Fatalf("%d bytes, of which %d are good: the torn end is still there", n, l.size)
	}
	more := record{kind: kindDigested, key: Key{0xee}, object: Object{1, 1, 1}, digest: [32]byte{1}}
	appendTo(l, more)
	must(t, l.Sync())
	must(t, l.Close())
	d.crash()
	l = mustOpen(t, d)
	wantState(t, l, append(slices.Clone(records), more))
	must(t, l.Close())
}

func whole(ends []int, n int) int {
	i, found := slices.BinarySearch(ends, n)
	if found {
		return i + 1
	}
	return i
}

func TestEveryPrefixOpens(t *testing.T) {
	records := story(1, 40)
	b, ends := encode(records)
	for n := range len(b) + 1 {
		wantPrefix(t, b[:n], records[:whole(ends, n)])
	}
}

func TestEveryDamagedByteCuts(t *testing.T) {
	records := story(2, 40)
	b, ends := encode(records)
	for at := range b {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			damaged := slices.Clone(b)
			damaged[at] ^= flip
			want := records[:whole(ends, at)]
			if at < headerSize {
				want = nil
			}
			wantPrefix(t, damaged, want)
		}
	}
}

// TestOlderBlocksDoNotPass puts the end of another ledger, and of this one's former
// life, where its records would go on.
func TestOlderBlocksDoNotPass(t *testing.T) {
	old := story(3, 30)
	now := slices.Clone(old[:20])
	now[19].object.Ino++ // the same sizes, so the records behind it fit
	now[19].digest[0]++
	longer, ends := encode(old)
	t.Run("another life", func(t *testing.T) {
		same, _ := encode(old) // the same records, another salt
		for _, n := range ends[:29] {
			b := append(slices.Clone(same[:n]), longer[n:]...)
			wantPrefix(t, b, old[:whole(ends, n)])
		}
	})
	t.Run("this life", func(t *testing.T) {
		sum, ok := parseHeader(longer, transfer)
		if !ok {
			t.Fatal("no header")
		}
		b := slices.Clone(longer[:headerSize])
		for i := range now {
			b, sum = appendRecord(b, sum, &now[i])
		}
		if len(b) != ends[19] {
			t.Fatalf("the records have other sizes: %d, %d", len(b), ends[19])
		}
		wantPrefix(t, append(b, longer[len(b):]...), now)
	})
}

func TestOthersCountAsEmpty(t *testing.T) {
	good, _ := encode(story(4, 10))
	resum := func(b []byte) { // or the checksum alone would tell
		binary.BigEndian.PutUint32(b[headerSize-4:], checksum(b[:headerSize-4]))
	}
	for what, change := range map[string]func(b []byte){
		"another version":  func(b []byte) { b[11]++; resum(b) },
		"another transfer": func(b []byte) { b[12]++; resum(b) },
		"another magic":    func(b []byte) { b[0]++; resum(b) },
	} {
		t.Run(what, func(t *testing.T) {
			b := slices.Clone(good)
			change(b)
			wantPrefix(t, b, nil)
		})
	}
}

// FuzzOpen opens anything. With mend the checksums are put right, so that what is
// behind them is reached.
func FuzzOpen(f *testing.F) {
	for seed := range uint64(4) {
		b, ends := encode(story(seed, 12))
		f.Add(b, true)
		f.Add(b[:ends[8]+3], false)
	}
	f.Add([]byte(magic), false)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		if mend {
			b = mended(b)
		}
		d := holding(b)
		l := mustOpen(t, d)
		known, err := stateOf(l)
		must(t, err)
		r := record{kind: kindFinished, key: Key{0xee, 0xee}, object: Object{Ino: 1}}
		appendTo(l, r)
		must(t, l.Sync())
		must(t, l.Close())
		l = mustOpen(t, d)
		delete(known.parts, r.key)
		known.finished[r.key] = Finished{Object: r.object}
		again, err := stateOf(l)
		must(t, err)
		wantSame(t, again, known)
	})
}

// mended gives b a good header, and every record in it its checksums.
func mended(b []byte) []byte {
	out, sum := newHeader(transfer)
	if len(b) < headerSize {
		return out
	}
	for b = b[headerSize:]; len(b) >= recordHeader; {
		k := kind(b[8])
		if k == 0 || k >= kinds || len(b) < sizes[k] {
			return append(out, b...)
		}
		at := len(out)
		out = append(out, b[:sizes[k]]...)
		binary.BigEndian.PutUint32(out[at+4:], sum)
		sum = checksum(out[at+4:])
		binary.BigEndian.PutUint32(out[at:], sum)
		b = b[sizes[k]:]
	}
	return append(out, b...)
}
