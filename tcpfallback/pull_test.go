package tcpfallback

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// feed is a list of extents, and what became of them.
type feed struct {
	todo    []transfer.Extent
	landed  map[transfer.Extent][]byte
	refused []transfer.Extent
	full    error // what Land answers
}

func newFeed(n int) *feed {
	f := &feed{landed: make(map[transfer.Extent][]byte)}
	for i := range n {
		f.todo = append(f.todo, transfer.Extent{File: 3, Off: int64(i) * extent, Len: 8 + i})
	}
	return f
}

func (f *feed) TryNext() (e transfer.Extent, ok bool) {
	if len(f.todo) == 0 {
		return e, false
	}
	e, f.todo = f.todo[0], f.todo[1:]
	return e, true
}

func (f *feed) Next(context.Context) (transfer.Extent, error) {
	if e, ok := f.TryNext(); ok {
		return e, nil
	}
	return transfer.Extent{}, io.EOF
}

func (f *feed) Land(e transfer.Extent, p []byte) error {
	f.landed[e] = bytes.Clone(p)
	return f.full
}

func (f *feed) Refuse(e transfer.Extent) { f.refused = append(f.refused, e) }

// pulled runs the receiving end against a sender that a test plays.
func pulled(t *testing.T, ctx context.Context, f *feed, sender func(conn *net.TCPConn)) error {
	t.Helper()
	return pulledInto(t, ctx, "", f, sender)
}

// takeRequest reads one.
func takeRequest(conn *net.TCPConn) (wire.Request, error) {
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return wire.Request{}, err
	}
	return wire.ParseRequest(head[:])
}

// reply writes an answer and n bytes.
func reply(conn *net.TCPConn, a wire.Answer, n uint32) {
	b := make([]byte, wire.HeaderSize, wire.HeaderSize+int(n))
	a.Put(b)
	conn.Write(append(b, bytes.Repeat([]byte{byte(a.ID)}, int(n))...))
}

