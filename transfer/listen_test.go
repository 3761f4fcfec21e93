package transfer

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// testListener is a Listener that serves on loopback, and what it refused.
type testListener struct {
	*Listener
	refused chan error
}

func listen(t *testing.T) *testListener {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", Key{1})
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, l)
}

func serve(t *testing.T, l *Listener) *testListener {
	tl := &testListener{l, make(chan error, 1000)}
	l.Refused = func(_ net.Addr, err error) { tl.refused <- err }
	ctx, stop := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() {
		if err := l.Serve(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		served.Wait()
	})
	return tl
}

// dial connects and says something.
func (l *testListener) dial(t *testing.T, words []byte) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write(words); err != nil {
		t.Fatal(err)
	}
	return conn
}

// lane presents a ticket and gives what the listener makes of it.
func (l *testListener) lane(t *testing.T, session [16]byte, lane uint32, secret [32]byte) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return Sockets{}.dialLane(ctx, l.Addr().String(), session, lane, secret, nil)
}

func TestTicketIsForOneLane(t *testing.T) {
	l := listen(t)
	session, secret := [16]byte{1}, [32]byte{2}
	wait, forget := l.expect(session, 7, secret)
	defer forget()
	for name, wrong := range map[string]func() (*net.TCPConn, error){
		"another secret":  func() (*net.TCPConn, error) { return l.lane(t, session, 7, [32]byte{3}) },
		"another session": func() (*net.TCPConn, error) { return l.lane(t, [16]byte{9}, 7, secret) },
		"another lane":    func() (*net.TCPConn, error) { return l.lane(t, session, 8, secret) },
	} {
		if _, err := wrong(); err == nil {
			t.Errorf("%s: accepted", name)
		}
		<-l.refused
	}
	// None of them spent it.
	conn, err := l.lane(t, session, 7, secret)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	theirs, err := wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	conn.Write([]byte("hello"))
	got := make([]byte, 5)
	if _, err := io.ReadFull(theirs, got); err != nil || string(got) != "hello" {
		t.Errorf("the lane carries %q, %v", got, err)
	}
	if _, err := l.lane(t, session, 7, secret); err == nil {
		t.Error("the ticket was good twice")
	}
}

// TestLaneProvesTheListenerToo: whoever answers in its place does not know the
// ticket.
func TestLaneProvesTheListenerToo(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	go func() {
		if conn, err := tcp.Accept(); err == nil {
			var head [wire.PreambleSize]byte
			io.ReadFull(conn, head[:])
			conn.Write(head[24:]) // its own proof
			conn.Close()
		}
	}()
	if _, err := (Sockets{}).dialLane(t.Context(), tcp.Addr().String(), [16]byte{}, 1, [32]byte{}, nil); err == nil {
		t.Error("a listener without the ticket was believed")
	}
}

