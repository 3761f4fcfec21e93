package tcpfallback

import (
	"errors"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// spliceOut has the kernel put the pages of the file's cache into a pipe, and from there
// into packets (splice(2)): no copy by the CPU on the sending side, as with sendfile, but a
// whole extent at a time where that goes by 64 KiB. An extent that is in the pipe is there
// to its end before a header promises it, so a truncated file breaks no lane, but where a pipe
// of that size was not to be had. The digest is
// taken from the page cache beside it, through buf. What is no range of one file, and what is
// small, goes as copy does.
type spliceOut struct {
	*copyOut
	pipe *pipe // nil until it is needed
}

func (*spliceOut) name() string { return "splice" }

func (m *spliceOut) release() {
	if m.pipe != nil {
		m.pipe.close()
		m.pipe = nil
	}
}

// spliceLeast is how much is worth it, bytes: of less the copy costs no more than a call.
const spliceLeast = 16 << 10

func (m *spliceOut) answer(conn net.Conn, src *transfer.Source, r wire.Request) (moved bool, err error) {
	if r.Length < spliceLeast {
		return m.copyOut.answer(conn, src, r)
	}
	file, err := m.fileOf(conn, src, r)
	if file == nil || err != nil {
		return false, err
	}
	n, err := m.fill(file, r.Offset, int(r.Length))
	switch {
	case errors.Is(err, errSettled):
		return false, refuse(conn, r)
	case errors.Is(err, io.ErrUnexpectedEOF): // nothing of it was sent yet: the lane lives on
		m.release()
		src.Fail(r, err)
		return false, refuse(conn, r)
	case err != nil: // there are file systems that have no splice, and users without a pipe
		m.release()
		return m.byHand(conn, src, r, file, false)
	}
	if err := m.send(conn.(*net.TCPConn), r, file, n); err != nil {
		m.release()
		m.failIn(src, r, file, err) // the receiver waits for the rest
		return false, err
	}
	src.Reread(r, m.buf)
	return true, nil
}

// send writes the header, the filled bytes that are in the pipe, and the rest of the extent.
func (m *spliceOut) send(conn *net.TCPConn, r wire.Request, file *os.File, filled int) error {
	a := wire.Answer{ID: r.ID, Length: r.Length}
	a.Put(m.head[:])
	if err := sendHeader(conn, m.head[:]); err != nil {
		return err
	}
	for sent := 0; ; {
		err := rawWrite(conn, filled, func(fd, done int) (int, error) {
			return splice(m.pipe.out, nil, fd, nil, filled-done)
		})
		if err != nil {
			return err
		}
		if sent += filled; sent == int(r.Length) {
			return nil
		}
		if filled, err = m.fill(file, r.Offset+int64(sent), int(r.Length)-sent); err != nil {
			return err
		}
	}
}

// fill moves n bytes at off of the file into the pipe, which is empty, or as many as it has
// room for.
func (m *spliceOut) fill(file *os.File, off int64, n int) (filled int, err error) {
	if m.pipe == nil {
		if m.pipe, err = newPipe(); err != nil {
			return 0, err
		}
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	// Inside Control the descriptor can't be closed and given to another file.
	cerr := raw.Control(func(fd uintptr) {
		for filled < n && err == nil {
			at := off + int64(filled)
			var k int
			k, err = splice(int(fd), &at, m.pipe.in, nil, n-filled)
			filled += max(k, 0)
			switch {
			case err == unix.EAGAIN && filled > 0: // the pipe is full
				err = nil
				return
			case err != nil:
				err = os.NewSyscallError("splice", err)
			case k == 0:
				err = io.ErrUnexpectedEOF
			}
		}
	})
	if cerr != nil {
		err = errSettled
	}
	return filled, err
}
