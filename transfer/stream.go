package transfer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// streamWindow is how much of a stream the sender keeps, bytes: what was read and the
// receiver has not landed for good. A stream can't be read twice.
const streamWindow = 64 << 20

// errForgotten answers a request for what has landed for good.
var errForgotten = errors.New("it was forgotten when it had landed")

// stream is something that is read once, from its beginning to its end, ahead of the
// receiver's requests.
type stream struct {
	extent int
	in     io.ReadCloser

	mu     sync.Mutex
	kept   map[int]*kept // by extent number
	free   [][]byte
	read   int64 // bytes, ever
	closed bool
	room   sync.Cond // on mu: something was forgotten
}

// kept is an extent that was read.
type kept struct {
	b     []byte
	held  int  // by lanes that send it from where it is
	freed bool // it is forgotten, as soon as they are done
}

func newStream(in io.ReadCloser, extentSize int) *stream {
	if file, ok := in.(*os.File); ok {
		// A pipe of 64 KiB, as it is made, has its two ends wait for each other sixteen times an
		// extent. What is no pipe, or may not be larger, stays as it is.
		_ = control(file, func(fd int) error {
			_, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, extentSize)
			return err
		})
	}
	s := &stream{extent: extentSize, in: in, kept: make(map[int]*kept)}
	s.room.L = &s.mu
	return s
}

// pump reads to the end and tells of every extent that is there. An error is one of
// reading, or tell's.
func (s *stream) pump(tell func(size int64, end bool) error) error {
	for {
		buf := s.wait()
		if buf == nil {
			return errOver
		}
		n, end, err := readFull(s.in, buf)
		switch {
		case err != nil:
			return errorf(CodeLocalIO, "reading the stream at %d: %w", s.size()+int64(n), err)
		case end:
			if s.in != io.ReadCloser(os.Stdin) { // whose number something else would get
				s.in.Close()
			}
			if n < len(buf)/2 { // thousands of files of /proc may wait for their receipts
				buf = slices.Clone(buf[:n])
			}
		}
		if err := tell(s.keep(buf[:n]), end); err != nil || end {
			return err
		}
	}
}

// readFull reads until b is full or in ends. Only io.EOF itself is an end: what a reader calls
// an unexpected one, as of an HTTP body that broke off, or wraps, is an error (unlike
// [io.ReadFull], which gives the reader's own for its own).
func readFull(in io.Reader, b []byte) (n int, end bool, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = in.Read(b[n:])
		n += k
	}
	if err == io.EOF {
		return n, true, nil
	}
	return n, false, err
}

// keep takes what was read, and gives how much that is by now.
func (s *stream) keep(b []byte) (size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(b) > 0 {
		s.kept[int(s.read/int64(s.extent))] = &kept{b: b}
	}
	s.read += int64(len(b))
	return s.read
}

// wait gives room for an extent; nil when nobody wants it any more.
func (s *stream) wait() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && len(s.kept)*s.extent >= streamWindow {
		s.room.Wait()
	}
	if s.closed {
		return nil
	}
	if n := len(s.free); n > 0 {
		buf := s.free[n-1]
		s.free = s.free[:n-1]
		return buf
	}
	return make([]byte, s.extent)
}

func (s *stream) size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read
}

// readAt gives what is kept.
func (s *stream) readAt(p []byte, off int64) error {
	b, release := s.hold(off)
	if release != nil {
		defer release()
	}
	if len(b) < len(p) {
		return errForgotten
	}
	copy(p, b)
	return nil
}

// hold gives what is kept from an offset on, where it is; it stays until release. release is
// nil if there is nothing.
func (s *stream) hold(off int64) (b []byte, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kept[int(off/int64(s.extent))]
	if k == nil {
		return nil, nil
	}
	k.held++
	return k.b, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if k.held--; k.held == 0 && k.freed {
			s.recycle(k)
		}
	}
}

// forget frees the extents below a number, which must have been read.
func (s *stream) forget(below int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(below)*int64(s.extent) >= s.read+int64(s.extent) {
		return fmt.Errorf("%w: extent %d of a stream of %d bytes has landed", wire.ErrMalformed, below-1, s.read)
	}
	for n, k := range s.kept {
		if n >= below {
			continue
		}
		delete(s.kept, n)
		if k.freed = true; k.held == 0 {
			s.recycle(k)
		}
	}
	s.room.Broadcast()
	return nil
}

// recycle takes an extent's room, for who holds the lock.
func (s *stream) recycle(k *kept) {
	if cap(k.b) >= s.extent {
		s.free = append(s.free, k.b[:s.extent])
	}
}

// close ends pump; a read that hangs ends with its file. Standard input stays open: something
// else would get its number.
func (s *stream) close() {
	s.mu.Lock()
	s.closed = true
	s.room.Broadcast()
	s.mu.Unlock()
	if s.in == io.ReadCloser(os.Stdin) {
		_ = os.Stdin.SetReadDeadline(time.Unix(1, 0)) // what can't have one could not be closed under a read either
		return
	}
	s.in.Close()
}
