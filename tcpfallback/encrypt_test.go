package tcpfallback

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// TestCaptureSeesPayloadThatIsClearAlone: who captures everything that lanes carry finds
// what was sent, and nothing of it when that was encrypted.
func TestCaptureSeesPayloadThatIsClearAlone(t *testing.T) {
	path, content := file(t, 3*extent+7)
	for encrypt, want := range map[bool]int{false: 4, true: 0} {
		h := newHosts(t)
		h.encrypt = encrypt
		var mu sync.Mutex
		var captured []byte
		p := &proxy{to: h.l.Addr().String(), lane: func(_ int, b []byte) bool {
			mu.Lock()
			defer mu.Unlock()
			captured = append(captured, b...)
			return true
		}}
		sent, received := h.send(p.start(t), "auto", transfer.VerifyBLAKE3, path)
		p.stop()
		if sent != nil || received != nil {
			t.Fatal(sent, received)
		}
		h.wantLanded(content)
		seen := 0
		for off := 0; off < len(content); off += extent {
			if bytes.Contains(captured, content[off:min(off+64, len(content))]) {
				seen++
			}
		}
		if seen != want || len(captured) < len(content) {
			t.Errorf("encrypted %t: %d pieces seen, want %d, in %d bytes", encrypt, seen, want, len(captured))
		}
	}
}

// TestMeddlerOnEncryptedLanes: a lane on which he changes anything breaks, with nothing of
// it landed, and is replaced.
func TestMeddlerOnEncryptedLanes(t *testing.T) {
	path, content := file(t, 5*extent+7)
	for name, c := range map[string]struct {
		meddle func() func(n int, b []byte) bool
		code   transfer.Code
	}{
		"flips one bit": {func() func(int, []byte) bool {
			var done atomic.Bool
			return func(_ int, b []byte) bool {
				if len(b) > 10000 && done.CompareAndSwap(false, true) {
					b[5000] ^= 1
				}
				return true
			}
		}, transfer.CodeOK},
		"flips bits in every piece of payload": {func() func(int, []byte) bool {
			return func(_ int, b []byte) bool {
				if len(b) > 10000 {
					b[len(b)-1] ^= 1
				}
				return true
			}
		}, transfer.CodeConnect},
		"flips bits in the handshake": {func() func(int, []byte) bool {
			return func(n int, b []byte) bool {
				b[len(b)-1] ^= 1
				return true
			}
		}, transfer.CodeConnect},
		"cuts a lane": {func() func(int, []byte) bool {
			var cut atomic.Bool
			return func(n int, _ []byte) bool {
				return n != 20 || !cut.CompareAndSwap(false, true)
			}
		}, transfer.CodeOK},
		"cuts every lane in its handshake": {func() func(int, []byte) bool {
			return func(int, []byte) bool { return false }
		}, transfer.CodeConnect},
		"cuts every lane behind that": {func() func(int, []byte) bool {
			return func(_ int, b []byte) bool { return len(b) < 10000 }
		}, transfer.CodeConnect},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it waits for broken lanes
			h := newHosts(t)
			h.encrypt = true
			p := &proxy{to: h.l.Addr().String(), lane: c.meddle()}
			// No digests: what is found out is found out by the encryption.
			sent, received := h.send(p.start(t), "auto", transfer.VerifyNone, path)
			p.stop()
			if transfer.CodeOf(sent) != c.code || transfer.CodeOf(received) != c.code {
				t.Errorf("%v, %v; want code %d", sent, received, c.code)
			}
			if c.code == transfer.CodeOK {
				h.wantLanded(content)
			} else {
				h.wantNames()
			}
		})
	}
}

// stranger carries sessions and the proofs of lanes as they are, and then sits between the
// two ends of each lane with a key of his own.
type stranger struct {
	*proxy
	secret []byte
}

func (s *stranger) carry(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", s.to)
	if err != nil {
		return
	}
	defer out.Close()
	head := make([]byte, 1, wire.PreambleSize)
	if _, err := io.ReadFull(in, head); err != nil {
		return
	}
	if head[0] != wire.LaneMagic {
		out.Write(head)
		both(in, out)
		return
	}
	io.ReadFull(in, head[1:cap(head)])
	out.Write(head[:cap(head)])
	io.CopyN(in, out, wire.ProofSize)
	to, from := tls.Server(in, gullible(s.secret, listener)), tls.Client(out, gullible(s.secret, dialler))
	var shaken sync.WaitGroup
	shaken.Go(func() { to.Handshake() })
	shaken.Go(func() { from.Handshake() })
	shaken.Wait()
	both(to, from)
}

// gullible believes whoever comes.
func gullible(secret []byte, role string) *tls.Config {
	conf, err := laneConfig(laneKey(secret, role), nil)
	if err != nil {
		panic(err)
	}
	conf.VerifyConnection = nil
	return conf
}

func both(a, b net.Conn) {
	var done sync.WaitGroup
	for _, c := range [][2]net.Conn{{a, b}, {b, a}} {
		done.Go(func() {
			io.Copy(c[0], c[1])
			c[0].Close()
		})
	}
	done.Wait()
}

