package transfer

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// maxLeft is how many sources that could not be removed are reported, one by one.
const maxLeft = 100

// removeSources removes what has arrived. It is done when all is over: a directory that
// is being listed may hide names when others go.
func (p *push) removeSources() error {
	var first error
	failed := 0
	shared := make(map[[2]uint64]stamp)
	for _, f := range p.arrived {
		if link := f.entry.Kind == wire.HardLink || f.entry.Kind == wire.Symlink; link && p.failures.n > 0 {
			continue // it is durable with its directory, which may be what failed
		}
		if slices.ContainsFunc(p.lostDirs, func(dir string) bool { return strings.HasPrefix(f.entry.Path, dir+"/") }) {
			continue // its own directory's name may not be durable
		}
		if err := f.remove(shared); err != nil {
			first = cmp.Or(first, err)
			if failed++; failed <= maxLeft {
				p.tell(p.Observer, func(o Observer) { o.File(FileResult{Path: f.path, Size: f.size(), Left: err}) })
			}
		}
	}
	if failed == 0 {
		return nil
	}
	return errorf(CodePartial, "%d of %d files have arrived and are still here; the first: %w", failed, len(p.arrived), first)
}

// remove removes a file that is still the one that was sent. The removal of a name
// changes the inode, by its ctime: of files with several, shared has what they are since.
func (f *sourceFile) remove(shared map[[2]uint64]stamp) error {
	fail := func(op string, err error) error {
		return errorf(CodeLocalIO, "removing source: %w", &os.PathError{Op: op, Path: f.path, Err: err})
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return errorf(CodeLocalIO, "removing source: %w", err)
	}
	defer dir.Close()
	fd, name := int(dir.Fd()), filepath.Base(f.path)
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fail("stat", err)
	}
	now, was := stampOf(&st), f.stamp
	id := [2]uint64{was.dev, was.ino}
	if f.linked {
		if s, ok := shared[id]; ok {
			was = s
		}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK && f.entry.Kind != wire.Symlink {
		return errorf(CodeLocalIO, "source %s is a link, and none was sent: it is left alone, and what it leads to", f.path)
	}
	if now != was {
		return errorf(CodeLocalIO, "source %s is not what was sent any more: it is left alone", f.path)
	}
	inode, err := unix.Openat(fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail("open", err)
	}
	defer unix.Close(inode)
	if err := unix.Unlinkat(fd, name, 0); err != nil {
		return fail("unlink", err)
	}
	if err := unix.Fstat(inode, &st); err != nil {
		return fail("stat", err)
	}
	if f.linked {
		was.ctime = st.Ctim
		shared[id] = was
	}
	return nil
}
