package tcpfallback

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/tcpfallback/compress"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// TestWindowOfAShorterFile: what is not there any more is found out before anybody
// touches it, in a window that was mapped when it was there too.
func TestWindowOfAShorterFile(t *testing.T) {
	path, want := file(t, 2*extent)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var w window
	defer w.unmap()
	if got, err := w.of(f, extent, extent); err != nil || !bytes.Equal(got, want[extent:]) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if got, err := w.of(f, 0, extent); err != nil || !bytes.Equal(got, want[:extent]) {
		t.Fatalf("before what is mapped: %d bytes, %v", len(got), err)
	}
	if err := os.Truncate(path, extent+extent/2); err != nil {
		t.Fatal(err)
	}
	if got, err := w.of(f, 0, extent); err != nil || !bytes.Equal(got, want[:extent]) {
		t.Errorf("what is left: %d bytes, %v", len(got), err)
	}
	if _, err := w.of(f, extent, extent); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half of it is gone: %v", err)
	}
	f.Close()
	if _, err := w.of(f, 0, extent); !errors.Is(err, errSettled) {
		t.Errorf("closed: %v", err)
	}
}

// TestHolesStayHoles: a file of memory alone has as much of it as before when it was sent.
func TestHolesStayHoles(t *testing.T) {
	f := memory(t, 2*extent)
	var w window
	defer w.unmap()
	if _, err := w.of(f, 0, extent); !errors.Is(err, errHoles) {
		t.Errorf("a hole is mapped: %v", err)
	}
	if _, err := f.WriteAt(make([]byte, 2*extent), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.of(f, 0, extent); err != nil {
		t.Errorf("what has no holes is not: %v", err)
	}
}

// TestWindowMovesOn: it holds one stretch of one file at a time, whatever is asked for.
func TestWindowMovesOn(t *testing.T) {
	path, want := file(t, windowSize+3*extent+5)
	other, wanted := file(t, 2*extent)
	var files [2]*os.File
	for i, p := range []string{path, other} {
		f, err := os.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	var w window
	for _, c := range []struct {
		file   int
		off, n int
	}{{0, 0, extent}, {0, extent, extent}, {0, windowSize - 7, extent}, {0, windowSize + 3*extent, 5}, {1, extent, extent}, {0, extent, extent}, {1, 3, 100}} {
		whole := [][]byte{want, wanted}[c.file]
		got, err := w.of(files[c.file], int64(c.off), c.n)
		if err != nil || !bytes.Equal(got, whole[c.off:][:c.n]) {
			t.Fatalf("%+v: %d bytes, %v", c, len(got), err)
		}
		if len(w.pages) > windowSize {
			t.Errorf("%+v: %d bytes are mapped", c, len(w.pages))
		}
	}
	if w.unmap(); mapped(t, path)+mapped(t, other) != 0 {
		t.Error("something is mapped still")
	}
}

// mapped counts a file's mappings in this process.
func mapped(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), path+"\n")
}

// TestWriteFromAShorterFile: truncated between the check and the write it is an
// error of the write, and no signal.
func TestWriteFromAShorterFile(t *testing.T) {
	path, _ := file(t, extent)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var w window
	defer w.unmap()
	pages, err := w.of(f, 0, extent)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, extent/2); err != nil {
		t.Fatal(err)
	}
	mine, theirs := pair(t)
	read := make(chan int64, 1)
	go func() {
		n, _ := io.Copy(io.Discard, mine)
		read <- n
	}()
	m := newCopyOut(compress.None, extent)
	err = m.write(theirs, wire.Request{ID: 1, Length: extent}, wire.StatusOK, pages)
	theirs.Close()
	if n := <-read; !errors.Is(err, unix.EFAULT) || n > wire.HeaderSize+extent/2 {
		t.Errorf("%v after %d bytes; want EFAULT within the half that is there", err, n)
	}
}

// TestTruncatedUnderway: whatever the lane is doing when the file gets shorter, it
// sends what was there, and then refuses or ends.
func TestTruncatedUnderway(t *testing.T) {
	const extents = 64 // more than the sockets hold
	path, _ := file(t, 1)
	if err := os.Truncate(path, extents*extent); err != nil {
		t.Fatal(err)
	}
	s := startServing(t, "mmap", open(t, path))
	for i := range int64(extents) {
		s.ask(wire.Request{ID: uint32(i), Offset: i * extent, Length: extent})
	}
	if a, _ := s.answer(); a.Status != wire.StatusOK {
		t.Fatalf("%+v", a)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	s.conn.CloseWrite()
	var head [wire.HeaderSize]byte
	whole, refused := 1, 0
	for {
		_, err := io.ReadFull(s.conn, head[:])
		if err == io.EOF {
			break
		}
		a, perr := wire.ParseAnswer(head[:])
		if err != nil || perr != nil {
			t.Fatal(err, perr)
		}
		if a.Status == wire.StatusFailed {
			refused++
			continue
		}
		if n, _ := io.CopyN(io.Discard, s.conn, extent); n < extent {
			break
		}
		whole++
	}
	if err := <-s.ended; whole == extents || refused > 0 != (err == nil) || refused > 0 && whole+refused != extents {
		t.Errorf("%d answers, %d refused of %d, and then %v", whole, refused, extents, err)
	}
}
