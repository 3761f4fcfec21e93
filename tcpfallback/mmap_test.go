package tcpfallback

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/tcpfallback/compress"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// TestMapRangeOfAShorterFile: what is not there any more is found out before anybody
// touches it.
func TestMapRangeOfAShorterFile(t *testing.T) {
	path, _ := file(t, 2*extent)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, extent+extent/2); err != nil {
		t.Fatal(err)
	}
	pages, err := mapRange(f, 0, extent)
	if err != nil || len(pages) != extent {
		t.Fatalf("%d bytes, %v", len(pages), err)
	}
	if err := unix.Munmap(pages); err != nil {
		t.Error(err)
	}
	if _, err := mapRange(f, extent, extent); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half of it is gone: %v", err)
	}
	f.Close()
	if _, err := mapRange(f, 0, extent); !errors.Is(err, errSettled) {
		t.Errorf("closed: %v", err)
	}
}

// TestWriteFromAShorterFile: truncated between the mapping and the write it is an
// error of the write, and no signal.
func TestWriteFromAShorterFile(t *testing.T) {
	path, _ := file(t, extent)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pages, err := mapRange(f, 0, extent)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(pages)
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
