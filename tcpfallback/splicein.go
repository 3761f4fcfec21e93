package tcpfallback

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// spliceIn moves the socket's memory into a pipe, and the pipe's into the file
// (splice(2)): one copy by the CPU. What is for /dev/null is dropped in the socket.
type spliceIn struct {
	*pipe
	last *os.File // that was written to
	null bool     // it is /dev/null
}

func newSpliceIn() (landing, error) {
	p, err := newPipe()
	if err != nil {
		return nil, err
	}
	return &spliceIn{pipe: p}, nil
}

func (*spliceIn) name() string { return "splice" }

func (s *spliceIn) into(conn *lowWater, file *os.File, off int64, n int, b []byte) (got int, err error) {
	if file != s.last {
		s.last, s.null = file, nowhere(file)
	}
	if s.null {
		return 0, drop(conn, n, b)
	}
	written := 0
	err = conn.read(n, func(fd, done int) (int, error) {
		k, err := splice(fd, nil, s.in, nil, n-done)
		if err != nil || k == 0 {
			return k, err
		}
		got = done + k
		began := time.Now()
		conn.pouring.Store(true)
		defer func() {
			conn.pouring.Store(false)
			conn.poured += time.Since(began)
		}()
		for written < got {
			at := off + int64(written)
			w, err := s.pour(file, &at, got-written)
			switch {
			case err == unix.EINVAL && written == 0:
				return k, s.give(b[:got])
			case err != nil:
				return k, s.spill(got-written, b, err)
			}
			written += w
		}
		return k, nil
	})
	return got, err
}

// pour moves up to n bytes from the pipe into the file.
func (s *spliceIn) pour(file *os.File, off *int64, n int) (w int, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	// Inside Control the descriptor can't be closed and given to another file.
	if cerr := raw.Control(func(fd uintptr) { w, err = splice(s.out, nil, int(fd), off, n) }); cerr != nil {
		return 0, errSettled
	}
	if err == nil && w == 0 {
		err = io.ErrShortWrite
	}
	return w, err
}

// give reads what the pipe holds into b.
func (s *spliceIn) give(b []byte) error {
	if err := s.read(b); err != nil {
		return err
	}
	return errUnfit
}

// spill empties the pipe of n bytes that the file did not take.
func (s *spliceIn) spill(n int, b []byte, why error) error {
	if err := s.read(b[:n]); err != nil {
		return err
	}
	return fileError{why}
}
