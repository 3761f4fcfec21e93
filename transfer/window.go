package transfer

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Window is a stretch of a source file's page cache, mapped shared and read-only, for
// a device to send from without a copy. The program itself does not touch the mapping:
// of a file that was truncated meanwhile that is SIGBUS. It has no pages of its own, so
// a window that was made may show what its file no longer has; [Window.Unchanged] tells.
type Window struct {
	file  *os.File
	mem   []byte
	state fileState
}

// ErrNoWindow says that a file's pages are not to be had this way; what wraps it says
// why. Its bytes are read into memory of the program's instead.
var ErrNoWindow = errors.New("no window")

// windowed are the file systems whose pages stay where they are while they are
// registered, and whose changes show in the inode at once: local ones (statfs(2)).
var windowed = map[int64]string{
	unix.TMPFS_MAGIC:       "tmpfs",
	unix.EXT4_SUPER_MAGIC:  "ext4",
	unix.XFS_SUPER_MAGIC:   "xfs",
	unix.BTRFS_SUPER_MAGIC: "btrfs",
}

// OpenWindow maps up to most bytes of a file, from off on, which is a multiple of the
// page size, and makes them resident (MADV_POPULATE_READ, Linux 5.14). It is
// [ErrNoWindow] where the file has fewer than least bytes there, and of a file on tmpfs
// that has holes: to make those resident takes memory that stays the file's.
func OpenWindow(file *os.File, off int64, least, most int) (*Window, error) {
	w := &Window{file: file}
	err := control(file, func(fd int) (err error) {
		var fs unix.Statfs_t
		if err := unix.Fstatfs(fd, &fs); err != nil {
			return os.NewSyscallError("fstatfs", err)
		}
		if windowed[int64(fs.Type)] == "" {
			return fmt.Errorf("%w: a file system of type %#x is not known to be local", ErrNoWindow, fs.Type)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return os.NewSyscallError("fstat", err)
		}
		// Elsewhere few blocks may be compressed ones, and holes are read from pages that
		// the kernel can take away again.
		if fs.Type == unix.TMPFS_MAGIC && st.Blocks*512 < st.Size {
			return fmt.Errorf("%w: it has holes", ErrNoWindow)
		}
		w.state = stateOf(&st)
		n := min(w.state.size-off, int64(most))
		if n < int64(least) || n <= 0 {
			return fmt.Errorf("%w: %w", ErrNoWindow, io.ErrUnexpectedEOF)
		}
		w.mem, err = unix.Mmap(fd, off, int(n), unix.PROT_READ, unix.MAP_SHARED)
		return os.NewSyscallError("mmap", err)
	})
	if err != nil {
		return nil, err
	}
	if err := unix.Madvise(w.mem, unix.MADV_POPULATE_READ); err != nil {
		_ = w.Close()
		return nil, fmt.Errorf("%w: MADV_POPULATE_READ: %w", ErrNoWindow, err)
	}
	return w, nil
}

// Mapping is the memory, for registration.
func (w *Window) Mapping() []byte { return w.mem }

// Unchanged compares the file with what it was when the window was made. The error
// says that it changed; a file that is closed has been settled, and is not asked.
func (w *Window) Unchanged() error {
	var now fileState
	err := control(w.file, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return os.NewSyscallError("fstat", err)
		}
		now = stateOf(&st)
		return nil
	})
	switch {
	case errors.Is(err, os.ErrClosed):
		return nil
	case err != nil:
		return err
	case now != w.state:
		return errors.New("it changed while it was read (send it again when it is at rest)")
	}
	return nil
}

// Close unmaps. Nothing may be registered that still names the mapping.
func (w *Window) Close() error {
	mem := w.mem
	w.mem = nil
	return os.NewSyscallError("munmap", unix.Munmap(mem))
}

// fileState is what differs after a file was written to or truncated.
type fileState struct {
	size         int64
	mtime, ctime unix.Timespec
}

func stateOf(st *unix.Stat_t) fileState { return fileState{st.Size, st.Mtim, st.Ctim} }

// control runs f with the descriptor, which can't be closed meanwhile; of a file that
// is closed already it is os.ErrClosed.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return fmt.Errorf("%w: %w", os.ErrClosed, err) // it has no other reason
	}
	return failed
}