func (s *stranger) start(t *testing.T) string {
	t.Helper()
	var err error
	if s.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s.running.Go(func() {
		for {
			conn, err := s.l.Accept()
			if err != nil {
				return
			}
			s.running.Go(func() { s.carry(conn) })
		}
	})
	return s.l.Addr().String()
}

// TestManInTheMiddleIsRefused, though he lets the proofs pass.
func TestManInTheMiddleIsRefused(t *testing.T) {
	path, _ := file(t, extent)
	h := newHosts(t)
	h.encrypt = true
	s := &stranger{&proxy{to: h.l.Addr().String()}, []byte("his own")}
	sent, received := h.send(s.start(t), "auto", transfer.VerifyBLAKE3, path)
	s.stop()
	for _, err := range []error{sent, received} {
		if transfer.CodeOf(err) != transfer.CodeAuth {
			t.Errorf("%v, code %d", err, transfer.CodeOf(err))
		}
	}
	h.wantNames()
}

// TestEachEndKnowsTheOther: neither end takes anybody who has not the very key of the
// other, be it his own end's.
func TestEachEndKnowsTheOther(t *testing.T) {
	secret := []byte("secret")
	for name, c := range map[string]struct {
		role string // of the end under test
		conf func() *tls.Config
		ok   bool
	}{
		"the other end, to the dialler":  {dialler, func() *tls.Config { return gullible(secret, listener) }, true},
		"the other end, to the listener": {listener, func() *tls.Config { return gullible(secret, dialler) }, true},
		"a stranger, to the dialler":     {dialler, func() *tls.Config { return gullible(nil, listener) }, false},
		"a stranger, to the listener":    {listener, func() *tls.Config { return gullible(nil, dialler) }, false},
		"its own key, to the dialler":    {dialler, func() *tls.Config { return gullible(secret, dialler) }, false},
		"its own key, to the listener":   {listener, func() *tls.Config { return gullible(secret, listener) }, false},
		"nobody, to the listener": {listener, func() *tls.Config {
			return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"rdmaxfer-lane/1"}}
		}, false},
		"an older protocol, to the listener": {listener, func() *tls.Config {
			c := gullible(secret, dialler)
			c.MinVersion, c.MaxVersion = 0, tls.VersionTLS12
			return c
		}, false},
	} {
		mine, theirs := pair(t)
		end, err := secure(mine, secret, c.role)
		if err != nil {
			t.Fatal(err)
		}
		other := tls.Server(theirs, c.conf())
		if c.role == listener {
			other = tls.Client(theirs, c.conf())
		}
		played := make(chan struct{})
		go func() {
			defer close(played)
			other.Handshake()
			io.Copy(io.Discard, other)
		}()
		err = end.shakeHands(t.Context())
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		end.hangUp()
		<-played
	}
	if bytes.Equal(laneKey(secret, dialler).Public().(ed25519.PublicKey), laneKey(secret, listener).Public().(ed25519.PublicKey)) {
		t.Error("both ends have one key")
	}
}

// TestOnlyWhatIsEncryptedIsTaken, where the receiver's user wants that.
func TestOnlyWhatIsEncryptedIsTaken(t *testing.T) {
	path, content := file(t, extent)
	h := newHosts(t)
	h.demand = true
	sent, received := h.send(h.l.Addr().String(), "auto", transfer.VerifyBLAKE3, path)
	for _, err := range []error{sent, received} {
		if transfer.CodeOf(err) != transfer.CodeUsage || !bytes.Contains([]byte(err.Error()), []byte("use send --encrypt")) {
			t.Errorf("%v, code %d", err, transfer.CodeOf(err))
		}
	}
	h.wantNames()
	h.encrypt = true
	if sent, received := h.send(h.l.Addr().String(), "auto", transfer.VerifyBLAKE3, path); sent != nil || received != nil {
		t.Error(sent, received)
	}
	h.wantLanded(content)
}

// TestEncryptedLanesEnd with their contexts, in the handshake and behind it, whatever the
// other end does not do.
func TestEncryptedLanesEnd(t *testing.T) {
	path, _ := file(t, extent)
	for _, shaken := range []bool{false, true} {
		mine, theirs := pair(t)
		p := params(theirs)
		p.Secret = []byte("secret")
		ctx, cancel := context.WithCancel(t.Context())
		server, err := Transport{}.Answer(ctx, p, opening(), new(wire.LaneAnswer))
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			ended <- server.Serve(ctx, open(t, path))
			server.Close()
		}()
		if shaken {
			end, err := secure(mine, p.Secret, listener)
			if err == nil {
				err = end.shakeHands(ctx)
			}
			if err != nil {
				t.Fatal(err)
			}
		} else {
			mine.Read(make([]byte, 1)) // it has begun
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

func TestPagesAreNotEncrypted(t *testing.T) {
	for _, method := range []string{"mmap", "sendfile", "splice"} {
		p := params(nil)
		p.Secret = []byte("secret")
		if _, err := (Transport{Method: method}).Answer(t.Context(), p, opening(), new(wire.LaneAnswer)); err == nil {
			t.Errorf("%s encrypts", method)
		}
	}
}
