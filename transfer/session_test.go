package transfer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// secure puts TLS on both ends of a pipe, without a handshake yet. In a bubble of
// synctest its deadlines are those of the bubble's clock.
func secure(t *testing.T) (dialler, listener *tls.Conn) {
	t.Helper()
	a, b := net.Pipe()
	return tls.Client(a, config(t)), tls.Server(b, config(t))
}

func config(t *testing.T) *tls.Config {
	t.Helper()
	conf, err := tlsConfig()
	if err != nil {
		t.Fatal(err)
	}
	return conf
}

// prove runs both ends' handshakes side by side.
func prove(dialler, listener *tls.Conn, dialKey, listenKey Key) (dialErr, listenErr error) {
	ended := make(chan error)
	go func() {
		err := proveListener(context.Background(), listener, listenKey)
		if err != nil {
			listener.Close()
		}
		ended <- err
	}()
	dialErr = proveDialler(context.Background(), dialler, dialKey)
	if dialErr != nil {
		dialler.Close()
	}
	return dialErr, <-ended
}

// sessions gives both ends of a session: the sender's and the receiver's.
func sessions(t *testing.T) (send, recv *Session) {
	t.Helper()
	d, l := proven(t)
	return newSession(d, "recv"), newSession(l, "send")
}

func proven(t *testing.T) (dialler, listener *tls.Conn) {
	t.Helper()
	d, l := secure(t)
	if derr, lerr := prove(d, l, Key{1}, Key{1}); derr != nil || lerr != nil {
		t.Fatal(derr, lerr)
	}
	return d, l
}

func wantCode(t *testing.T, err error, code Code, words ...string) {
	t.Helper()
	if CodeOf(err) != code {
		t.Errorf("%v: code %d, want %d", err, CodeOf(err), code)
	}
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%v does not say %q", err, w)
		}
	}
}

func TestWrongKeyIsFoundAtBothEnds(t *testing.T) {
	d, l := secure(t)
	derr, lerr := prove(d, l, Key{1}, Key{2})
	wantCode(t, derr, CodeAuth, "keys differ")
	wantCode(t, lerr, CodeAuth, "keys differ")
}

// TestManInTheMiddle puts somebody between two hosts that share a key, who has a
// TLS session with either and passes everything on.
func TestManInTheMiddle(t *testing.T) {
	d, middleListener := secure(t)
	middleDialler, l := secure(t)
	go func() {
		io.Copy(middleDialler, middleListener)
		middleDialler.Close()
	}()
	go func() {
		io.Copy(middleListener, middleDialler)
		middleListener.Close()
	}()
	derr, lerr := prove(d, l, Key{1}, Key{1})
	wantCode(t, derr, CodeAuth, "keys differ")
	wantCode(t, lerr, CodeAuth, "keys differ")
}

// TestProofIsOfOneRole plays the dialler's own proof back to it.
func TestProofIsOfOneRole(t *testing.T) {
	d, l := secure(t)
	go func() {
		io.CopyN(l, l, 32)
		io.Copy(io.Discard, l)
	}()
	err := proveDialler(t.Context(), d, Key{1})
	wantCode(t, err, CodeAuth, "claims to know another")
	d.Close()
}

func TestProofIsOfOneSession(t *testing.T) {
	d1, _ := proven(t)
	d2, _ := proven(t)
	one, err1 := proof(d1, Key{1}, "send")
	two, err2 := proof(d2, Key{1}, "send")
	if err1 != nil || err2 != nil || bytes.Equal(one, two) {
		t.Errorf("two sessions have the same proof (%v, %v)", err1, err2)
	}
}

// TestOlderTLSIsRefused: what the proofs are bound to is TLS 1.3's.
func TestOlderTLSIsRefused(t *testing.T) {
	a, b := net.Pipe()
	old := config(t)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	d, l := tls.Client(a, old), tls.Server(b, config(t))
	derr, lerr := prove(d, l, Key{1}, Key{1})
	if derr == nil || lerr == nil {
		t.Errorf("TLS 1.2: %v, %v", derr, lerr)
	}
}

func TestIdleSessionLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := sessions(t)
		heard := make(chan error, 2)
		for _, s := range []*Session{a, b} {
			go func() {
				_, err := s.Receive()
				heard <- err
			}()
		}
		select {
		case err := <-heard:
			t.Error(err)
		case <-time.After(time.Hour):
		}
		a.Close()
		b.Close()
		<-heard
		<-heard
	})
}

