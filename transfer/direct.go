package transfer

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Direct says when files are read or written past the page cache (O_DIRECT, open(2)).
type Direct string

// The policies. A file system that has no such thing is used through the page cache, and
// [Storage] says why.
const (
	DirectNever Direct = "never"
	// DirectAuto is, of a source, for extents of which something was not in the page
	// cache when their file was opened, on local file systems; of a sink it is never.
	DirectAuto   Direct = "auto"
	DirectAlways Direct = "always"
)

// Directs are the policies that a user can ask for.
var Directs = []string{string(DirectAuto), string(DirectAlways), string(DirectNever)}

// errNotDirect says that a file, or a buffer, is not for O_DIRECT; what wraps it says why.
var errNotDirect = errors.New("through the page cache")

// directFile is a second descriptor of a file, which goes past the page cache. The kernel
// keeps the two the same: what is dirty in the cache is written before a direct read, and
// what a direct write makes stale is dropped. But two writes of one page, one of each
// kind, at the same time have no order, so align is a page at least, and what is shorter
// is for the other descriptor.
type directFile struct {
	file  *os.File
	align int // bytes, of memory, offset and length; a power of two
}

// openDirect makes one. open is asked for the file with more flags.
func openDirect(open func(flags int) (*os.File, error)) (*directFile, error) {
	file, err := open(unix.O_DIRECT)
	if err != nil {
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("%w: the file system refuses O_DIRECT", errNotDirect)
		}
		return nil, err
	}
	d := &directFile{file: file}
	if err := control(file, func(fd int) (err error) {
		d.align, err = directAlign(fd)
		return err
	}); err != nil {
		file.Close()
		return nil, err
	}
	return d, nil
}

// directAlign gives what memory, offsets and lengths must be multiples of, bytes
// (STATX_DIOALIGN, statx(2)). Kernels before 6.1 don't say, and some file systems don't:
// a page is right nearly everywhere then, and else the first read or write finds out.
func directAlign(fd int) (int, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return 0, os.NewSyscallError("fstatfs", err)
	}
	if int64(fs.Type) == unix.TMPFS_MAGIC { // Linux 6.6 and later take the flag, and copy
		return 0, fmt.Errorf("%w: tmpfs is nothing else", errNotDirect)
	}
	page := os.Getpagesize()
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 {
		return page, nil
	}
	align := max(int(st.Dio_mem_align), int(st.Dio_offset_align), page)
	if st.Dio_offset_align == 0 || st.Dio_mem_align == 0 || bits.OnesCount(uint(align)) != 1 {
		return 0, fmt.Errorf("%w: the file system has no O_DIRECT for this file", errNotDirect)
	}
	return align, nil
}

// fits reports whether b can be the memory of a transfer at off.
func (d *directFile) fits(b []byte, off int64) bool {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return at%uintptr(d.align) == 0 && off%int64(d.align) == 0
}

// readAt fills p from off. What p has room for behind its length, up to a multiple of
// align, may be written too: the end of a file comes with the rest of its block.
func (d *directFile) readAt(p []byte, off int64) error {
	whole := (len(p) + d.align - 1) &^ (d.align - 1)
	if whole > cap(p) || !d.fits(p, off) {
		return fmt.Errorf("%w: memory or an offset that is not aligned to %d", errNotDirect, d.align)
	}
	return control(d.file, func(fd int) error {
		for done := 0; done < len(p); {
			n, err := unix.Pread(fd, p[done:whole], off+int64(done))
			switch {
			case err == unix.EINTR:
			case err == unix.EINVAL:
				return fmt.Errorf("%w: the file system refuses O_DIRECT reads", errNotDirect)
			case err != nil:
				return err
			default:
				done += n
				if done < len(p) && (n == 0 || n%d.align != 0) {
					return io.ErrUnexpectedEOF // there is no going on in the middle of a block
				}
			}
		}
		return nil
	})
}

// writeAt writes b as far as that is a multiple of align, and gives how far it came.
func (d *directFile) writeAt(b []byte, off int64) (int, error) {
	b = b[:len(b)&^(d.align-1)]
	if !d.fits(b, off) {
		return 0, fmt.Errorf("%w: memory or an offset that is not aligned to %d", errNotDirect, d.align)
	}
	n, err := d.file.WriteAt(b, off)
	if errors.Is(err, unix.EINVAL) {
		return 0, fmt.Errorf("%w: the file system refuses O_DIRECT writes", errNotDirect)
	}
	return n, err
}

func (d *directFile) close() {
	if d != nil {
		d.file.Close()
	}
}
