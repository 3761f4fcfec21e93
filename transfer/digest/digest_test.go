package digest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const testExtent = 64 << 10

// kinds are those that have a digest.
var kinds = []Kind{BLAKE3, XXH3, CRC32C}

func random(size int) []byte {
	p := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)})
	r.Read(p)
	return p
}

func path(t testing.TB, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// tool is what a program that is not ours prints before the file's name.
func tool(t testing.TB, file string, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], append(argv[1:], file)...).Output()
	if err != nil {
		t.Fatalf("%v: %v", argv, err)
	}
	sum, _, _ := strings.Cut(string(out), " ")
	return strings.TrimSpace(sum)
}

// sizes lie around every power of two up to 1 MiB, and are awkward beyond.
func sizes() (all []int) {
	for n := 1; n <= 1<<20; n *= 2 {
		all = append(all, n-1, n, n+1)
	}
	return append(all, 63, 1000, 17<<10+5, 3*testExtent+1, 7*testExtent+5000, 13*testExtent, 29*testExtent-1)
}

func TestParse(t *testing.T) {
	for _, k := range []Kind{BLAKE3, XXH3, CRC32C, None} {
		if got, err := Parse(k.String()); got != k || err != nil {
			t.Errorf("%v: %v, %v", k, got, err)
		}
		if got := hex.DecodedLen(len(k.Hex(Sum{}))); got != k.Size() {
			t.Errorf("%v: %d bytes are printed of %d", k, got, k.Size())
		}
	}
	for _, name := range []string{"", "BLAKE3", "sha256", "Kind(0)"} {
		if _, err := Parse(name); err == nil || !strings.Contains(err.Error(), "blake3, xxh3, crc32c and none") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestWholeIsWhatToolsPrint, with room behind the bytes and without.
func TestWholeIsWhatToolsPrint(t *testing.T) {
	for _, size := range sizes() {
		content := random(size)
		roomy := append(content[:size:size], random(20<<10)...)[:size]
		file := path(t, content)
		for k, want := range map[Kind]string{
			BLAKE3: tool(t, file, "b3sum"),
			XXH3:   tool(t, file, "xxhsum", "-q", "-H2"),
		} {
			if got := k.Hex(k.Whole(content[:size:size])); got != want {
				t.Errorf("%v of %d bytes: %s, want %s", k, size, got, want)
			}
			if got := k.Hex(k.Whole(roomy)); got != want {
				t.Errorf("%v of %d bytes with room behind: %s, want %s", k, size, got, want)
			}
		}
	}
}

// TestCRC32CVectors: RFC 3720, B.4 (which prints the least significant byte first),
// and the check value of the catalogue of CRCs.
func TestCRC32CVectors(t *testing.T) {
	up, down := make([]byte, 32), make([]byte, 32)
	for i := range up {
		up[i], down[31-i] = byte(i), byte(i)
	}
	for want, p := range map[string][]byte{
		"8a9136aa": make([]byte, 32),
		"62a8ab43": bytes.Repeat([]byte{0xff}, 32),
		"46dd794e": up,
		"113fdb5c": down,
		"e3069283": []byte("123456789"),
	} {
		if got := CRC32C.Hex(CRC32C.Whole(p)); got != want {
			t.Errorf("%x: %s, want %s", p, got, want)
		}
	}
}

func TestNoneHasNoDigest(t *testing.T) {
	p := random(1000)
	if n := None.Extent(p, 0); n != (Node{Len: 1000}) || None.Whole(p) != (Sum{}) {
		t.Errorf("%+v", n)
	}
}

func TestHashingAllocatesNothing(t *testing.T) {
	p := random(1<<20 + 5000)
	for _, k := range []Kind{BLAKE3, XXH3, CRC32C, None} {
		for _, size := range []int{0, 100, 4 << 10, 1 << 20, len(p)} {
			q := p[:size:size]
			// Many runs: the race detector empties pools now and then.
			if n := testing.AllocsPerRun(200, func() { k.Extent(q, 0); k.Whole(q) }); n != 0 {
				t.Errorf("%v of %d bytes: %v allocations", k, size, n)
			}
		}
	}
}

func BenchmarkExtent(b *testing.B) {
	p := random(1 << 20)
	for _, k := range kinds {
		b.Run(fmt.Sprint(k, "/1MiB"), func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				k.Extent(p, 1<<20)
			}
		})
	}
}

func BenchmarkWhole(b *testing.B) {
	pack := random(1 << 20)
	for _, k := range kinds {
		for name, p := range map[string][]byte{"room": pack[:4<<10], "noroom": pack[: 4<<10 : 4<<10]} {
			b.Run(fmt.Sprint(k, "/4KiB/", name), func(b *testing.B) {
				b.SetBytes(int64(len(p)))
				b.ReportAllocs()
				for b.Loop() {
					k.Whole(p)
				}
			})
		}
	}
}
