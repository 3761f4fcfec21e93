package ledger

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
)

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func numbered(i uint32) (Key, Finished) {
	var k Key
	binary.BigEndian.PutUint32(k[:], i*2654435761) // spread as hashes are
	binary.BigEndian.PutUint32(k[12:], i)
	f := Finished{Object: Object{1, uint64(i), int64(i)}, HasDigest: true}
	binary.BigEndian.PutUint32(f.Digest[:], i)
	return k, f
}

func fill(t testing.TB, l *Ledger, n int) {
	t.Helper()
	for i := range uint32(n) {
		l.AppendFinished(numbered(i))
		if i%8192 == 8191 {
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestMillionFinishedFiles(t *testing.T) {
	const million, most = 1_000_000, 64 << 20
	root := into(t)
	check := func(what string, before uint64, l *Ledger) {
		t.Helper()
		used := heap() - before
		t.Logf("%s: %.1f MiB", what, float64(used)/(1<<20))
		if used >= most {
			t.Errorf("%s: %d bytes of heap for a million files, want less than %d", what, used, most)
		}
		for i := uint32(0); i < million; i += 9973 {
			k, want := numbered(i)
			if f, ok := l.Finished(k); !ok || f != want {
				t.Fatalf("file %d: %v, %v; want %v", i, f, ok, want)
			}
		}
		if _, n := l.Len(); n != million {
			t.Errorf("%d files", n)
		}
	}
	before := heap()
	l := openIn(t, root)
	fill(t, l, million)
	check("appended", before, l)
	must(t, l.Close())
	l = nil

	before = heap()
	l = openIn(t, root)
	check("opened", before, l)
	must(t, l.Close())
}

func BenchmarkAppendSync(b *testing.B) {
	for _, n := range []int{1, 16, 256, 4096} {
		b.Run(fmt.Sprintf("group=%d", n), func(b *testing.B) {
			l := openIn(b, into(b))
			defer l.Remove()
			b.ReportAllocs()
			var i uint32
			for b.Loop() {
				for range n {
					l.AppendFinished(numbered(i))
					i++
				}
				if err := l.Sync(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(i), "ns/record")
		})
	}
}

// BenchmarkAppend is the cost without the disk: encoding, checksum, index.
func BenchmarkAppend(b *testing.B) {
	l := openIn(b, into(b))
	l.AppendPart(Key{1}, Object{})
	b.ReportAllocs()
	var i uint32
	for b.Loop() {
		l.AppendBlock(Key{1}, i, [32]byte{1})
		if i++; i%4096 == 0 {
			l.buf = l.buf[:0] // as Sync would
			l.index.parts[Key{1}].blocks = l.index.parts[Key{1}].blocks[:0]
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	const n = 100_000
	root := into(b)
	l := openIn(b, root)
	fill(b, l, n)
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		l := openIn(b, root)
		l.file.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/record")
}
