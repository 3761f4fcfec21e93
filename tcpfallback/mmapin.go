package tcpfallback

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// mmapIn reads from the socket into the file's pages, mapped shared: one copy by the CPU.
// Room is made first, so that a full disk is an error of that call; Go never touches the
// mapping, and where a page of it is gone after all the kernel finds that out as EFAULT.
type mmapIn struct{}

func (mmapIn) name() string { return "mmap" }

func (mmapIn) close() {}

func (mmapIn) into(conn *lowWater, file *os.File, off int64, n int, _ []byte) (got int, err error) {
	conn.pouring.Store(true)
	defer conn.pouring.Store(false)
	inPage := int(off % int64(os.Getpagesize()))
	pages, err := mapForWriting(file, off-int64(inPage), inPage+n)
	if err != nil {
		return 0, err
	}
	// All pages at once: a fault for each while the payload is read costs 1.4 times as much.
	// Linux has this since 5.14; without it, and where it fails, they fault one by one.
	_ = unix.Madvise(pages, unix.MADV_POPULATE_WRITE)
	conn.pouring.Store(false)
	err = conn.read(n, func(fd, done int) (int, error) {
		k, err := unix.Read(fd, pages[inPage+done:])
		if err == unix.EFAULT {
			return 0, fileError{err}
		}
		got = done + max(k, 0)
		return k, err
	})
	if uerr := unix.Munmap(pages); err == nil && uerr != nil {
		err = fileError{os.NewSyscallError("munmap", uerr)}
	}
	return got, err
}

// mapForWriting maps n bytes at off of the file, which has room for them then.
func mapForWriting(file *os.File, off int64, n int) (pages []byte, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, fileError{err}
	}
	cerr := raw.Control(func(fd uintptr) {
		switch err = transfer.Allocate(int(fd), off, int64(n)); err {
		case nil:
		case unix.EOPNOTSUPP, unix.ENOSYS, unix.ENODEV:
			err = errUnfit
			return
		default:
			err = fileError{os.NewSyscallError("fallocate", err)}
			return
		}
		if pages, err = unix.Mmap(int(fd), off, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			err = errUnfit
		}
	})
	if cerr != nil {
		err = fileError{errSettled}
	}
	return pages, err
}
