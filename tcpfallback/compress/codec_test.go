package compress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// lines get shorter: they are numbered, with a few random bytes in each.
var lines = sync.OnceValue(func() (p []byte) {
	r := rand.New(rand.NewPCG(1, 1))
	for i := 0; len(p) < wire.MaxExtent; i++ {
		p = fmt.Appendf(p, "%d %x the quick brown fox\n", i, r.Uint32())
	}
	return p
})

func text(size int) []byte { return bytes.Clone(lines()[:size]) }

func random(size int) []byte {
	p := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(size)})
	r.Read(p)
	return p
}

func TestRoundTrip(t *testing.T) {
	var e Encoder
	var d Decoder
	for _, size := range []int{256, 1023, 1025, 4 << 10, 128 << 10, 128<<10 + 1, extent - 1, extent, extent + 1, 4 * extent, wire.MaxExtent} {
		for name, p := range map[string][]byte{"text": text(size), "zeros": make([]byte, size)} {
			dst := make([]byte, Bound(size))
			encoded, ok := e.Encode(dst, p)
			if !ok || len(encoded) >= size || &encoded[0] != &dst[0] {
				t.Errorf("%s of %d bytes: %d encoded, %t", name, size, len(encoded), ok)
				continue
			}
			got := make([]byte, size+100)
			if err := d.Decode(got[:size], encoded); err != nil || !bytes.Equal(got[:size], p) {
				t.Errorf("%s of %d bytes: %v", name, size, err)
			}
			if !bytes.Equal(got[size:], make([]byte, 100)) {
				t.Errorf("%s of %d bytes: written behind the extent", name, size)
			}
		}
	}
}

// TestZstdReadsIt, the program that is not ours.
func TestZstdReadsIt(t *testing.T) {
	p := text(3*extent + 7)
	encoded, ok := new(Encoder).Encode(make([]byte, Bound(len(p))), p)
	if !ok {
		t.Fatal("text does not get shorter")
	}
	zstd := exec.Command("zstd", "-d")
	zstd.Stdin = bytes.NewReader(encoded)
	if out, err := zstd.Output(); err != nil || !bytes.Equal(out, p) {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}

func TestEncodeSaysWhatDoesNotGetShorter(t *testing.T) {
	for _, size := range []int{0, 1, 255, 256, 4 << 10, extent, 4*extent + 1} {
		dst := make([]byte, Bound(size))
		encoded, ok := new(Encoder).Encode(dst, random(size))
		if ok || len(encoded) > len(dst) || len(encoded) > 0 && &encoded[0] != &dst[0] {
			t.Errorf("%d random bytes: %d encoded, room for %d, %t", size, len(encoded), len(dst), ok)
		}
	}
}

// frame is the start of a zstd frame (RFC 8878, 3.1.1.1) and its blocks.
func frame(descriptor byte, rest ...byte) []byte {
	return append([]byte{0x28, 0xb5, 0x2f, 0xfd, descriptor}, rest...)
}

func TestDecodeRefuses(t *testing.T) {
	var d Decoder
	good, _ := new(Encoder).Encode(make([]byte, Bound(extent)), text(extent))
	other := func(options ...zstd.EOption) []byte {
		e, err := zstd.NewWriter(nil, options...)
		if err != nil {
			t.Fatal(err)
		}
		return e.EncodeAll(text(extent), nil)
	}
	var streamed bytes.Buffer // its header has no length
	e, _ := zstd.NewWriter(&streamed)
	e.Write(text(extent))
	e.Flush()
	e.Close()
	stored, _ := new(Encoder).Encode(make([]byte, Bound(extent)), random(extent))
	flipped := bytes.Clone(good)
	flipped[len(good)/2] ^= 4
	claims := func(size uint32, blocks ...byte) []byte {
		return frame(0xa0, append(binary.LittleEndian.AppendUint32(nil, size), blocks...)...)
	}
	for name, c := range map[string]struct {
		src  []byte
		size int
	}{
		"nothing":                 {nil, extent},
		"too little":              {good[:3], extent},
		"half of it":              {good[:len(good)/2], extent},
		"no last byte":            {good[:len(good)-1], extent},
		"a byte too many":         {append(bytes.Clone(good), 1), extent},
		"another one behind":      {append(bytes.Clone(good), good...), extent},
		"a longer extent":         {good, extent - 1},
		"a shorter extent":        {good, extent + 1},
		"an empty extent":         {good, 0},
		"garbage":                 {bytes.Repeat([]byte("GET / "), 100), extent},
		"no length":               {streamed.Bytes(), extent},
		"a skippable frame":       {append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0}, 1, 2, 3, 4), extent},
		"a dictionary":            {other(zstd.WithEncoderDictRaw(7, text(1000))), extent},
		"a window beyond ours":    {frame(0x80, append([]byte{0xf8}, append(binary.LittleEndian.AppendUint32(nil, extent), 1, 0, 0)...)...), extent},
		"no shorter than it is":   {stored, extent},
		"a claim of 4 GiB":        {claims(0xffffffff, 1, 0, 0), extent},
		"fewer bytes than claims": {claims(extent, 0x03, 0, 0, 0xaa), extent},        // one empty RLE block, the last
		"more bytes than claims":  {claims(1000, 0x03|0xf8, 0xff, 0x0f, 0xaa), 1000}, // RLE of 128 KiB
		"a reserved block":        {claims(extent, 0x07, 0, 0, 0), extent},
		"a reserved bit":          {frame(0xa8, 0, 0, 0x10, 0, 1, 0, 0), extent},
	} {
		dst := make([]byte, c.size+100)
		err := d.Decode(dst[:c.size], c.src)
		if !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(dst[c.size:], make([]byte, 100)) {
			t.Errorf("%s: written behind the extent", name)
		}
	}
	// One that was changed on the way is the digest's to find, if it decodes.
	dst := make([]byte, extent)
	if err := d.Decode(dst, flipped); err == nil && bytes.Equal(dst, text(extent)) {
		t.Error("a changed bit changed nothing")
	}
}

