package transfer

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Directory is the sink that lands files in a directory. A file grows in a part
// beside its destination and gets its name only when it is whole and durable.
type Directory struct {
	root      *os.Root // every name is looked up below it, whatever a peer says
	dir       *os.File // the same directory, for renameat2 and fsync
	overwrite Overwrite
}

// OpenDirectory makes a sink of a directory that exists and is writable.
func OpenDirectory(path string, o Overwrite) (*Directory, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, errorf(CodeLocalIO, "destination: %w (make it first: mkdir -p %s)", err, path)
	}
	if err := unix.Access(path, unix.W_OK|unix.X_OK); err != nil {
		root.Close()
		return nil, errorf(CodeLocalIO, "destination %s is not writable: %w (chown or chmod it, or choose another with --into)", path, err)
	}
	dir, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, errorf(CodeLocalIO, "destination: %w", err)
	}
	return &Directory{root: root, dir: dir, overwrite: o}, nil
}

// Describe names the directory.
func (d *Directory) Describe() string { return "into " + d.root.Name() }

// Close closes the directory; landings that are under way must have ended.
func (d *Directory) Close() error {
	return errors.Join(d.dir.Close(), d.root.Close())
}

// part is one file on its way into a Directory.
type part struct {
	dir  *Directory
	file *os.File
	name string // of the part
	e    wire.Entry
}

// partName is of fixed length, so that long legal names fit, and the same for the
// same file, so that what a killed receiver left is found and used again.
func partName(e *wire.Entry) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%d", e.Path, e.Size, e.MTimeNS))
	return partPrefix + hex.EncodeToString(h[:12]) + partSuffix
}

const (
	partPrefix = ".rdmaxfer-"
	partSuffix = ".part"
)

// isPart tells names that no file may land as: it would take the place of another
// file's part.
func isPart(name string) bool {
	return strings.HasPrefix(name, partPrefix) && strings.HasSuffix(name, partSuffix)
}

// Create checks the destination, the free space, and opens the part.
func (d *Directory) Create(e *wire.Entry) (Landing, error) {
	if strings.Contains(e.Path, "/") {
		return nil, errorf(CodeUsage, "%s: directories are not received yet", Printable(e.Path))
	}
	if isPart(e.Path) {
		return nil, errorf(CodeUsage, "%s: such a name is for parts of files alone", Printable(e.Path))
	}
	if err := d.mayLand(e); err != nil {
		return nil, err
	}
	name := partName(e)
	f, err := d.openPart(name)
	if err != nil {
		return nil, err
	}
	p := &part{dir: d, file: f, name: name, e: *e}
	if err := p.checkSpace(); err != nil {
		p.Abort()
		return nil, err
	}
	return p, nil
}

// mayLand refuses a destination that exists, as the policy says. It is a courtesy
// that comes early; what decides is the rename.
func (d *Directory) mayLand(e *wire.Entry) error {
	st, err := d.root.Lstat(e.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return errorf(CodeLocalIO, "destination: %w", err)
	case !st.Mode().IsRegular():
		return errorf(CodeExists, "%s exists and is not a regular file: move it away", d.path(e.Path))
	case !d.overwrite.replaces(st.ModTime(), time.Unix(0, e.MTimeNS)):
		return d.exists(e.Path)
	}
	return nil
}

func (d *Directory) exists(name string) error {
	why := "remove it, or receive with --overwrite newer or always"
	if d.overwrite == OverwriteNewer {
		why = "and is not older than the source; remove it, or receive with --overwrite always"
	}
	return errorf(CodeExists, "%s exists: %s", d.path(name), why)
}

func (d *Directory) path(name string) string {
	return Printable(filepath.Join(d.root.Name(), name))
}

// openPart opens and locks the part. One that is there already was left by a
// receiver that was killed, or is in use by one that lives: the lock tells.
func (d *Directory) openPart(name string) (*os.File, error) {
	const flags = os.O_RDWR | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	f, err := d.root.OpenFile(name, flags|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		f, err = d.root.OpenFile(name, flags, 0)
	}
	if err != nil {
		return nil, errorf(CodeLocalIO, "part file: %w (is %s writable?)", err, d.root.Name())
	}
	if err := d.claim(f, name); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// claim locks a part and empties it.
func (d *Directory) claim(f *os.File, name string) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errorf(CodeExists, "%s is being received by another rdmaxfer: wait for it", d.path(name))
		}
		return errorf(CodeLocalIO, "locking %s: %w", d.path(name), err)
	}
	// Between opening and locking, another may have locked, and renamed or removed it.
	st, err := d.owns(f, name)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || int(st.Uid) != os.Geteuid() {
		return errorf(CodeExists, "%s is not a part that this user made: remove it", d.path(name))
	}
	if err := f.Truncate(0); err != nil {
		return errorf(CodeLocalIO, "part file: %w", err)
	}
	return nil
}

