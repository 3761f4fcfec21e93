package tcpfallback

import (
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// pipeSize is how large a pipe between socket and file is asked for, bytes: what every
// user may have (/proc/sys/fs/pipe-max-size). A smaller one is filled more often.
const pipeSize = 1 << 20

// spliceIn moves the socket's memory into a pipe, and the pipe's into the file
// (splice(2)): one copy by the CPU, none where the file is /dev/null.
type spliceIn struct{ out, in int }

func newSpliceIn() (landing, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	_, _ = unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, pipeSize) // else it has 64 KiB
	return &spliceIn{out: p[0], in: p[1]}, nil
}

func (*spliceIn) name() string { return "splice" }

func (s *spliceIn) close() {
	unix.Close(s.out)
	unix.Close(s.in)
}

func (s *spliceIn) into(conn *net.TCPConn, file *os.File, off int64, n int, b []byte) (got int, err error) {
	written := 0
	err = rawRead(conn, n, func(fd, done int) (int, error) {
		k, err := splice(fd, nil, s.in, n-done)
		if err != nil || k == 0 {
			return k, err
		}
		got = done + k
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
	if cerr := raw.Control(func(fd uintptr) { w, err = splice(s.out, off, int(fd), n) }); cerr != nil {
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

// read reads what is in the pipe: len(b) bytes are.
func (s *spliceIn) read(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(s.out, b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("read", err)
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			b = b[n:]
		}
	}
	return nil
}

// splice moves up to n bytes between a pipe and something else, to an offset of it.
func splice(from int, off *int64, to, n int) (int, error) {
	for {
		k, err := unix.Splice(from, nil, to, off, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			return int(k), err
		}
	}
}

// rawRead calls read on the socket until n bytes have come, parked in Go's netpoller
// while there are none.
func rawRead(conn *net.TCPConn, n int, read func(fd, done int) (int, error)) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	done := 0
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for done < n {
			k, err := read(int(fd), done)
			switch {
			case err == unix.EAGAIN:
				return false
			case err == unix.EINTR:
				continue
			case err == nil && k == 0:
				failed = io.ErrUnexpectedEOF
				return true
			case err != nil:
				failed = err
				if errno, ok := err.(unix.Errno); ok {
					failed = os.NewSyscallError("recv", errno)
				}
				return true
			}
			done += k
		}
		return true
	})
	if err != nil {
		return err
	}
	return failed
}
