package transfer

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// LandingWindow is the range of a file in which an extent lands, mapped shared and
// writable, for a device to write to without a copy. The program itself does not touch the
// mapping: where a page can't be had that is SIGBUS.
type LandingWindow struct {
	mem []byte
	// OnDemand says that the pages may not be pinned, but paged on demand.
	OnDemand bool
}

// OpenLandingWindow makes room for n bytes of a file, from off on, a multiple of the page
// size, and maps them. That there is none is the error of fallocate(2), and the file's. It
// is [ErrNoWindow] where a device may not write to the file's pages: on tmpfs they may be
// pinned; elsewhere the file system writes them to the disk meanwhile, and what a device
// lands in them after that it never writes, though a registration may succeed (Linux 6.1,
// ext4): so with onDemand alone, which is that the device pages.
func OpenLandingWindow(file *os.File, off int64, n int, onDemand bool) (*LandingWindow, error) {
	w := new(LandingWindow)
	err := control(file, func(fd int) error {
		var st unix.Stat_t
		var fs unix.Statfs_t
		if err := errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &fs)); err != nil {
			return os.NewSyscallError("fstat", err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG { // what is discarded goes to /dev/null
			return fmt.Errorf("%w: it is no regular file", ErrNoWindow)
		}
		if w.OnDemand = fs.Type != unix.TMPFS_MAGIC; w.OnDemand && (!onDemand || windowed[int64(fs.Type)] == "") {
			return fmt.Errorf("%w: a file system of type %#x, and a device that does not page", ErrNoWindow, fs.Type)
		}
		switch err := Allocate(fd, off, int64(n)); {
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return fmt.Errorf("%w: fallocate: %w", ErrNoWindow, err)
		case err != nil:
			return os.NewSyscallError("fallocate", err)
		}
		var err error
		if w.mem, err = unix.Mmap(fd, off, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			return fmt.Errorf("%w: mmap: %w", ErrNoWindow, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

// Allocate makes room for n bytes at off of a file (fallocate(2)), whatever signals come. Its
// errors are the call's.
func Allocate(fd int, off, n int64) error {
	return uninterrupted(func() error { return unix.Fallocate(fd, 0, off, n) })
}

// uninterrupted calls again what a signal broke off: Go's own scheduler sends them, and
// fallocate of tmpfs heeds them in older kernels, and whatever opens a file on FUSE.
func uninterrupted(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// Mapping is the memory, for registration.
func (w *LandingWindow) Mapping() []byte { return w.mem }

// Close unmaps. Nothing may be registered that still names the mapping.
func (w *LandingWindow) Close() error {
	mem := w.mem
	w.mem = nil
	return os.NewSyscallError("munmap", unix.Munmap(mem))
}
