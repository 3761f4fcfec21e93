package transfer

import (
	"cmp"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// removeSources removes what has arrived. It is done when all is over: a directory that
// is being listed may hide names when others go.
func (p *push) removeSources() error {
	var first error
	failed := 0
	for _, f := range p.arrived {
		if link := f.entry.Kind == wire.HardLink || f.entry.Kind == wire.Symlink; link && p.failures.n > 0 {
			continue // it is durable with its directory, which may be what failed
		}
		if err := f.remove(); err != nil {
			failed++
			first = cmp.Or(first, err)
		}
	}
	if failed == 0 {
		return nil
	}
	return errorf(CodePartial, "%d of %d files have arrived and are still here; the first: %w", failed, len(p.arrived), first)
}

// remove removes a file that is still the one that was sent.
func (f *sourceFile) remove() error {
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
	if f.linked {
		now.ctime = was.ctime // the removal of another name counts as a change
	}
	if now != was {
		return errorf(CodeLocalIO, "source %s is not what was sent any more: it is left alone", f.path)
	}
	if err := unix.Unlinkat(fd, name, 0); err != nil {
		return fail("unlink", err)
	}
	return nil
}