func TestForgottenTicketLeavesNothing(t *testing.T) {
	l := listen(t)
	wait, forget := l.expect([16]byte{1}, 1, [32]byte{1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := wait(ctx); err == nil {
		t.Error("a connection that nobody made")
	}
	forget()
	if _, err := l.lane(t, [16]byte{1}, 1, [32]byte{1}); err == nil {
		t.Error("a forgotten ticket was good")
	}
	<-l.refused
	// One that was presented and not taken.
	_, forget = l.expect([16]byte{1}, 2, [32]byte{1})
	conn, err := l.lane(t, [16]byte{1}, 2, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	forget()
	<-l.refused
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("its connection is still open")
	}
	if n := len(l.tickets); n != 0 {
		t.Errorf("%d tickets are left", n)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	l := listen(t)
	for _, words := range []string{"GET / HTTP/1.1\r\n\r\n", "\x00\x00\x00\x00\x00", "SSH-2.0-x\r\n", "RXL2" + string(make([]byte, 72)), "\x16\x03\x01\x00\x05hello"} {
		conn := l.dial(t, []byte(words))
		<-l.refused
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: still connected", words)
		}
	}
}

// TestSilentStrangersKeepNobodyOut fills every place, and more, with connections
// that say nothing or half of something.
func TestSilentStrangersKeepNobodyOut(t *testing.T) {
	l := listen(t)
	for i := range maxStrangers + 10 {
		l.dial(t, [][]byte{nil, []byte("RXL1"), {0x16, 3, 1}}[i%3])
	}
	go func() {
		if s, err := l.Accept(t.Context()); err == nil {
			s.Close()
		}
	}()
	s, err := Sockets{}.dialSession(t.Context(), l.Addr().String(), Key{1})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	for range 10 { // the oldest made room
		wantCode(t, <-l.refused, CodeOther, "too many connections")
	}
}

// TestBothEndsOfASessionCountSegments: by them an end knows that the other is there, whose
// words are under way.
func TestBothEndsOfASessionCountSegments(t *testing.T) {
	l := listen(t)
	dialled, err := Sockets{}.dialSession(t.Context(), l.Addr().String(), Key{1})
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Close()
	accepted, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if d, a := segments(dialled.conn), segments(accepted.conn); d == 0 || a == 0 {
		t.Errorf("%d segments heard where it was dialled, %d where it was accepted", d, a)
	}
}

// TestLaneThatMadeRoomIsNotWaitedFor: it has proved its ticket, and was the oldest stranger.
func TestLaneThatMadeRoomIsNotWaitedFor(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0", Key{1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, forget := l.expect([16]byte{1}, 1, [32]byte{1})
	defer forget()
	waiting := l.tickets[ticketName{[16]byte{1}, 1}]
	tl := &testListener{l, make(chan error, 1)}
	l.Refused = func(_ net.Addr, err error) { tl.refused <- err }
	dialled := make(chan struct{})
	go func() {
		defer close(dialled)
		if conn, err := tl.lane(t, [16]byte{1}, 1, [32]byte{1}); err == nil {
			conn.Close()
		}
	}()
	conn, err := l.tcp.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l.welcome(t.Context(), conn.(*net.TCPConn)) // it has no place among the strangers any more
	<-dialled
	wantCode(t, <-tl.refused, CodeOther, "too many connections")
	select {
	case _, ok := <-waiting.conn:
		if ok {
			t.Error("a connection that is closed")
		}
	default:
		t.Error("whoever waits for it has not heard")
	}
}

// TestWaitingSessionsAreNoStrangers: sessions that wait for their turn must not
// keep out the lanes of those that run.
func TestWaitingSessionsAreNoStrangers(t *testing.T) {
	l := listen(t)
	for range maxStrangers + 5 {
		s, err := Sockets{}.dialSession(t.Context(), l.Addr().String(), Key{1})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	wait, forget := l.expect([16]byte{1}, 1, [32]byte{1})
	defer forget()
	conn, err := l.lane(t, [16]byte{1}, 1, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	theirs, err := wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	// All of them are still there: none had to make room.
	for range maxStrangers + 5 {
		s, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	select {
	case err := <-l.refused:
		t.Errorf("refused: %v", err)
	default:
	}
}

// fullListener can't accept for a while.
type fullListener struct {
	net.Listener
	errs []error
}

func (l *fullListener) Accept() (net.Conn, error) {
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
	}
	return l.Listener.Accept()
}

// TestNobodyToTell: who is told of strangers hangs, as a stopped terminal does. They pile up
// nowhere, and how many they were is said later.
func TestNobodyToTell(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0", Key{1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	said := make(chan error)
	l.Refused = func(_ net.Addr, err error) { said <- err }
	var held sync.WaitGroup
	for range maxTold {
		held.Go(func() { l.tell(l.Addr(), io.EOF) })
	}
	for len(l.told) < maxTold {
		runtime.Gosched()
	}
	for range 100 {
		l.tell(l.Addr(), io.EOF) // comes back
	}
	for range maxTold {
		if err := <-said; err != io.EOF {
			t.Error(err)
		}
	}
	held.Wait()
	held.Go(func() { l.tell(l.Addr(), io.EOF) })
	wantCode(t, <-said, CodeOther, "and 100 more connections")
	held.Wait()
}

func TestListenerOutlivesAFullTableOfFiles(t *testing.T) {
	inner, err := Listen(t.Context(), "127.0.0.1:0", Key{1})
	if err != nil {
		t.Fatal(err)
	}
	inner.tcp = &fullListener{inner.tcp, []error{syscall.EMFILE, syscall.ENFILE}}
	l := serve(t, inner)
	l.dial(t, []byte("who is there?"))
	<-l.refused

	broken := &Listener{tcp: &fullListener{inner.tcp, []error{syscall.EBADF}}}
	wantCode(t, broken.Serve(t.Context()), CodeConnect, "accepting")
}

// TestListenerEndsItsStrangers counts goroutines: a silent stranger's must not
// outlive the listener by the time that it may take.
func TestListenerEndsItsStrangers(t *testing.T) {
	before := runtime.NumGoroutine()
	l, err := Listen(t.Context(), "127.0.0.1:0", Key{1})
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 3)
	l.Refused = func(_ net.Addr, err error) { refused <- err }
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- l.Serve(ctx) }()
	tl := &testListener{l, refused}
	tl.dial(t, nil)
	tl.dial(t, []byte("RXL1"))
	session, err := Sockets{}.dialSession(t.Context(), l.Addr().String(), Key{1})
	if err != nil {
		t.Fatal(err)
	}
	stop()
	<-served
	for range 3 {
		<-refused
	}
	if _, err := session.Receive(); err == nil {
		t.Error("a session that nobody took is still open")
	}
	session.Close()
	settle(t, before)
}

// settle waits until no more goroutines run than before.
func settle(t *testing.T, before int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}
