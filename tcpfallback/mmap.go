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

// mmapOut writes an extent straight from the file's pages, mapped shared and read-only:
// one copy by the CPU. Go never touches the mapping, because of a file that was
// truncated meanwhile that is SIGBUS; the kernel finds the same out as EFAULT. So the
// digest is taken from the page cache beside it, through buf. What is no range of one
// file goes as copy does.
type mmapOut struct{ *copyOut }

func (*mmapOut) name() string { return "mmap" }

func (m *mmapOut) answer(conn net.Conn, src *transfer.Source, r wire.Request) error {
	file, err := m.fileOf(conn, src, r)
	if file == nil || err != nil {
		return err
	}
	inPage := int(r.Offset % int64(os.Getpagesize())) // only what is measured is not aligned
	pages, err := mapRange(file, r.Offset-int64(inPage), inPage+int(r.Length))
	switch {
	case errors.Is(err, errSettled):
		return refuse(conn, r)
	case errors.Is(err, io.ErrUnexpectedEOF): // nothing of it was sent yet: the lane lives on
		src.Fail(r, err)
		return refuse(conn, r)
	case err != nil: // there are file systems that have no mappings
		return m.byHand(conn, src, r, file, false)
	}
	err = m.write(conn, r, wire.StatusOK, pages[inPage:])
	if uerr := unix.Munmap(pages); err == nil {
		err = os.NewSyscallError("munmap", uerr)
	}
	switch {
	case err == nil:
		src.Reread(r, m.buf)
	case errors.Is(err, unix.EFAULT): // truncated since; the receiver waits for the rest
		src.Fail(r, io.ErrUnexpectedEOF)
	}
	return err
}

// mapRange maps n bytes at off of the file, which is a page's beginning, and makes them
// resident, so that a file that has become shorter is found out before a header promises
// its bytes.
func mapRange(file *os.File, off int64, n int) (pages []byte, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	if raw.Control(func(fd uintptr) {
		pages, err = unix.Mmap(int(fd), off, n, unix.PROT_READ, unix.MAP_SHARED)
	}) != nil {
		return nil, errSettled
	}
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Madvise(pages, unix.MADV_POPULATE_READ)
	}
	switch err {
	case nil, unix.EINVAL: // Linux before 5.14 lacks it: the write makes them resident
		return pages, nil
	case unix.EFAULT:
		err = io.ErrUnexpectedEOF
	}
	_ = unix.Munmap(pages)
	return nil, err
}
