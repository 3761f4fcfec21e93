package tcpfallback

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// pipeSize is how large a pipe between socket and file is asked for, bytes: what every
// user may have (/proc/sys/fs/pipe-max-size). A smaller one is filled more often.
const pipeSize = 1 << 20

// pipe is what the kernel moves pages through (splice(2)). Nothing waits at either end.
type pipe struct{ out, in int }

func newPipe() (*pipe, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	_, _ = unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, pipeSize) // else it has 64 KiB
	return &pipe{out: p[0], in: p[1]}, nil
}

func (p *pipe) close() {
	unix.Close(p.out)
	unix.Close(p.in)
}

// read reads what is in the pipe: len(b) bytes are.
func (p *pipe) read(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(p.out, b)
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

// splice moves up to n bytes between a pipe and something else, from or to an offset of it.
func splice(from int, fromOff *int64, to int, toOff *int64, n int) (int, error) {
	for {
		k, err := unix.Splice(from, fromOff, to, toOff, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			return int(k), err
		}
	}
}
