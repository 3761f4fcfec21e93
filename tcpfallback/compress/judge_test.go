package compress

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

const extent = 1 << 20

// lane is a simulated one: a socket's buffer that the link empties beside the lane's
// goroutine, which reads, compresses and writes. Rates are bytes a second.
type lane struct {
	link   func(sent int) float64 // by how many bytes of the file went before
	ratio  func(sent int) float64
	encode float64
	noise  float64 // of each duration, a part of it
}

const (
	buffer = 4 << 20
	memory = 6e9 // reading a file and copying into the socket
)

// run sends bytes and gives the time until the last has left, and how often the
// judge changed its mind. always or never, it is not asked.
func (l lane) run(bytes int, mode Mode) (total time.Duration, turns int) {
	r := rand.New(rand.NewPCG(1, 2))
	j := newJudge()
	j.on = mode == Zstd
	var now, queued float64
	pass := func(seconds, link float64) {
		now += seconds
		queued = max(0, queued-link*seconds)
	}
	duration := func(since float64) time.Duration { return time.Duration((now - since) * 1e9) }
	for sent := 0; sent < bytes; sent += extent {
		link, ratio := l.link(sent)*(1+l.noise*(2*r.Float64()-1)), l.ratio(sent)
		encode := l.encode * (1 + l.noise*(2*r.Float64()-1))
		began, was := now, j.on
		pass(extent/memory, link)
		wire := extent
		if j.on {
			at := now
			pass(extent/encode, link)
			wire = int(extent * min(1, ratio))
			j.encoded(extent, wire, duration(at))
		} else if mode == Auto && j.due() {
			at := now
			pass(sampleSize/encode, link)
			j.encoded(sampleSize, int(sampleSize*ratio), duration(at))
		}
		at := now
		pass(float64(wire)/memory, link)
		if over := queued + float64(wire) - buffer; over > 0 {
			pass(over/link, link)
		}
		queued += float64(wire)
		if mode == Auto {
			j.sent(extent, wire, duration(at), duration(began))
			if j.on != was {
				turns++
			}
		}
	}
	return time.Duration((now + queued/l.link(bytes)) * 1e9), turns
}

func steady(v float64) func(int) float64 { return func(int) float64 { return v } }

// TestAutoEndsWithTheSooner of the two, or nearly: over links and data of all kinds,
// with a beginning in which it learns, and with noise.
func TestAutoEndsWithTheSooner(t *testing.T) {
	const bytes = 8 << 30
	for _, link := range []float64{1e6, 12.5e6, 125e6, 300e6, 600e6, 1.2e9, 3e9} {
		for _, encode := range []float64{200e6, 600e6, 1.5e9} {
			for _, ratio := range []float64{0.05, 0.3, 0.6, 0.85, 0.97, 1.01} {
				for _, noise := range []float64{0, 0.3} {
					l := lane{steady(link), steady(ratio), encode, noise}
					auto, turns := l.run(bytes, Auto)
					always, _ := l.run(bytes, Zstd)
					never, _ := l.run(bytes, None)
					name := fmt.Sprintf("link %.3g, encoder %.3g, ratio %v, noise %v: auto %v (%d turns), zstd %v, none %v",
						link, encode, ratio, noise, auto, turns, always, never)
					// A gain that the sum does not promise, for the encoder works beside the
					// link, is left alone: it would be gone where the link is faster.
					sum := time.Duration(bytes*(1/encode+ratio/link)*1e9) * 11 / 10
					if auto > never*105/100 || auto > max(always, sum)*105/100 {
						t.Error(name)
					}
					if turns > 4+2*bytes/(lookAfter*2*round) {
						t.Error("it keeps changing its mind:", name)
					}
				}
			}
		}
	}
}

// TestAutoBeginsSoonOnASlowLink, where it pays most: 1 Mbit/s takes minutes for a round by size.
func TestAutoBeginsSoonOnASlowLink(t *testing.T) {
	const bytes = 10 << 20
	l := lane{steady(125e3), steady(0.2), 600e6, 0.1}
	auto, _ := l.run(bytes, Auto)
	never, _ := l.run(bytes, None)
	if auto > never*3/4 {
		t.Errorf("%v, never %v", auto, never)
	}
}

// TestAutoFollows what changes on the way.
func TestAutoFollows(t *testing.T) {
	const bytes = 16 << 30
	half := func(first, second float64) func(int) float64 {
		return func(sent int) float64 {
			if sent < bytes/2 {
				return first
			}
			return second
		}
	}
	for name, c := range map[string]struct {
		l lane
	}{
		"the link gets slow":         {l: lane{half(3e9, 50e6), steady(0.3), 600e6, 0.1}},
		"the link gets fast":         {l: lane{half(50e6, 3e9), steady(0.3), 600e6, 0.1}},
		"packed files come":          {l: lane{steady(100e6), half(0.3, 1.01), 600e6, 0.1}},
		"text comes":                 {l: lane{steady(100e6), half(1.01, 0.3), 600e6, 0.1}},
		"the link is nearly as fast": {l: lane{half(50e6, 1e9), steady(0.5), 1.2e9, 0.1}},
	} {
		auto, turns := c.l.run(bytes, Auto)
		// The best there is: each half as it is best by itself.
		best := time.Duration(0)
		for _, at := range []int{0, bytes / 2} {
			part := lane{steady(c.l.link(at)), steady(c.l.ratio(at)), c.l.encode, c.l.noise}
			always, _ := part.run(bytes/2, Zstd)
			never, _ := part.run(bytes/2, None)
			best += min(always, never)
		}
		t.Logf("%s: %v, %d turns; at best %v", name, auto, turns, best)
		if auto > best*110/100 {
			t.Errorf("%s: %v, %d turns; at best %v", name, auto, turns, best)
		}
	}
}

// TestSamplingIsCheap: of what does not get shorter, hardly anything is tried.
func TestSamplingIsCheap(t *testing.T) {
	j := newJudge()
	const bytes = 4 << 30
	tried := 0
	for sent := 0; sent < bytes; sent += extent {
		if j.due() {
			tried += sampleSize
			j.encoded(sampleSize, sampleSize+10, 100*time.Microsecond)
		}
		j.sent(extent, extent, time.Millisecond, 2*time.Millisecond)
	}
	if j.on || tried == 0 || tried > bytes/1000 {
		t.Errorf("on: %t, %d bytes tried of %d", j.on, tried, bytes)
	}
}
