package tcpfallback

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// narrow serves by splice, through a pipe that an extent does not fit into, nor into the sockets.
func narrow(t *testing.T, src *transfer.Source) *served {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	if size, err := unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, 16<<10); err != nil || size >= extent {
		t.Fatal(size, err)
	}
	mine, theirs := pair(t)
	if err := errors.Join(mine.SetReadBuffer(64<<10), theirs.SetWriteBuffer(64<<10)); err != nil {
		t.Fatal(err)
	}
	c := newCopyOut("none", extent)
	s := &served{t, mine, make(chan error, 1)}
	server := &server{conn: theirs, method: &spliceOut{copyOut: c, pipe: &pipe{out: p[0], in: p[1]}}}
	go func() {
		s.ended <- server.Serve(t.Context(), src)
		server.Close()
	}()
	return s
}

// TestNarrowPipe: where no larger one is to be had, an extent goes through it in parts.
func TestNarrowPipe(t *testing.T) {
	path, content := file(t, 2*extent+5)
	s := narrow(t, open(t, path))
	s.ask(wire.Request{ID: 1, Offset: extent, Length: extent}, wire.Request{ID: 2, Offset: 2 * extent, Length: 5}, wire.Request{ID: 3, Length: extent})
	for _, want := range [][]byte{content[extent : 2*extent], content[2*extent:], content[:extent]} {
		if a, p := s.answer(); a.Status != wire.StatusOK || !bytes.Equal(p, want) {
			t.Errorf("%+v: %d bytes, want %d, or others", a, len(p), len(want))
		}
	}
}

// TestTruncatedInTheMiddle breaks the lane where a part was sent: the receiver waits for
// what there is not.
func TestTruncatedInTheMiddle(t *testing.T) {
	path, _ := file(t, extent)
	src := open(t, path)
	if f, err := src.File(wire.Request{Length: extent}); f == nil || err != nil {
		t.Fatal(f, err)
	}
	if err := os.Truncate(path, extent/2); err != nil {
		t.Fatal(err)
	}
	s := narrow(t, src)
	s.ask(wire.Request{ID: 1, Length: extent})
	if got, err := io.ReadAll(s.conn); err != nil || len(got) != wire.HeaderSize+extent/2 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := <-s.ended; err == nil {
		t.Error("the lane goes on after half an answer")
	}
}

// TestNothingIsLeftInThePipe of a file that had become shorter: the next extent is whole.
func TestNothingIsLeftInThePipe(t *testing.T) {
	short, _ := file(t, extent)
	other, content := file(t, extent+1)
	long := filepath.Join(t.TempDir(), "long")
	if err := os.Rename(other, long); err != nil {
		t.Fatal(err)
	}
	src, err := transfer.OpenSource([]string{short, long}, transfer.SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(src.Close)
	for range 2 {
		if _, err := src.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := src.File(wire.Request{Length: extent}); f == nil || err != nil {
		t.Fatal(f, err)
	}
	if err := os.Truncate(short, 1000); err != nil {
		t.Fatal(err)
	}
	s := startServing(t, "splice", src)
	s.ask(wire.Request{ID: 1, Length: extent}, wire.Request{ID: 2, File: 1, Length: extent})
	if a, _ := s.answer(); a.Status != wire.StatusFailed {
		t.Errorf("%+v; want it refused", a)
	}
	if a, p := s.answer(); a.Status != wire.StatusOK || !bytes.Equal(p, content[:extent]) {
		t.Errorf("%+v: %d bytes, or others", a, len(p))
	}
}
