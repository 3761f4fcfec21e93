package compress

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/limit"
)

func TestParseMode(t *testing.T) {
	for _, m := range []Mode{Auto, Zstd, None} {
		if got, err := ParseMode(string(m)); got != m || err != nil {
			t.Errorf("%v: %v, %v", m, got, err)
		}
	}
	for _, name := range []string{"", "gzip", "ZSTD"} {
		if _, err := ParseMode(name); err == nil {
			t.Errorf("%q is a mode", name)
		}
	}
}

// TestChooser: what each mode makes of data that gets shorter and of what does not.
func TestChooser(t *testing.T) {
	short, long := text(extent), random(extent)
	for mode, want := range map[Mode]bool{Zstd: true, None: false, Auto: false} {
		c := NewChooser(mode) // auto knows nothing of the link yet
		dst := make([]byte, Bound(extent))
		for name, p := range map[string][]byte{"text": short, "random": long} {
			c.Start()
			payload, compressed := c.Payload(dst, p)
			c.Sent()
			if compressed != (want && name == "text") {
				t.Errorf("%v: %s is compressed: %t", mode, name, compressed)
			}
			back := payload
			if compressed {
				back = make([]byte, extent)
				if err := new(Decoder).Decode(back, payload); err != nil {
					t.Errorf("%v: %s: %v", mode, name, err)
				}
			}
			if !bytes.Equal(back, p) {
				t.Errorf("%v: %s does not come back", mode, name)
			}
		}
	}
}

// TestChooserMeasures what the judge is told, with a link that is known: once it is
// slower than any encoder, auto compresses, and learns from whole extents.
func TestChooserMeasures(t *testing.T) {
	c := NewChooser(Auto)
	dst, p := make([]byte, Bound(extent)), text(extent)
	c.Start()
	if _, compressed := c.Payload(dst, p); compressed || c.judge.ratio >= 1 || c.judge.encode == 0 {
		t.Fatalf("compressed: %t; the sample says %+v", compressed, c.judge)
	}
	c.judge.turn(true)
	c.Start()
	payload, compressed := c.Payload(dst, p)
	c.Sent()
	if j := c.judge; !compressed || j.raw != extent || j.wire != len(payload) || j.busy < j.blocked {
		t.Errorf("compressed: %t; %d bytes, measured %+v", compressed, len(payload), j)
	}
}

// TestChooserLearnsNothingOfTheShortest, which the encoder leaves as they are.
func TestChooserLearnsNothingOfTheShortest(t *testing.T) {
	for _, on := range []bool{false, true} {
		c := NewChooser(Auto)
		c.judge.on = on
		p := text(shortest - 1)
		if payload, compressed := c.Payload(make([]byte, Bound(len(p))), p); compressed || !bytes.Equal(payload, p) {
			t.Errorf("on %v: %d bytes of %d, compressed: %v", on, len(payload), len(p), compressed)
		}
		if j := c.judge; j.ratio != 0 || j.encode != 0 || !j.due() {
			t.Errorf("on %v: it learned %+v", on, j)
		}
	}
}

// TestChooserOnALink of 20 MB/s, in virtual time, where the encoder takes none: text
// is compressed once the link is known, and ends as much sooner; the rest never is.
func TestChooserOnALink(t *testing.T) {
	const extents, link = 64, 20_000_000
	words := text(extent)
	encoded, _ := new(Encoder).Encode(make([]byte, Bound(extent)), words)
	for name, c := range map[string]struct {
		p    []byte
		want int // bytes on the link: two rounds as they are
	}{
		"text":   {words, 2*round + (extents-2*round/extent)*len(encoded)},
		"random": {random(extent), extents * extent},
	} {
		synctest.Test(t, func(t *testing.T) {
			chooser, limiter := NewChooser(Auto), limit.New(link)
			dst := make([]byte, Bound(extent))
			began, sent := time.Now(), 0
			for range extents {
				time.Sleep(time.Second) // nobody asks: that is not the link's rate
				chooser.Start()
				payload, _ := chooser.Payload(dst, c.p)
				// What the bucket gathered in the pause goes for nothing.
				limiter.Wait(t.Context(), link/100)
				limiter.Wait(t.Context(), len(payload))
				chooser.Sent()
				sent += len(payload)
			}
			took := time.Since(began) - extents*time.Second
			want := time.Duration(float64(c.want) / link * 1e9)
			if sent != c.want || (took-want).Abs() > 10*time.Millisecond {
				t.Errorf("%s: %d bytes in %v, want %d in %v", name, sent, took, c.want, want)
			}
		})
	}
}
