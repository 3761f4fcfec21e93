package transfer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

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
		if frame, err := wire.Encode(m); err != nil {
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

func sums(file uint32, content string, extents ...uint32) *wire.Digests {
	m := &wire.Digests{File: file}
	for _, n := range extents {
		off := int(n) * DefaultExtentSize
		var d Digest
		if off < len(content) {
			d = hashExtent([]byte(content[off:min(off+DefaultExtentSize, len(content))]), int64(off), int64(len(content)))
		}
		m.Extents = append(m.Extents, n)
		m.Sums = append(m.Sums, d[:]...)
	}
	return m
}

func TestReceiverRefusesWhatNoSenderSays(t *testing.T) {
	a, b := entry(0, "a", 5), entry(1, "b", 5)
	for name, messages := range map[string][]wire.Message{
		"Hello again":                  {hello(VerifyBLAKE3)},
		"Welcome":                      {&wire.Welcome{ExtentSize: mib}},
		"OpenLane":                     {&wire.OpenLane{Depth: 1, TCP: &wire.TCPLane{}}},
		"Plan":                         {&wire.Plan{}},
		"Landed":                       {a, &wire.Landed{}},
		"Receipt":                      {a, &wire.Receipt{}},
		"Done":                         {a, &wire.Done{}},
		"first entry is not 0":         {b},
		"an entry twice":               {a, a},
		"an entry left out":            {a, entry(2, "c", 5)},
		"a path twice":                 {a, entry(1, "a", 6)},
		"a path twice, failed between": {entry(0, "d/a", 5), entry(1, "d/a", 6)},
		"an entry after the end":       {a, &wire.ManifestEnd{Files: 1, Bytes: 5}, b},
		"a file too few":               {a, &wire.ManifestEnd{Files: 2}},
		"a file too many":              {a, b, &wire.ManifestEnd{Files: 1}},
		"two ends":                     {a, &wire.ManifestEnd{Files: 1, Bytes: 5}, &wire.ManifestEnd{Files: 1, Bytes: 5}},
		"digests of no file":           {sums(0, "hello", 0)},
		"digests of a later file":      {a, sums(7, "hello", 0)},
		"digests before it landed":     {a, sums(0, "hello", 0)},
		"a voucher for no file":        {&wire.Vouch{}},
		"a voucher before it landed":   {a, &wire.Vouch{}},
		"a negative range of digests":  {entry(0, "a", 0), sums(0, "", 1<<31)},
		"a digest of a file of none":   {entry(0, "a", 0), sums(0, "", 0)},
	} {
		synctest.Test(t, func(t *testing.T) {
			bad := againstReceiver(t, t.Context(), VerifyBLAKE3, nil)
			bad.say(messages...)
			end := bad.finish()
			if !errors.Is(end.err, wire.ErrMalformed) {
				t.Errorf("%s: %v", name, end.err)
			}
			wantFiles(t, bad.dir, nil)
		})
	}
}

func TestReceiverRefusesStrangeGreetings(t *testing.T) {
	version := hello(VerifyBLAKE3)
	version.Version++
	for name, c := range map[string]struct {
		m     wire.Message
		code  Code
		words string
	}{
		"version":        {version, CodeOther, "version 2"},
		"verification":   {hello("md5"), CodeUsage, "md5"},
		"no Hello":       {entry(0, "a", 1), CodeOther, "before Hello"},
		"it gives up":    {&wire.Abort{Code: 7, Reason: "never mind"}, CodeOther, "before Hello"},
		"nothing at all": {&wire.Ping{}, CodeConnect, "says nothing"},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine(t, nil)
			e.Receiver.Observer = new(end)
			a, b := sessions(t)
			h := newHostile(t, a)
			go h.say(c.m)
			_, err := e.Receive(t.Context(), b)
			t.Log(name)
			wantCode(t, err, c.code, c.words)
			if heard := await[*wire.Abort](h); heard.Reason != err.Error() {
				t.Errorf("the peer heard %q", heard.Reason)
			}
			a.Close()
		})
	}
}

// TestReceiverPutsUpWithIdleTalk, and lands the file.
func TestReceiverPutsUpWithIdleTalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := random(mib + 5)
		bad := againstReceiver(t, t.Context(), VerifyBLAKE3, nil)
		write(t, filepath.Join(bad.dir, "exists"), "precious")
		bad.say(&wire.LaneAnswer{ID: 1}, &wire.LaneAnswer{ID: 1}, &wire.LaneAnswer{ID: 99}, &wire.LaneDown{ID: 99},
			&wire.FileFailed{File: 5}, entry(0, "f", int64(len(content))), entry(1, "exists", 5), &wire.ManifestEnd{Files: 2})
		bad.say(sums(1, "hello", 0), &wire.Vouch{File: 1}, &wire.FileFailed{File: 1}) // of one that has failed
		bad.serve(2, content)
		await[*wire.Landed](bad.hostile)
		bad.say(sums(0, content, 0, 1), sums(0, content, 1), &wire.Vouch{}, &wire.Vouch{}, &wire.FileFailed{})
		if done := await[*wire.Done](bad.hostile); done.Files != 1 {
			t.Errorf("%+v", done)
		}
		wantCode(t, bad.finish().err, CodePartial)
		wantFiles(t, bad.dir, map[string]string{"f": content, "exists": "precious"})
	})
}

