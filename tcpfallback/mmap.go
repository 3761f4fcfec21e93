package tcpfallback

import (
	"cmp"
	"errors"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// mmapOut writes an extent straight from the file's pages, mapped shared and read-only:
// one copy by the CPU. Go never touches the mapping, because of a file that was
// truncated meanwhile that is SIGBUS; the kernel finds the same out as EFAULT. So the
// digest is taken from the page cache beside it, through buf. What is no range of one
// file goes as copy does.
type mmapOut struct {
	*copyOut
	win window
}

func (*mmapOut) name() string { return "mmap" }

func (m *mmapOut) release() { m.win.unmap() }

func (m *mmapOut) answer(conn net.Conn, src *transfer.Source, r wire.Request) (moved bool, err error) {
	file, err := m.fileOf(conn, src, r)
	if file == nil || err != nil {
		return false, err
	}
	pages, err := m.win.of(file, r.Offset, int(r.Length))
	switch {
	case errors.Is(err, errSettled):
		return false, refuse(conn, r)
	case errors.Is(err, io.ErrUnexpectedEOF): // nothing of it was sent yet: the lane lives on
		src.Fail(r, err)
		return false, refuse(conn, r)
	case err != nil: // there are file systems that have no mappings, and files with holes
		return m.byHand(conn, src, r, file, false)
	}
	err = m.write(conn, r, wire.StatusOK, pages)
	switch {
	case err == nil:
		src.Reread(r, m.buf)
	case errors.Is(err, unix.EFAULT): // truncated since, or unreadable; the receiver waits for the rest
		_, ferr := file.ReadAt(m.buf[:r.Length], r.Offset)
		src.Fail(r, cmp.Or(ferr, io.ErrUnexpectedEOF))
	}
	return err == nil, err
}

// windowSize is how much of a file is mapped at a time, bytes. To map each extent by
// itself, and to make it resident beforehand, cost as much as the copy that is saved
// (docs/performance.md).
const windowSize = 16 << 20

// window is the range of a file that is mapped. Its zero value is none.
type window struct {
	file  *os.File
	from  int64
	pages []byte
}

// of gives n bytes at off of the file. A file that has become shorter is found out before
// a header promises its bytes.
func (w *window) of(file *os.File, off int64, n int) ([]byte, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	if raw.Control(func(fd uintptr) { err = w.cover(int(fd), file, off, n) }) != nil {
		return nil, errSettled
	}
	if err != nil {
		return nil, err
	}
	return w.pages[off-w.from:][:n], nil
}

// errHoles says that to read a mapping of a file would take memory for what it has none of,
// as on tmpfs it does.
var errHoles = errors.New("it has holes")

// cover maps what is not mapped yet, and makes sure that there is a file below all of it.
func (w *window) cover(fd int, file *os.File, off int64, n int) error {
	if file != w.file || off < w.from || off+int64(n) > w.from+int64(len(w.pages)) {
		w.unmap()
		inPage := off % int64(os.Getpagesize())
		pages, err := unix.Mmap(fd, off-inPage, max(windowSize, int(inPage)+n), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return os.NewSyscallError("mmap", err)
		}
		// Pages become resident as the socket's writes touch them; this has those of a
		// cold file read ahead. Without it they come all the same.
		_ = unix.Madvise(pages, unix.MADV_SEQUENTIAL)
		w.file, w.from, w.pages = file, off-inPage, pages
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	switch {
	case off+int64(n) > st.Size:
		return io.ErrUnexpectedEOF
	case st.Blocks*512 < st.Size:
		return errHoles
	}
	return nil
}

func (w *window) unmap() {
	if w.pages != nil {
		_ = unix.Munmap(w.pages) // EINVAL alone, of what is no mapping
	}
	*w = window{}
}
