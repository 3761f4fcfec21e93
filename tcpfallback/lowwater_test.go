package tcpfallback

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// TestLowWater: who expects much is not woken for a little, but for as little as is missing.
func TestLowWater(t *testing.T) {
	conn, peer := pair(t)
	conn.SetDeadline(time.Now().Add(time.Minute)) // for a wake-up that does not come
	l := &lowWater{TCPConn: conn}
	waking := func(want int) {
		t.Helper()
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got int
		cerr := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT) })
		if cerr != nil || err != nil || got != want {
			t.Errorf("wakes for %d bytes, want %d; %v, %v", got, want, cerr, err)
		}
	}
	waking(1)
	for _, c := range []struct{ come, want int }{{bulk - 1, 1}, {bulk, bulk}, {extent, bulk}} {
		if err := l.expect(c.come); err != nil {
			t.Fatal(err)
		}
		waking(c.want)
	}

	waits := make(chan int, 8)
	got := make(chan error, 1)
	b := make([]byte, wire.HeaderSize)
	go func() {
		got <- l.read(len(b), func(fd, done int) (int, error) {
			n, err := unix.Read(fd, b[done:])
			if err == unix.EAGAIN {
				waits <- len(b) - done
			}
			return n, err
		})
	}()
	for range 2 { // it has looked again, with the mark where it shall be
		select {
		case <-waits:
		case err := <-got:
			t.Fatal(err)
		}
	}
	waking(len(b))
	if _, err := peer.Write(make([]byte, len(b))); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// TestMarkStaysDown once it was disabled, though somebody was about to raise it.
func TestMarkStaysDown(t *testing.T) {
	conn, _ := pair(t)
	l := &lowWater{TCPConn: conn}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	l.disable(raw)
	var got int
	cerr := raw.Control(func(fd uintptr) {
		if err = l.raise(int(fd), bulk); err == nil {
			got, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT)
		}
	})
	if cerr != nil || err != nil || got != 1 {
		t.Errorf("wakes for %d bytes; %v, %v", got, cerr, err)
	}
}

// TestRequestsGoByTheQuarter: each write of some wakes the sender.
func TestRequestsGoByTheQuarter(t *testing.T) {
	mine, theirs := pair(t)
	p := params(theirs)
	p.Depth = 8
	pending, err := Transport{}.Prepare(t.Context(), nil, p, opening())
	if err != nil {
		t.Fatal(err)
	}
	puller, err := pending.Connect(t.Context(), &wire.LaneAnswer{Method: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	defer puller.Close()
	f := newFeed(10)
	ended := make(chan error, 1)
	go func() { ended <- puller.Pull(t.Context(), f) }()
	requests := func(want int) (list []wire.Request) {
		t.Helper()
		b := make([]byte, 10*wire.HeaderSize)
		n, err := mine.Read(b)
		if err != nil || n != want*wire.HeaderSize {
			t.Fatalf("%d bytes of requests came together, want %d of them; %v", n, want, err)
		}
		for b = b[:n]; len(b) > 0; b = b[wire.HeaderSize:] {
			r, err := wire.ParseRequest(b[:wire.HeaderSize])
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, r)
		}
		return list
	}
	answer := func(list []wire.Request) {
		for _, r := range list {
			reply(mine, wire.Answer{ID: r.ID, Length: r.Length}, r.Length)
		}
	}
	first := requests(8)
	answer(first[:2])
	rest := append(first[2:], requests(2)...)
	answer(rest)
	if err := <-ended; err != nil || len(f.landed) != 10 {
		t.Errorf("%d landed, %v", len(f.landed), err)
	}
}
