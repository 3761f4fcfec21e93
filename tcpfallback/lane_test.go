package tcpfallback

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

const extent = transfer.DefaultExtentSize

// pair gives both ends of a connection. What takes longer than its deadline hangs.
func pair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dialled.Close()
		accepted.Close()
	})
	dialled.SetDeadline(time.Now().Add(time.Minute))
	return dialled.(*net.TCPConn), accepted.(*net.TCPConn)
}

func params(conn *net.TCPConn) transfer.LaneParams {
	return transfer.LaneParams{ID: 1, Depth: 4, ExtentSize: extent, Conn: func(context.Context, transfer.Control) (*net.TCPConn, error) { return conn, nil }}
}

// opening is a receiver's wish for a lane, of another kernel.
func opening() *wire.OpenLane { return &wire.OpenLane{TCP: new(wire.TCPLane)} }

// file makes a source of random bytes.
func file(t *testing.T, size int) (path string, content []byte) {
	t.Helper()
	content = make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(size)})
	r.Read(content)
	path = filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func open(t *testing.T, path string) *transfer.Source {
	t.Helper()
	s, err := transfer.OpenSource([]string{path}, transfer.SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if _, err := s.Next(); err != nil {
		t.Fatal(err)
	}
	return s
}

// served is a sending end at work, and a receiver that a test plays.
type served struct {
	t     *testing.T
	conn  *net.TCPConn
	ended chan error
}

func startServing(t *testing.T, method string, src *transfer.Source) *served {
	t.Helper()
	mine, theirs := pair(t)
	var answer wire.LaneAnswer
	server, err := Transport{Method: method}.Answer(t.Context(), params(theirs), opening(), &answer)
	if err != nil || answer.Method == "" {
		t.Fatal(answer.Method, err)
	}
	s := &served{t, mine, make(chan error, 1)}
	go func() {
		s.ended <- server.Serve(t.Context(), src)
		server.Close()
	}()
	return s
}

func (s *served) ask(requests ...wire.Request) {
	s.t.Helper()
	for _, r := range requests {
		var head [wire.HeaderSize]byte
		r.Put(head[:])
		if _, err := s.conn.Write(head[:]); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *served) answer() (wire.Answer, []byte) {
	s.t.Helper()
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(s.conn, head[:]); err != nil {
		s.t.Fatal(err)
	}
	a, err := wire.ParseAnswer(head[:])
	if err != nil {
		s.t.Fatal(err)
	}
	p := make([]byte, a.Length)
	if _, err := io.ReadFull(s.conn, p); err != nil {
		s.t.Fatal(err)
	}
	return a, p
}

func eachMethod(t *testing.T, f func(t *testing.T, method string)) {
	for _, m := range Methods {
		t.Run(m, func(t *testing.T) { f(t, m) })
	}
}

func TestServerAnswersInOrder(t *testing.T) {
	eachMethod(t, func(t *testing.T, method string) {
		path, content := file(t, 2*extent+5)
		s := startServing(t, method, open(t, path))
		s.ask(wire.Request{ID: 7, Offset: 2 * extent, Length: 5},
			wire.Request{ID: 9, Length: extent},
			wire.Request{ID: 9, Offset: extent, Length: extent})
		for _, want := range []struct {
			id  uint32
			off int
			n   int
		}{{7, 2 * extent, 5}, {9, 0, extent}, {9, extent, extent}} {
			a, p := s.answer()
			if a.ID != want.id || a.Status != wire.StatusOK || !bytes.Equal(p, content[want.off:want.off+want.n]) {
				t.Errorf("%+v with %d bytes, want %+v", a, len(p), want)
			}
		}
		s.conn.CloseWrite()
		if err := <-s.ended; err != nil {
			t.Errorf("the receiver hung up: %v", err)
		}
	})
}

func TestServerEndsLanesThatAskForNonsense(t *testing.T) {
	eachMethod(t, func(t *testing.T, method string) {
		path, _ := file(t, extent+5)
		for name, bytes := range map[string][]byte{
			"garbage":         bytes.Repeat([]byte("GET / "), 10)[:wire.HeaderSize],
			"another file":    header(wire.Request{File: 1, Length: extent}),
			"beyond the end":  header(wire.Request{Offset: 2 * extent, Length: extent}),
			"over the end":    header(wire.Request{Offset: extent, Length: extent}),
			"between extents": header(wire.Request{Offset: 1, Length: extent}),
			"nothing":         header(wire.Request{}),
			"too much":        header(wire.Request{Length: wire.MaxExtent}),
		} {
			s := startServing(t, method, open(t, path))
			s.conn.Write(bytes)
			if err := <-s.ended; !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("%s: %v", name, err)
			}
			if n, err := s.conn.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: answered with %d bytes", name, n)
			}
		}
		s := startServing(t, method, open(t, path))
		s.conn.Write(header(wire.Request{})[:7])
		s.conn.CloseWrite()
		if err := <-s.ended; err == nil {
			t.Error("half a request is no end")
		}
	})
}

