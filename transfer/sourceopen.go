package transfer

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// place is where a source is: at a path that the user named, or below one, at a name in a
// directory that is open. Only the first may be a link: who may write to a tree that another
// user sends could else have anything of that one's sent.
type place struct {
	path string
	in   *os.File // nil: path is all
}

// at gives the place as openat(2) and its kin have it.
func (p place) at() (dir int, name string, flags int) {
	if p.in == nil {
		return unix.AT_FDCWD, p.path, unix.O_CLOEXEC
	}
	return int(p.in.Fd()), filepath.Base(p.path), unix.O_CLOEXEC | unix.O_NOFOLLOW
}

func (p place) fail(op string, err error) error {
	return sourceError(op, p.path, err)
}

// descriptorPath is where /proc (proc_pid_fd(5)) has what a descriptor is of.
func descriptorPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// sourceError is what became of an operation on a source.
func sourceError(op, path string, err error) error {
	var named *fs.PathError
	if errors.As(err, &named) {
		err = named.Err // its path is not fit to be printed
	}
	return errorf(CodeLocalIO, "source: %w", &fs.PathError{Op: op, Path: Printable(path), Err: err})
}

// open opens what is there to be read, without waiting for the writer of a pipe. A regular
// file that another program has a lease of (fcntl(2), as Samba's oplocks and NFS's delegations
// are) is waited for, until that one has let go or lost it.
func (p place) open() (fd int, err error) {
	dir, name, flags := p.at()
	err = uninterrupted(func() (err error) {
		fd, err = unix.Openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|flags, 0)
		return err
	})
	if err != unix.EWOULDBLOCK {
		return fd, err
	}
	file, err := unix.Openat(dir, name, unix.O_PATH|flags, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(file)
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, cmp.Or(err, error(unix.EWOULDBLOCK))
	}
	err = uninterrupted(func() (err error) {
		fd, err = unix.Open(descriptorPath(file), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// openAs opens what looked like one of a kind (S_IFREG, S_IFDIR), and looks at it again.
func (p place) openAs(kind uint32, l *looks) (*os.File, error) {
	fd, err := p.open()
	if err != nil {
		return nil, p.fail("open", err)
	}
	file := os.NewFile(uintptr(fd), p.path)
	var now looks
	switch err := p.lookAgain(file, &now); {
	case err != nil:
		file.Close()
		return nil, p.fail("stat", err)
	case now.kind() != kind:
		file.Close()
		return nil, errorf(CodeLocalIO, "source %s was replaced by something else while it was looked at: send it again when it is at rest", Printable(p.path))
	}
	*l = now
	return file, nil
}

// lookAgain looks at what is open.
func (p place) lookAgain(file *os.File, l *looks) error {
	return control(file, func(fd int) error {
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		*l = looksOf(&st)
		return err
	})
}

// readLink gives where a symbolic link points.
func (p place) readLink() (string, error) {
	dir, name, _ := p.at()
	b := make([]byte, wire.MaxPath+1)
	n, err := unix.Readlinkat(dir, name, b)
	if err != nil {
		return "", p.fail("readlink", err)
	}
	return string(b[:n]), nil
}

// openSource opens a regular file or a directory.
func openSource(path string) (*os.File, error) {
	p := place{path: path}
	fd, err := p.open()
	if err != nil {
		return nil, p.fail("open", err)
	}
	f := os.NewFile(uintptr(fd), path)
	st, err := f.Stat()
	if err != nil {
		err = errorf(CodeLocalIO, "source: %w", err)
	} else if !st.Mode().IsRegular() && !st.IsDir() {
		err = errorf(CodeUsage, "source %s is not a regular file (pipe it in: rdmaxfer send - HOST)", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readByte reads the first one, and waits for none.
func readByte(file *os.File) (n int, err error) {
	cerr := control(file, func(fd int) error {
		return uninterrupted(func() (err error) {
			n, err = unix.Pread(fd, make([]byte, 1), 0)
			return err
		})
	})
	return n, cerr
}