func TestPullerLandsWhatItAskedFor(t *testing.T) {
	f := newFeed(10)
	all := append([]transfer.Extent{}, f.todo...)
	most := 0
	err := pulled(t, t.Context(), f, func(conn *net.TCPConn) {
		var waiting []wire.Request
		for answered := 0; answered < len(all); {
			// Take as many requests as will come before an answer does.
			for len(waiting) < min(params(nil).Depth, len(all)-answered) {
				r, err := takeRequest(conn)
				if err != nil {
					t.Error(err)
					return
				}
				waiting = append(waiting, r)
			}
			most = max(most, len(waiting))
			r := waiting[0]
			waiting = waiting[1:]
			if answered++; r.Offset == 2*extent {
				reply(conn, wire.Answer{ID: r.ID, Status: wire.StatusFailed}, 0)
				continue
			}
			reply(conn, wire.Answer{ID: r.ID, Length: r.Length}, r.Length)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if most != params(nil).Depth {
		t.Errorf("%d requests in flight, want %d", most, params(nil).Depth)
	}
	for i, e := range all {
		if i == 2 {
			continue
		}
		if got := f.landed[e]; len(got) != e.Len || got[0] != byte(i) {
			t.Errorf("%v landed as %v", e, got)
		}
	}
	if len(f.refused) != 1 || f.refused[0] != all[2] || len(f.landed) != len(all)-1 {
		t.Errorf("refused: %v", f.refused)
	}
}

// TestPullerEndsLanesThatAnswerNonsense, and lands none of it.
func TestPullerEndsLanesThatAnswerNonsense(t *testing.T) {
	for name, nonsense := range map[string]func(conn *net.TCPConn, r wire.Request){
		"a later request's number":    func(c *net.TCPConn, r wire.Request) { reply(c, wire.Answer{ID: r.ID + 1, Length: r.Length}, r.Length) },
		"an earlier request's number": func(c *net.TCPConn, r wire.Request) { reply(c, wire.Answer{ID: r.ID - 1, Length: r.Length}, r.Length) },
		"a byte too few": func(c *net.TCPConn, r wire.Request) {
			reply(c, wire.Answer{ID: r.ID, Length: r.Length - 1}, r.Length-1)
		},
		"a byte too many": func(c *net.TCPConn, r wire.Request) {
			reply(c, wire.Answer{ID: r.ID, Length: r.Length + 1}, r.Length+1)
		},
		"nothing":           func(c *net.TCPConn, r wire.Request) { reply(c, wire.Answer{ID: r.ID}, 0) },
		"more than a slot":  func(c *net.TCPConn, r wire.Request) { reply(c, wire.Answer{ID: r.ID, Length: wire.MaxExtent}, 100) },
		"an unknown status": func(c *net.TCPConn, r wire.Request) { reply(c, wire.Answer{ID: r.ID, Status: 77}, 0) },
		"a failure of another": func(c *net.TCPConn, r wire.Request) {
			reply(c, wire.Answer{ID: r.ID + 1, Status: wire.StatusFailed}, 0)
		},
		"a failure with bytes": func(c *net.TCPConn, r wire.Request) {
			reply(c, wire.Answer{ID: r.ID, Status: wire.StatusFailed, Length: 5}, 5)
		},
		"a request":      func(c *net.TCPConn, r wire.Request) { c.Write(header(r)) },
		"garbage":        func(c *net.TCPConn, r wire.Request) { c.Write(bytes.Repeat([]byte("x"), 100)) },
		"half an answer": func(c *net.TCPConn, r wire.Request) { reply(c, wire.Answer{ID: r.ID, Length: r.Length}, r.Length/2) },
		"half a header":  func(c *net.TCPConn, r wire.Request) { c.Write(make([]byte, 10)) },
		"an end":         func(c *net.TCPConn, r wire.Request) {},
	} {
		f := newFeed(2)
		err := pulled(t, t.Context(), f, func(conn *net.TCPConn) {
			r, err := takeRequest(conn)
			if err != nil {
				t.Error(name, err)
				return
			}
			takeRequest(conn) // unread input would make the end a reset
			nonsense(conn, r)
		})
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
		if len(f.landed)+len(f.refused) > 0 {
			t.Errorf("%s: landed %v, refused %v", name, f.landed, f.refused)
		}
	}
}

func TestPullerEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := pulled(t, ctx, newFeed(1), func(conn *net.TCPConn) {
		takeRequest(conn)
		cancel()
		io.Copy(io.Discard, conn) // until the puller has hung up
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestPullerEndsWhenItCantLand(t *testing.T) {
	f := newFeed(3)
	f.full = errors.New("the session is gone")
	err := pulled(t, t.Context(), f, func(conn *net.TCPConn) {
		r, _ := takeRequest(conn)
		reply(conn, wire.Answer{ID: r.ID, Length: r.Length}, r.Length)
		io.Copy(io.Discard, conn)
	})
	if !errors.Is(err, f.full) || len(f.landed) != 1 {
		t.Error(err, f.landed)
	}
}

// TestArrivedCountsWhatHasCome, before an extent is whole, encrypted or not.
func TestArrivedCountsWhatHasCome(t *testing.T) {
	mine, theirs := pair(t)
	p := &puller{conn: mine}
	if n := p.Arrived(); n != 0 {
		t.Errorf("%d bytes before any", n)
	}
	for i := range 3 {
		if _, err := theirs.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(mine, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		for _, conn := range []net.Conn{mine, &secured{raw: mine}} {
			if n := (&puller{conn: conn}).Arrived(); n != uint64(1000*(i+1)) {
				t.Errorf("%d bytes, want %d", n, 1000*(i+1))
			}
		}
	}
	mine.Close()
	p.Arrived() // is harmless
}

// TestLowWaterGoesWhenNothingComes: some kernels wake nobody once the buffer is full of less.
func TestLowWaterGoesWhenNothingComes(t *testing.T) {
	mine, theirs := pair(t)
	p := &puller{conn: mine, low: lowWater{TCPConn: mine}}
	lowat := func() (n int) {
		raw, err := mine.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { n, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT) })
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, err := theirs.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(mine, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := p.low.expect(1 << 20); err != nil || lowat() != bulk {
		t.Fatalf("%d bytes, %v", lowat(), err)
	}
	if p.Arrived(); lowat() != bulk {
		t.Errorf("%d bytes after something came", lowat())
	}
	if p.Arrived(); lowat() != bulk {
		t.Errorf("%d bytes when nothing has come for a moment", lowat())
	}
	if p.Arrived(); lowat() != 1 {
		t.Errorf("%d bytes when nothing has come", lowat())
	}
	waited := false
	err := p.low.read(100, func(fd, _ int) (int, error) { // less than was waited for
		if !waited {
			waited = true
			if _, err := theirs.Write(make([]byte, 100)); err != nil {
				return 0, err
			}
			return 0, unix.EAGAIN
		}
		return unix.Read(fd, make([]byte, 100))
	})
	if err != nil || lowat() != 1 {
		t.Errorf("%d bytes behind a wait, %v", lowat(), err)
	}
	p.low.least = 0
	if err := p.low.expect(1 << 20); err != nil || lowat() != 1 {
		t.Errorf("%d bytes again, %v", lowat(), err)
	}
}