// TestSilentPeerIsDead: it holds the connection, and reads, and says nothing.
func TestSilentPeerIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, l := proven(t)
		go io.Copy(io.Discard, d)
		s := newSession(l, "send")
		began := time.Now()
		_, err := s.Receive()
		wantCode(t, err, CodeConnect, "silent")
		if took := time.Since(began); took != silence { // by the bubble's clock
			t.Errorf("noticed after %v, want %v", took, silence)
		}
		s.Close()
		d.NetConn().Close()
	})
}

// TestWhatTheKernelHearsIsNoSilence, though it can't hand it on: a packet before it was lost.
func TestWhatTheKernelHearsIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		came := uint32(0)
		r := &aliveReader{conn: a, enough: new(atomic.Bool), heard: func() uint32 {
			if came < 3 {
				came++
			}
			return came
		}}
		began := time.Now()
		_, err := r.Read(make([]byte, 1))
		if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took != 5*silence/2 { // the last was between the second look and the third
			t.Errorf("%v after %v, want %v", err, took, 5*silence/2)
		}
	})
}

// TestWriteWaitsForWhoIsHeardOf, though nobody at this end reads: it is the reader who writes.
func TestWriteWaitsForWhoIsHeardOf(t *testing.T) {
	for name, c := range map[string]struct {
		heard time.Duration // how long
		reads time.Duration // when the peer reads at last
		lost  time.Duration // the latest that this is noticed; 0: the message arrives
	}{
		"slow": {time.Hour, time.Minute, 0},
		"dead": {time.Minute, time.Hour, time.Minute + silence*5/4},
	} {
		synctest.Test(t, func(t *testing.T) {
			d, l := proven(t)
			s := silentSession(l, "send")
			began := time.Now()
			s.patience.heard = func() uint32 { return uint32(min(time.Since(began), c.heard) / time.Second) }
			time.AfterFunc(c.reads, func() { io.Copy(io.Discard, d) })
			err := s.Send(&wire.LaneDown{Reason: "a word"})
			switch took := time.Since(began); {
			case c.lost == 0 && (err != nil || took < c.reads):
				t.Errorf("%s: %v after %v", name, err, took)
			case c.lost > 0 && (err == nil || took < c.heard || took > c.lost): // by the bubble's clock
				t.Errorf("%s: %v after %v, want an error by %v", name, err, took, c.lost)
			}
			s.Close()
			d.NetConn().Close()
		})
	}
}

// TestSegmentsAreCounted where there is TCP.
func TestSegmentsAreCounted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	theirs, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	mine, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	conn := tls.Server(mine, nil)
	for n := range uint32(3) {
		if got := segments(conn); got != n {
			t.Errorf("%d segments, want %d", got, n)
		}
		if _, err := theirs.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(mine, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPeerThatIsSlowToReadLives, as long as it pings, and until this end has had enough of it.
func TestPeerThatIsSlowToReadLives(t *testing.T) {
	for name, c := range map[string]struct {
		reads time.Duration // when it reads at last
		pings time.Duration // how long
		stop  time.Duration // when this end is stopped
		lost  time.Duration // when that is noticed; 0: the message arrives
	}{
		"slow":    {time.Minute, time.Hour, time.Hour, 0},
		"dead":    {time.Hour, 20 * beat, time.Hour, 20*beat + silence},
		"stopped": {time.Hour, time.Hour, 20*beat + 1, 20*beat + 1 + silence},
	} {
		synctest.Test(t, func(t *testing.T) {
			d, l := proven(t)
			s := silentSession(l, "send") // time stands still in the bubble while a ping waits for its turn
			ctx, cancel := context.WithCancel(t.Context())
			context.AfterFunc(ctx, s.hurry)
			time.AfterFunc(c.stop, cancel)
			defer cancel()
			began := time.Now()
			ended, gone := s.attend(func() error {
				_, err := s.Receive()
				return err
			})
			var pinging sync.WaitGroup
			pinging.Go(func() {
				ping, _ := wire.Append(nil, new(wire.Ping))
				for time.Since(began) < c.pings {
					time.Sleep(beat)
					if _, err := d.Write(ping); err != nil {
						return
					}
				}
			})
			time.AfterFunc(c.reads, func() { io.Copy(io.Discard, d) })
			err := s.Send(&wire.LaneDown{Reason: "a word"})
			switch took := time.Since(began); {
			case c.lost == 0 && err != nil:
				t.Errorf("%s: %v after %v", name, err, took)
			case c.lost > 0 && (err == nil || took != c.lost): // by the bubble's clock
				t.Errorf("%s: %v after %v, want an error after %v", name, err, took, c.lost)
			}
			s.Close()
			d.NetConn().Close()
			<-ended
			<-gone
			pinging.Wait()
		})
	}
}

func TestPeerThatHangsUpIsGone(t *testing.T) {
	a, b := sessions(t)
	go a.Close()
	_, err := b.Receive()
	wantCode(t, err, CodeConnect, "is gone")
	b.Close()
}

func TestMalformedMessageNamesThePeer(t *testing.T) {
	d, l := proven(t)
	s := newSession(l, "10.0.0.1:5")
	go func() {
		d.Write([]byte{0, 0, 0, 1, 99})
		io.Copy(io.Discard, d)
	}()
	_, err := s.Receive()
	wantCode(t, err, CodeOther, "10.0.0.1:5", "unknown kind 99")
	s.Close()
}

// TestAbortArrives aborts while the peer is still talking: what it says must be
// read on, and the connection held, until it has heard why. Closing at once would
// reset the connection, and take the reason with it.
func TestAbortArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := sessions(t)
		cause := errorf(CodeLocalIO, "the disk is full")
		var hungUp time.Time
		go func() {
			for range 100 {
				if err := a.Send(&wire.LaneDown{Reason: "and another thing"}); err != nil {
					t.Error(err)
				}
			}
			m, err := a.Receive()
			if abort, ok := m.(*wire.Abort); !ok || abort.Reason != cause.Error() || abort.Code != uint8(CodeLocalIO) {
				t.Errorf("%v, %v; want the reason", m, err)
			}
			if m, err := a.Receive(); err == nil {
				t.Errorf("%T after the last message", m)
			}
			time.Sleep(lingerTime / 2)
			hungUp = time.Now()
			a.Close()
		}()
		ended, gone := b.attend(func() error { return cause })
		b.abort(<-ended, gone)
		if !time.Now().Equal(hungUp) {
			t.Errorf("closed at %v, and the peer hung up at %v", time.Now(), hungUp)
		}
		<-gone
	})
}