// TestDecodingAfterHostility: a decoder that has seen anything is as good as new.
func TestDecodingAfterHostility(t *testing.T) {
	p := text(extent)
	good, _ := new(Encoder).Encode(make([]byte, Bound(extent)), p)
	r := rand.New(rand.NewPCG(1, 1))
	dst := make([]byte, extent)
	var d Decoder
	before := heap()
	for range 100 {
		bad := bytes.Clone(good)
		for range 1 + r.IntN(5) {
			bad[r.IntN(len(bad))] = byte(r.Uint32())
		}
		d.Decode(dst, bad[:len(bad)-r.IntN(2)*r.IntN(len(bad))])
		if err := d.Decode(dst, good); err != nil || !bytes.Equal(dst, p) {
			t.Fatal("a good extent after a bad one:", err)
		}
	}
	if n := heap(); n > before+16<<20 {
		t.Errorf("%d bytes of memory, %d before", n, before)
	}
	runtime.KeepAlive(&d)
}

// heap is how much is in use, without what nothing refers to any more.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func FuzzDecode(f *testing.F) {
	for _, size := range []int{300, 5000, 200 << 10} {
		encoded, _ := new(Encoder).Encode(make([]byte, Bound(size)), text(size))
		f.Add(bytes.Clone(encoded), uint32(size))
	}
	f.Add(frame(0x20, 200, 0x03, 0x08, 0, 1), uint32(200))
	var d Decoder
	f.Fuzz(func(t *testing.T, src []byte, size uint32) {
		n := int(size % (2 * extent))
		dst := make([]byte, n+64)
		if err := d.Decode(dst[:n], src); err != nil && !errors.Is(err, wire.ErrMalformed) {
			t.Error(err)
		}
		if !bytes.Equal(dst[n:], make([]byte, 64)) {
			t.Error("written behind the extent")
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add(text(1000))
	var e Encoder
	var d Decoder
	f.Fuzz(func(t *testing.T, p []byte) {
		encoded, ok := e.Encode(make([]byte, Bound(len(p))), p)
		if !ok {
			return
		}
		got := make([]byte, len(p))
		if err := d.Decode(got, encoded); err != nil || !bytes.Equal(got, p) {
			t.Errorf("%x: %v", p, err)
		}
	})
}

func BenchmarkCodec(b *testing.B) {
	var e Encoder
	var d Decoder
	for name, p := range map[string][]byte{"text": text(extent), "random": random(extent), "zeros": make([]byte, extent)} {
		dst := make([]byte, Bound(len(p)))
		encoded, ok := e.Encode(dst, p)
		b.Run("encode/"+name, func(b *testing.B) {
			b.SetBytes(extent)
			for b.Loop() {
				e.Encode(dst, p)
			}
			b.ReportMetric(float64(len(encoded))/extent, "ratio")
		})
		if !ok {
			continue
		}
		b.Run("decode/"+name, func(b *testing.B) {
			b.SetBytes(extent)
			back := make([]byte, extent)
			for b.Loop() {
				if err := d.Decode(back, encoded); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
