package compress

import (
	"fmt"
	"time"
)

// Mode is what the user wants of a TCP lane.
type Mode string

// The modes.
const (
	Auto Mode = "auto" // compress when it ends sooner
	Zstd Mode = "zstd" // compress whatever gets shorter
	None Mode = "none"
)

// ParseMode gives the mode of a name.
func ParseMode(name string) (Mode, error) {
	switch m := Mode(name); m {
	case Auto, Zstd, None:
		return m, nil
	}
	return "", fmt.Errorf("compress %q: no such mode (there are auto, zstd and none)", name)
}

// Chooser decides for one lane what to compress. Its sending end calls, for each
// extent, Start, Payload and Sent, in turn and from one goroutine.
type Chooser struct {
	mode    Mode
	encoder Encoder
	judge   judge
	began   time.Time // the request was at hand
	wrote   time.Time // the payload was
	raw     int
	wire    int
}

// NewChooser makes one.
func NewChooser(m Mode) *Chooser { return &Chooser{mode: m, judge: newJudge()} }

// Start says that there is a request to answer: the time before it was nobody's.
func (c *Chooser) Start() {
	if c.mode == Auto {
		c.began = time.Now()
	}
}

// Payload gives what to send of the extent p: p itself, or p compressed into dst,
// which has a capacity of Bound(len(p)).
func (c *Chooser) Payload(dst, p []byte) (payload []byte, compressed bool) {
	payload = p
	tried := len(p) >= shortest // what is not says nothing of the encoder
	switch {
	case c.mode == Zstd || c.mode == Auto && c.judge.on:
		began := time.Now()
		encoded, ok := c.encoder.Encode(dst, p)
		if ok {
			payload, compressed = encoded, true
		}
		if c.mode == Auto && tried {
			c.judge.encoded(len(p), len(payload), time.Since(began))
		}
	case c.mode == Auto && c.judge.due() && tried:
		some := p[:min(len(p), sampleSize)]
		began := time.Now()
		encoded, _ := c.encoder.Encode(dst, some)
		c.judge.encoded(len(some), len(encoded), time.Since(began))
	}
	if c.mode == Auto {
		c.raw, c.wire, c.wrote = len(p), len(payload), time.Now()
	}
	return payload, compressed
}

// Sent says that the link has taken the payload. A wait for the rate limit lies
// before it: the limit is the link then.
func (c *Chooser) Sent() {
	if c.mode == Auto {
		now := time.Now()
		c.judge.sent(c.raw, c.wire, now.Sub(c.wrote), now.Sub(c.began))
	}
}