// TestAbortDoesNotWaitForTheDead: the peer keeps the connection, or never reads on.
func TestAbortDoesNotWaitForTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, l := proven(t)
		go io.Copy(io.Discard, d.NetConn())
		s := newSession(l, "send")
		began := time.Now()
		ended, gone := s.attend(func() error {
			_, err := s.Receive()
			return err
		})
		s.abort(<-ended, gone)
		<-gone
		if took := time.Since(began); took != silence {
			t.Errorf("%v for a peer that is dead", took)
		}
		d.NetConn().Close()
	})
}

// TestPeerThatGaveUpIsNotTold that this end gives up too.
func TestPeerThatGaveUpIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := sessions(t)
		h := newHostile(t, a)
		go h.say(&wire.Abort{Code: 1, Reason: "enough"})
		ended, gone := b.attend(func() error {
			m, err := b.Receive()
			if err != nil {
				return err
			}
			return b.fromPeer(m.(*wire.Abort))
		})
		b.abort(<-ended, gone)
		for m := range h.heard {
			t.Errorf("it was told %+v", m)
		}
		a.Close()
		<-gone
	})
}

// TestFailureOfThePeerIsOne: whatever code it names, it does not end with 0, and
// not with one that is this host's own.
func TestFailureOfThePeerIsOne(t *testing.T) {
	for code, want := range map[uint8]Code{0: CodeOther, 1: CodeOther, 7: CodeLocalIO, 9: CodeNoRDMA, 10: CodeOther, 130: CodeOther, 255: CodeOther} {
		s := &Session{peer: "p"}
		if got := CodeOf(s.fromPeer(&wire.Abort{Code: code, Reason: "r"})); got != want {
			t.Errorf("code %d became %d, want %d", code, got, want)
		}
	}
}

func TestAbortShowsThePeersWordsEscaped(t *testing.T) {
	s := &Session{peer: "p"}
	if err := s.fromPeer(&wire.Abort{Code: 1, Reason: "\x1b[2J\u202e"}); strings.ContainsAny(err.Error(), "\x1b\u202e") {
		t.Errorf("%q", err)
	}
}

// TestSilentListenerEndsWithTheCaller: whoever answers the port and says nothing
// holds nobody longer than that wants to wait.
func TestSilentListenerEndsWithTheCaller(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	stop := errors.New("stopped")
	for name, dial := range map[string]func(context.Context) error{
		"session": func(ctx context.Context) error {
			_, err := Sockets{}.dialSession(ctx, tcp.Addr().String(), Key{1})
			return err
		},
		"lane": func(ctx context.Context) error {
			_, err := Sockets{}.dialLane(ctx, tcp.Addr().String(), [16]byte{}, 1, [32]byte{}, nil)
			return err
		},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- dial(ctx) }()
		conn, err := tcp.Accept()
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(conn, make([]byte, 4)) // the dialler is in the middle of it
		cancel(stop)
		if err := <-ended; err == nil {
			t.Errorf("%s: no error", name)
		}
		conn.Close()
	}
}
