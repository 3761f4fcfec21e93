package transfer

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// How the bytes of a source's files are read, where that is more than a pread.

// dropEvery is what of a file is dropped from the page cache together, bytes: its pages
// come in clusters, which may be longer than an extent, and go as such.
const dropEvery = 16 << 20

// Storage says how files were read so far.
func (s *Source) Storage() Storage { return s.store.Storage() }

// prepare decides how a file that was just opened is read. f.mu is held.
func (f *sourceFile) prepare() error {
	auto := f.store.asked == DirectAuto
	if f.store.keep || auto {
		if err := control(f.file, func(fd int) error {
			var fs unix.Statfs_t
			if err := unix.Fstatfs(fd, &fs); err != nil {
				return os.NewSyscallError("fstatfs", err)
			}
			if windowed[int64(fs.Type)] == "" || fs.Type == unix.TMPFS_MAGIC {
				auto = false // its bytes come from elsewhere, or are nowhere else
			}
			var err error
			f.found, err = residencyOf(fd, f.entry.Size)
			return err
		}); err != nil {
			f.found = residency{all: true} // it can't be told: nothing is dropped
		}
	}
	if f.store.asked != DirectAlways && (!auto || f.found.all) {
		return nil
	}
	var err error
	f.direct, err = f.store.open(func(flags int) (*os.File, error) {
		file, err := os.OpenFile(f.path, os.O_RDONLY|unix.O_NONBLOCK|flags, 0)
		if err != nil {
			return nil, errorf(CodeLocalIO, "source: %w", err)
		}
		if err := f.compare(file); err != nil {
			file.Close()
			return nil, err
		}
		return file, nil
	})
	return err
}

// plain reports whether a lane may let the kernel move the file's bytes.
func (f *sourceFile) plain() bool {
	if f.entry.Kind != wire.File {
		return false
	}
	if f.store.asked != DirectAuto && f.store.asked != DirectAlways && !f.store.keep {
		return true
	}
	if _, err := f.open(); err != nil {
		return true // who asks for the file will hear of it
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.direct == nil && (!f.store.keep || f.found.all)
}

// read fills p from an open file: past the page cache, or through it and with what that
// left there dropped, as the user wants it.
func (f *sourceFile) read(file *os.File, p []byte, off int64) error {
	f.mu.Lock()
	d := f.direct
	f.mu.Unlock()
	if d != nil && !(f.store.asked == DirectAuto && f.found.has(off, int64(len(p)))) {
		switch err := d.readAt(p, off); {
		case err == nil:
			f.store.direct.Add(int64(len(p)))
			return nil
		case !errors.Is(err, errNotDirect):
			return err
		default:
			f.store.refuse(err)
		}
	}
	if _, err := file.ReadAt(p, off); err != nil {
		return err
	}
	f.store.cached.Add(int64(len(p)))
	if f.store.keep {
		f.restore(file, off/dropEvery*dropEvery, off+int64(len(p)))
	}
	return nil
}

// restore drops from the page cache what of a file's range was not there before.
func (f *sourceFile) restore(file *os.File, from, to int64) {
	_ = control(file, func(fd int) error { // of a file that is closed, release did
		f.found.restore(fd, from, to-from)
		return nil
	})
}

// readSmall fills p with a whole small file.
func (f *sourceFile) readSmall(fd int, p []byte) error {
	found := residency{all: true}
	if f.store.keep {
		if r, err := residencyOf(fd, int64(len(p))); err == nil {
			found = r
		}
	}
	for done := 0; done < len(p); {
		n, err := unix.Pread(fd, p[done:], int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			done += n
		}
	}
	f.store.cached.Add(int64(len(p)))
	found.restore(fd, 0, int64(len(p)))
	return nil
}
