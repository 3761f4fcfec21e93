package ledger

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// What Open says of a file that it may not use.
var (
	// ErrBusy: another receiver has the ledger.
	ErrBusy = errors.New("another rdmaxfer is receiving this transfer: wait for it")
	// ErrForeign: a link, something that is not a file, or a file that another user
	// made or may write to.
	ErrForeign = errors.New("not a ledger that this user made: remove it")
)

// directory is what a ledger needs of a destination. Tests have one that crashes.
type directory interface {
	// open opens a name, locked and private; with make, which it makes if need be.
	open(name string, make bool) (file, error)
	rename(from, to string) error
	// remove removes a name; if mine is given, only while the name is that of mine.
	remove(name string, mine file) error
	sync() error
}

type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	Sync() error     // fsync(2)
	Datasync() error // fdatasync(2): the size too, not the times
}

// rooted is a directory of the operating system.
type rooted struct{ root *os.Root }

// open tries again when, between opening and locking, the file lost its name: to
// another receiver that removed or compacted the ledger.
func (d rooted) open(name string, make bool) (file, error) {
	for tries := 1; ; tries++ {
		f, err := d.openOnce(name)
		if make && errors.Is(err, fs.ErrNotExist) {
			f, err = d.root.OpenFile(name, openFlags|os.O_CREATE|os.O_EXCL, 0o600)
		}
		if err == nil {
			if err = d.claim(f, name); err == nil {
				return osFile{f}, nil
			}
			f.Close()
		} else if !make {
			return nil, err
		}
		lost := errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)
		if !lost || tries == 100 {
			return nil, err
		}
	}
}

const openFlags = os.O_RDWR | syscall.O_NONBLOCK

// openOnce looks before it opens, since os.Root follows symlinks within itself
// whatever the flags say; claim looks again.
func (d rooted) openOnce(name string) (*os.File, error) {
	st, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, ErrForeign
	}
	return d.root.OpenFile(name, openFlags, 0)
}

// claim locks the file. ErrNotExist says that its name is not, or no more, its own.
func (d rooted) claim(f *os.File, name string) error {
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	if st := mine.Sys().(*syscall.Stat_t); foreign(st, os.Geteuid()) {
		return ErrForeign
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return ErrBusy
		}
		return fmt.Errorf("locking it: %w", err)
	}
	named, err := d.root.Lstat(name)
	if err != nil {
		return err
	}
	if !os.SameFile(mine, named) {
		return fs.ErrNotExist
	}
	return nil
}

// foreign tells files that are not to be believed, nor written to.
func foreign(st *syscall.Stat_t, euid int) bool {
	gone := st.Nlink == 0 // by its last owner, just now: claim finds that out
	return st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 && !gone ||
		int(st.Uid) != euid || st.Mode&0o022 != 0
}

func (d rooted) rename(from, to string) error { return d.root.Rename(from, to) }

func (d rooted) remove(name string, mine file) error {
	if mine != nil {
		st, err := mine.(osFile).Stat()
		if err != nil {
			return err
		}
		named, err := d.root.Lstat(name)
		if err != nil {
			return err
		}
		if !os.SameFile(st, named) {
			return fs.ErrNotExist
		}
	}
	return d.root.Remove(name)
}

func (d rooted) sync() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (f osFile) Datasync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
