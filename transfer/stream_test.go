package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

// TestHeldExtentStays where it is, though it is forgotten, until its lane is done with it.
func TestHeldExtentStays(t *testing.T) {
	const extent = 16
	content := random(4 * extent)
	s := newStream(io.NopCloser(strings.NewReader(content)), extent)
	read := func() {
		t.Helper()
		buf := s.wait()
		if _, err := io.ReadFull(s.in, buf); err != nil {
			t.Fatal(err)
		}
		s.keep(buf)
	}
	read()
	read()
	held, release := s.hold(0)
	twice, again := s.hold(0)
	if string(held) != content[:extent] || &held[0] != &twice[0] {
		t.Fatalf("%q and %q are held", held, twice)
	}
	if err := s.forget(2); err != nil {
		t.Fatal(err)
	}
	if _, release := s.hold(0); release != nil {
		t.Error("what was forgotten is held again")
	}
	release()
	read()
	read()
	if string(held) != content[:extent] {
		t.Errorf("%q is in place of what is held", held)
	}
	if len(s.free) != 0 {
		t.Errorf("%d buffers are free, one of which is held", len(s.free))
	}
	again()
	if len(s.free) != 1 || &s.free[0][0] != &held[0] {
		t.Errorf("what was held is lost: %d are free", len(s.free))
	}
	p := make([]byte, extent)
	if err := s.readAt(p, 3*extent); err != nil || !bytes.Equal(p, []byte(content[3*extent:])) {
		t.Errorf("%q, %v", p, err)
	}
	if err := s.readAt(p, 0); err != errForgotten {
		t.Errorf("what is gone: %v", err)
	}
	if err := s.forget(4); err != nil || len(s.free) != 3 {
		t.Errorf("%d are free, %v", len(s.free), err)
	}
}

// closer notes that it was closed.
type closer struct {
	io.Reader
	closed bool
}

func (c *closer) Close() error { c.closed = true; return nil }

// TestShortStreamTakesLittle once it was read: thousands of them may wait for their receipts.
func TestShortStreamTakesLittle(t *testing.T) {
	in := &closer{Reader: strings.NewReader("hello")}
	s := newStream(in, mib)
	if err := s.pump(func(int64, bool) error { return nil }); err != nil {
		t.Fatal(err)
	}
	b, release := s.hold(0)
	if string(b) != "hello" || cap(b) > 4*kib || !in.closed {
		t.Errorf("%q, of room for %d; closed: %t", b, cap(b), in.closed)
	}
	release()
	if err := s.forget(1); err != nil || len(s.free) > 0 {
		t.Errorf("%v; %d extents to be used again", err, len(s.free))
	}
}

// TestStandardInputStaysOpen: what is opened next would be this process's standard input, and
// a file with the number 0.
func TestStandardInputStaysOpen(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	old := os.Stdin
	defer func() { os.Stdin = old }()
	os.Stdin = r
	s := newStream(os.Stdin, 16)
	ended := make(chan error)
	go func() { ended <- s.pump(func(int64, bool) error { return nil }) }()
	if _, err := w.Write(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	s.close()
	if err := <-ended; err == nil { // its read hung
		t.Error("it has read to an end that never came")
	}
	if _, err := r.Stat(); err != nil {
		t.Errorf("it is closed: %v", err)
	}
}

// TestBrokenInputIsNoEnd, whatever its reader calls it: half of it would land, verified.
func TestBrokenInputIsNoEnd(t *testing.T) {
	for _, broken := range []error{io.ErrUnexpectedEOF, fmt.Errorf("the store: %w", io.EOF), errors.New("reset")} {
		in, out := io.Pipe()
		go func() {
			io.WriteString(out, "some of it")
			out.CloseWithError(broken)
		}()
		s := newStream(in, 16)
		err := s.pump(func(size int64, end bool) error {
			t.Errorf("%v: told of %d bytes, end: %t", broken, size, end)
			return nil
		})
		if CodeOf(err) != CodeLocalIO || !errors.Is(err, broken) || !strings.Contains(err.Error(), "at 10:") {
			t.Errorf("%v: %v", broken, err)
		}
	}
}

// TestInputEnds with the bytes that come with its end, or with none.
func TestInputEnds(t *testing.T) {
	const extent = 16
	for _, n := range []int{0, 1, extent - 1, extent, extent + 1, 2 * extent} {
		for _, in := range []io.Reader{strings.NewReader(random(n)), iotest.DataErrReader(strings.NewReader(random(n))), iotest.OneByteReader(strings.NewReader(random(n)))} {
			s := newStream(io.NopCloser(in), extent)
			ended := int64(-1)
			err := s.pump(func(size int64, end bool) error {
				if ended >= 0 || !end && size%extent != 0 {
					t.Errorf("%T of %d bytes: told of %d, end: %t", in, n, size, end)
				}
				if end {
					ended = size
				}
				return nil
			})
			if err != nil || ended != int64(n) {
				t.Errorf("%T of %d bytes: %v, and ended at %d", in, n, err, ended)
			}
		}
	}
}