// TestVoucherWithoutDigestsIsWorthNothing, and neither is one with wrong ones.
func TestVoucherWithoutDigestsIsWorthNothing(t *testing.T) {
	content := random(2 * mib)
	for name, digests := range map[string][]wire.Message{
		"none":  nil,
		"one":   {sums(0, content, 0)},
		"wrong": {sums(0, random(2*mib), 0), sums(0, random(2*mib+1), 1)},
		"empty": {&wire.Digests{}},
	} {
		synctest.Test(t, func(t *testing.T) {
			bad := againstReceiver(t, t.Context(), VerifyBLAKE3, nil)
			bad.say(entry(0, "f", int64(len(content))), &wire.ManifestEnd{Files: 1})
			go func() {
				for {
					select {
					case r := <-bad.lane.requests:
						bad.lane.answers <- memAnswer{r: r, ok: true, p: []byte(content[r.Offset:][:r.Length])}
					case <-bad.lane.broken:
						return
					}
				}
			}()
			for range maxAttempts {
				await[*wire.Landed](bad.hostile)
				bad.say(digests...)
				bad.say(&wire.Vouch{})
			}
			if failed := await[*wire.FileFailed](bad.hostile); failed.Code != uint8(CodeIntegrity) {
				t.Errorf("%s: %+v", name, failed)
			}
			wantCode(t, bad.finish().err, CodeIntegrity)
			wantFiles(t, bad.dir, nil)
		})
	}
}

// TestFileThatIsNeverVouchedFor: the sender lives and owes a word.
func TestFileThatIsNeverVouchedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := againstReceiver(t, t.Context(), VerifyNone, nil)
		bad.say(entry(0, "f", 5), entry(1, "empty", 0), &wire.ManifestEnd{Files: 2})
		bad.serve(1, "hello")
		await[*wire.Done](bad.hostile)
		wantCode(t, bad.finish().err, CodeConnect, "none of 2", "has not said")
		wantFiles(t, bad.dir, nil)
	})
}

// TestClaimedSizesTakeNoMemory: a manifest may say what it likes.
func TestClaimedSizesTakeNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := againstReceiver(t, t.Context(), VerifyBLAKE3, Discard{})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		bad.say(entry(0, "f", wire.MaxSize))
		bad.serve(10, random(30*mib))
		synctest.Wait()
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 200*mib {
			t.Errorf("%d bytes", took)
		}
		wantCode(t, bad.finish().err, CodeConnect)
	})
}

func TestPeersFailureWithoutACodeIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := againstReceiver(t, t.Context(), VerifyBLAKE3, nil)
		bad.say(entry(0, "f", 5), &wire.FileFailed{Code: 0, Reason: "because"}, &wire.ManifestEnd{Files: 1})
		await[*wire.Done](bad.hostile)
		wantCode(t, bad.finish().err, CodeOther, "because")
		wantFiles(t, bad.dir, nil)
	})
}

// gate is a sink whose Create waits.
type gate struct {
	Sink
	entered, open chan struct{}
}

func (g *gate) Create(e *wire.Entry) (Landing, error) {
	g.entered <- struct{}{}
	<-g.open
	return g.Sink.Create(e)
}

// TestStoppedInTheMiddleOfTheManifest: an entry that is at work when the transfer
// is given up, and such as come after it, leave nothing.
func TestStoppedInTheMiddleOfTheManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancelCause(t.Context())
		d, dir := into(t, OverwriteNever)
		g := &gate{d, make(chan struct{}, 100), make(chan struct{})}
		bad := againstReceiver(t, ctx, VerifyBLAKE3, g)
		bad.dir = dir
		bad.say(entry(0, "a", 5))
		<-g.entered
		go bad.say(entry(1, "b", 5), entry(2, "c", 5))
		stop(errors.New("stopped"))
		time.Sleep(lingerTime / 2) // by the bubble's clock: the receiver lingers
		close(g.open)
		await[*wire.Abort](bad.hostile)
		wantCode(t, bad.finish().err, CodeOther, "stopped")
		wantFiles(t, dir, nil)
	})
}

func TestStoppedBeforeTheGreeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil)
		a, b := sessions(t)
		h := newHostile(t, a)
		ctx, stop := context.WithCancelCause(t.Context())
		go func() {
			await[*wire.Abort](h)
			a.Close()
		}()
		time.AfterFunc(time.Second, func() { stop(os.ErrProcessDone) })
		began := time.Now()
		if _, err := e.Receive(ctx, b); !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
