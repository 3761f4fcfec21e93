package transfer

import (
	"errors"
	"fmt"
	"io"
	"sync"

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
	kept   map[int][]byte // by extent number
	free   [][]byte
	read   int64 // bytes, ever
	closed bool
	room   sync.Cond // on mu: something was forgotten
}

func newStream(in io.ReadCloser, extentSize int) *stream {
	s := &stream{extent: extentSize, in: in, kept: make(map[int][]byte)}
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
		n, err := io.ReadFull(s.in, buf)
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return errorf(CodeLocalIO, "reading the stream at %d: %w", s.size(), err)
		}
		s.mu.Lock()
		if n > 0 {
			s.kept[int(s.read)/s.extent] = buf[:n]
		}
		s.read += int64(n)
		size := s.read
		s.mu.Unlock()
		if err := tell(size, end); err != nil || end {
			return err
		}
	}
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
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.kept[int(off)/s.extent]
	if len(b) < len(p) {
		return errForgotten
	}
	copy(p, b)
	return nil
}

// forget frees the extents below a number, which must have been read.
func (s *stream) forget(below int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(below)*int64(s.extent) >= s.read+int64(s.extent) {
		return fmt.Errorf("%w: extent %d of a stream of %d bytes has landed", wire.ErrMalformed, below-1, s.read)
	}
	for n, b := range s.kept {
		if n < below {
			s.free = append(s.free, b[:s.extent])
			delete(s.kept, n)
		}
	}
	s.room.Broadcast()
	return nil
}

// close ends pump; a read that hangs ends with its file.
func (s *stream) close() {
	s.mu.Lock()
	s.closed = true
	s.room.Broadcast()
	s.mu.Unlock()
	s.in.Close()
}