// owns checks that a part's name is still that of its file.
func (d *Directory) owns(f *os.File, name string) (mine unix.Stat_t, err error) {
	var named unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &mine); err != nil {
		return mine, errorf(CodeLocalIO, "part file: %w", err)
	}
	err = unix.Fstatat(int(d.dir.Fd()), name, &named, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || mine.Ino != named.Ino || mine.Dev != named.Dev {
		return mine, errorf(CodeExists, "%s was finished, removed or replaced by another program", d.path(name))
	}
	return mine, nil
}

// checkSpace says at once what would otherwise be found out when the disk is full.
func (p *part) checkSpace() error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(p.file.Fd()), &st); err != nil {
		return errorf(CodeLocalIO, "destination: %w", err)
	}
	if free := int64(st.Bavail) * st.Bsize; st.Blocks > 0 && free < p.e.Size {
		return errorf(CodeLocalIO, "%s needs %d bytes and %s has %d free: make room, or choose another directory with --into: %w",
			Printable(p.e.Path), p.e.Size, p.dir.root.Name(), free, syscall.ENOSPC)
	}
	return nil
}

// WriteAt writes at an offset; it never shares a file position.
func (p *part) WriteAt(b []byte, off int64) (int, error) {
	n, err := p.file.WriteAt(b, off)
	if err != nil {
		mend := ""
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			mend = ": make room, or choose another directory with --into"
		}
		err = errorf(CodeLocalIO, "writing %s: %w%s", p.dir.path(p.e.Path), err, mend)
	}
	return n, err
}

// Commit sets mode and times, syncs the file, renames it, and
// syncs the directory: after it the file has its name for good.
func (p *part) Commit() error {
	if err := p.finish(); err != nil {
		p.Abort()
		return err
	}
	// The file has its name now: nothing below may take it away again.
	defer p.file.Close()
	if err := p.dir.dir.Sync(); err != nil {
		return errorf(CodeLocalIO, "syncing the directory of %s: %w", p.dir.path(p.e.Path), err)
	}
	return nil
}

// finish does what must succeed before, and with, the file's getting its name.
func (p *part) finish() error {
	fail := func(op string, err error) error {
		return errorf(CodeLocalIO, "%s %s: %w", op, p.dir.path(p.e.Path), err)
	}
	if err := p.file.Chmod(fs.FileMode(p.e.Mode & 0o777)); err != nil { // setuid and setgid are dropped
		return fail("setting the mode of", err)
	}
	if err := p.setTimes(); err != nil {
		return fail("setting the times of", err)
	}
	if err := p.file.Sync(); err != nil {
		return fail("syncing", err)
	}
	if _, err := p.dir.owns(p.file, p.name); err != nil {
		return err
	}
	return p.rename()
}

// setTimes is futimens(3), which Go does not have: utimensat(2) without a path.
func (p *part) setTimes() error {
	mtime := unix.NsecToTimespec(p.e.MTimeNS)
	both := [2]unix.Timespec{mtime, mtime}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, p.file.Fd(), 0, uintptr(unsafe.Pointer(&both)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func (p *part) rename() error {
	fd := int(p.dir.dir.Fd())
	var err error
	switch p.dir.overwrite {
	case OverwriteNever:
		err = unix.Renameat2(fd, p.name, fd, p.e.Path, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // some network file systems
			if err = p.dir.root.Link(p.name, p.e.Path); err == nil {
				err = p.dir.root.Remove(p.name)
			}
		}
	default:
		if err := p.dir.mayLand(&p.e); err != nil {
			return err
		}
		err = unix.Renameat(fd, p.name, fd, p.e.Path)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return p.dir.exists(p.e.Path)
	case err != nil:
		return errorf(CodeLocalIO, "renaming the part to %s: %w", p.dir.path(p.e.Path), err)
	}
	return nil
}

// Abort removes the part while it still holds the lock on it.
func (p *part) Abort() {
	if _, err := p.dir.owns(p.file, p.name); err == nil { // else it is another's
		_ = p.dir.root.Remove(p.name)
	}
	p.file.Close()
}
