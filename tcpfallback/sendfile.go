package tcpfallback

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// sendfileOut lets the kernel move pages of the file's cache to the socket
// (sendfile): no copy by the CPU on the sending side. The digest is taken from
// the page cache beside it, through buf. A file that was truncated after its
// header was sent breaks the lane: the receiver waits for bytes that don't exist.
// What is no range of one file goes as copy does.
type sendfileOut struct{ *copyOut }

func (*sendfileOut) name() string { return "sendfile" }

func (m *sendfileOut) answer(conn net.Conn, src *transfer.Source, r wire.Request) (moved bool, err error) {
	file, err := m.fileOf(conn, src, r)
	if file == nil || err != nil {
		return false, err
	}
	a := wire.Answer{ID: r.ID, Length: r.Length}
	a.Put(m.head[:])
	err = send(conn.(*net.TCPConn), m.head[:], file, r.Offset, int(r.Length))
	switch {
	case err == nil:
		src.Reread(r, m.buf)
	case errors.Is(err, errSettled):
		return false, refuse(conn, r)
	case errors.Is(err, errNoSendfile):
		return m.byHand(conn, src, r, file, true)
	default:
		m.failIn(src, r, file, err)
	}
	return err == nil, err
}

// errNoSendfile says that a file system has none, and that the header was sent.
var errNoSendfile = errors.New("no sendfile from this file system")

// errSettled says that a file was closed before the lane was done with it.
var errSettled = errors.New("the file was settled meanwhile")

// send writes a header and n bytes at off of the file.
func send(conn *net.TCPConn, head []byte, file *os.File, off int64, n int) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	// Inside Control the descriptor can't be closed and given to another file.
	err = raw.Control(func(in uintptr) {
		if failed = sendHeader(conn, head); failed == nil {
			failed = sendRange(conn, int(in), off, n)
		}
	})
	if err != nil {
		return errSettled
	}
	return failed
}

// sendHeader writes a header that shares its packet with what follows (MSG_MORE).
func sendHeader(conn *net.TCPConn, head []byte) error {
	return rawWrite(conn, len(head), func(fd, done int) (int, error) {
		return unix.SendmsgN(fd, head[done:], nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
	})
}

// sendRange moves n bytes at off of the file. It has an offset of its own: several
// lanes may send one open file.
func sendRange(conn *net.TCPConn, in int, off int64, n int) error {
	return rawWrite(conn, n, func(fd, done int) (int, error) {
		at := off + int64(done)
		sent, err := unix.Sendfile(fd, in, &at, n-done)
		if done == 0 && (err == unix.EINVAL || err == unix.ENOSYS) {
			return 0, errNoSendfile
		}
		return sent, err
	})
}