func header(r wire.Request) []byte {
	b := make([]byte, wire.HeaderSize)
	r.Put(b)
	return b
}

// TestTruncatedSource: copy and mmap know before they answer, sendfile only in the
// middle of its answer, which breaks the lane. The next one refuses either way.
func TestTruncatedSource(t *testing.T) {
	eachMethod(t, func(t *testing.T, method string) {
		path, _ := file(t, 2*extent)
		src := open(t, path)
		if f, err := src.File(wire.Request{Length: extent}); f == nil || err != nil {
			t.Fatal(f, err)
		}
		if err := os.Truncate(path, extent/2); err != nil {
			t.Fatal(err)
		}
		s := startServing(t, method, src)
		s.ask(wire.Request{ID: 1, Length: extent})
		if method == "sendfile" {
			if got, err := io.ReadAll(s.conn); err != nil || len(got) != wire.HeaderSize+extent/2 {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if err := <-s.ended; err == nil {
				t.Error("the lane goes on after half an answer")
			}
			s = startServing(t, method, src)
			s.ask(wire.Request{ID: 1, Length: extent})
		}
		for range 2 {
			if a, _ := s.answer(); a.ID != 1 || a.Status != wire.StatusFailed {
				t.Errorf("%+v; want it refused", a)
			}
			s.ask(wire.Request{ID: 1, Offset: extent, Length: extent})
		}
	})
}

// TestSettledFileIsRefused: its descriptor is closed, before a request or when the
// source has just given it out. The lane lives on either way.
func TestSettledFileIsRefused(t *testing.T) {
	eachMethod(t, func(t *testing.T, method string) {
		path, _ := file(t, extent)
		r := wire.Request{ID: 1, Length: extent}
		for name, settle := range map[string]func(*transfer.Source){
			"before": func(src *transfer.Source) { src.Close() },
			"just now": func(src *transfer.Source) {
				f, err := src.File(r)
				if err != nil {
					t.Fatal(err)
				}
				f.Close()
			},
		} {
			src := open(t, path)
			s := startServing(t, method, src)
			settle(src)
			for range 2 {
				s.ask(r)
				if a, _ := s.answer(); a.Status != wire.StatusFailed {
					t.Errorf("%s: %+v; want it refused", name, a)
				}
			}
		}
	})
}

// TestServerEndsWithItsContext while it waits for a request, and while it can't
// write because the receiver does not read.
func TestServerEndsWithItsContext(t *testing.T) {
	eachMethod(t, func(t *testing.T, method string) {
		path, _ := file(t, 1)
		if err := os.Truncate(path, 64*extent); err != nil {
			t.Fatal(err)
		}
		for _, requests := range []int64{0, 64} {
			mine, theirs := pair(t)
			ctx, cancel := context.WithCancel(t.Context())
			server, err := Transport{Method: method}.Answer(ctx, params(theirs), opening(), new(wire.LaneAnswer))
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- server.Serve(ctx, open(t, path)) }()
			for i := range requests {
				mine.Write(header(wire.Request{Offset: i * extent, Length: extent}))
			}
			if requests > 0 {
				mine.Read(make([]byte, 1)) // it is at work
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
}

func TestUnknownMethods(t *testing.T) {
	if _, err := (Transport{Method: "smoke"}).Answer(t.Context(), params(nil), opening(), new(wire.LaneAnswer)); err == nil {
		t.Error("the sender takes any method")
	}
	for _, method := range []string{"", "smoke", "\x1b[2J"} {
		pending, err := Transport{}.Prepare(t.Context(), nil, params(nil), opening())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pending.Connect(t.Context(), &wire.LaneAnswer{Method: method}); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("method %q: %v", method, err)
		}
	}
}
