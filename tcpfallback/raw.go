package tcpfallback

import (
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawRead calls read on the socket until n bytes have come, parked in Go's netpoller
// while there are none. One that gets nothing has met the end of the connection.
func rawRead(conn *net.TCPConn, n int, read func(fd, done int) (int, error)) error {
	return through(conn, syscall.RawConn.Read, "recv", n, read)
}

// rawWrite calls write on the socket until n bytes are gone, parked in Go's netpoller
// while the socket is full. One that finds nothing to write has met the end of the file.
func rawWrite(conn *net.TCPConn, n int, write func(fd, done int) (int, error)) error {
	return through(conn, syscall.RawConn.Write, "send", n, write)
}

// through calls call until n bytes have gone through the connection; wait is of the
// netpoller, for a call that answered EAGAIN.
func through(conn *net.TCPConn, wait func(syscall.RawConn, func(uintptr) bool) error, op string, n int, call func(fd, done int) (int, error)) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	done := 0
	var failed error
	err = wait(raw, func(fd uintptr) bool {
		for done < n {
			k, err := call(int(fd), done)
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
					failed = os.NewSyscallError(op, errno)
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
