package transfer

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// hostile is a peer that has the key and says what a test makes it say.
type hostile struct {
	t     *testing.T
	s     *Session
	heard chan wire.Message
}

func newHostile(t *testing.T, s *Session) *hostile {
	h := &hostile{t, s, make(chan wire.Message, 10000)}
	go func() {
		defer close(h.heard)
		for {
			m, err := s.Receive()
			if err != nil {
				return
			}
			h.heard <- m
		}
	}()
	return h
}

// say ignores errors: the other end may have had enough.
func (h *hostile) say(messages ...wire.Message) {
	for _, m := range messages {
		if frame, err := wire.Append(nil, m); err != nil {
			h.t.Errorf("%T: %v (%d bytes)", m, err, len(frame))
		}
		_ = h.s.Send(m)
	}
}

// await waits for a message of one type.
func await[M wire.Message](h *hostile) (m M) {
	h.t.Helper()
	for got := range h.heard {
		if m, ok := got.(M); ok {
			return m
		}
	}
	h.t.Fatalf("the other end never said %T", m)
	return m
}

// hello is a sender's first message.
func hello(verify string) *wire.Hello {
	return &wire.Hello{Version: wire.Version, Transport: TransportAuto, Op: "auto", Verify: verify, Lanes: 1}
}

// badSender is a sender that a Receiver has opened a lane to.
type badSender struct {
	*hostile
	lane *memLane
	dir  string
	end  *end
	over chan struct{}
}

// againstReceiver begins a transfer with a hostile sender.
func againstReceiver(t *testing.T, ctx context.Context, verify string, sink Sink) *badSender {
	t.Helper()
	e := newEngine(t, nil)
	if sink != nil {
		e.Sink = sink
	}
	a, b := sessions(t)
	bad := &badSender{hostile: newHostile(t, a), dir: e.dir, end: new(end), over: make(chan struct{})}
	e.Receiver.Observer = bad.end
	go func() {
		defer close(bad.over)
		bad.end.Result, bad.end.err = e.Receive(ctx, b)
	}()
	bad.say(hello(verify))
	open := await[*wire.OpenLane](bad.hostile)
	e.lane.mu.Lock()
	bad.lane = e.lane.lanes[open.ID]
	e.lane.mu.Unlock()
	bad.say(&wire.LaneAnswer{ID: open.ID})
	await[*wire.Plan](bad.hostile)
	return bad
}

// finish hangs up, and gives what the receiver made of it all.
func (b *badSender) finish() *end {
	b.t.Helper()
	synctest.Wait() // it has heard everything
	b.s.Close()
	<-b.over
	if left := openDescriptors(b.t, b.dir); len(left) > 0 {
		b.t.Errorf("open: %v", left)
	}
	return b.end
}

// serve answers n requests as an honest sender of that content does.
func (b *badSender) serve(n int, content string) {
	for range n {
		r := <-b.lane.requests
		b.lane.answers <- memAnswer{r: r, ok: true, p: []byte(content[r.Offset:][:r.Length])}
	}
}

func entry(file uint32, path string, size int64) *wire.Entry {
	return &wire.Entry{File: file, Path: path, Size: size, Mode: 0o600}
}

func vouch(file uint32) *wire.Vouch { return &wire.Vouch{Files: []uint32{file}} }

func receipt(file uint32) *wire.Receipt { return &wire.Receipt{Files: []uint32{file}} }

func sums(file uint32, content string, extents ...uint32) *wire.Digests {
	m := &wire.Digests{File: file}
	for _, n := range extents {
		off := int(n) * DefaultExtentSize
		var d Digest
		if off < len(content) {
			d = digest.BLAKE3.Extent([]byte(content[off:min(off+DefaultExtentSize, len(content))]), int64(off)).Sum
		}
		m.Extents = append(m.Extents, n)
		m.Sums = append(m.Sums, d[:]...)
	}
	return m
}
