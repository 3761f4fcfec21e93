package transfer

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/ledger"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Directory is the sink that lands files in a directory. A file grows in a part, in a
// hidden directory of its transfer's own, and gets its name only when it is whole and
// durable.
type Directory struct {
	root      *os.Root // every name is looked up below it, whatever a peer says
	overwrite Overwrite
	// NoSync leaves it to the kernel when what landed reaches the disk: a power cut may
	// then lose files that were reported as landed.
	NoSync bool
	// Direct says when files are written past the page cache; empty for never. Small
	// files, and what of a file is no whole block, are written through it.
	Direct Direct
	// KeepCache leaves the page cache as it was: what landed is written to the disk as it
	// comes, and dropped.
	KeepCache bool
	// Readback takes the digest of each file again from its disk before it gets its name.
	Readback bool

	nameless     atomic.Int64 // small files that are open and have no name yet
	mostNameless int64

	tells         bool                 // syncfs does, of what it could not write
	loses         bool                 // an fsync counts for nothing while a file has no name
	fsync, syncfs func(*os.File) error // tests have some that fail
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
	syncfs := func(f *os.File) error { return unix.Syncfs(int(f.Fd())) }
	d := &Directory{root: root, overwrite: o, mostNameless: int64(mostOpen()), fsync: (*os.File).Sync, syncfs: syncfs}
	if top, err := root.Open("."); err == nil {
		d.tells, d.loses = syncfsTells(int(top.Fd())), losesNameless(int(top.Fd()))
		top.Close()
	}
	return d, nil
}

// Describe names the directory.
func (d *Directory) Describe() string { return "into " + d.root.Name() }

// readsBack reports whether nothing may land whose digest nobody knows.
func (d *Directory) readsBack() bool { return d.Readback }

// Durable is what NoSync takes away.
func (d *Directory) Durable() bool { return !d.NoSync }

// Close closes the directory; transfers into it must have ended.
func (d *Directory) Close() error { return d.root.Close() }

// stagingPrefix begins the names of what is rdmaxfer's own in a destination. No entry
// lands under such a name.
const stagingPrefix = ".rdmaxfer-"

// Begin makes the transfer's hidden directory and locks it. One that is there was left
// by a transfer that was interrupted, or is in use: the lock tells.
func (d *Directory) Begin(id [16]byte) (Destination, error) {
	name := stagingPrefix + hex.EncodeToString(id[:])
	if err := d.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, errorf(CodeLocalIO, "destination: %w", err)
	}
	s, err := d.claim(name)
	if err != nil {
		return nil, err // an empty directory may stay: somebody else may have it by now
	}
	if s.ledger, err = ledger.Open(d.root, ledger.Name(id), id); err != nil {
		_ = d.root.Remove(name) // which fails if there is something in it; the lock is held
		s.release()
		return nil, ledgerError("ledger", err)
	}
	s.store.asked, s.store.keep = d.Direct, d.KeepCache
	s.doubt.Store(!d.tells)
	s.begins()
	s.pending = make(map[*part][]Block)
	s.made = make(map[string]bool)
	s.stop = make(chan struct{})
	s.checking.Go(s.checkpoints)
	return s, nil
}

// claim opens a hidden directory and locks it.
func (d *Directory) claim(name string) (*staging, error) {
	// Opening something else could wait for ever, or lead elsewhere.
	if st, err := d.root.Lstat(name); err == nil && !st.IsDir() {
		return nil, errorf(CodeExists, "%s is not a directory that this user made: remove it", d.path(name))
	}
	root, err := d.root.OpenRoot(name)
	if err != nil {
		return nil, errorf(CodeLocalIO, "destination: %w", err)
	}
	dir, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, errorf(CodeLocalIO, "destination: %w", err)
	}
	s := &staging{d: d, name: name, root: root, dir: dir}
	if err := s.claim(); err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

// errBusy is why a hidden directory can't be had: a transfer has it.
var errBusy = errors.New("it is locked")

// claim locks the directory and makes sure that it is this user's own.
func (s *staging) claim() error {
	if err := unix.Flock(int(s.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errorf(CodeExists, "the same files are being received into %s by another rdmaxfer: %w: wait for it", Printable(s.d.root.Name()), errBusy)
		}
		return errorf(CodeLocalIO, "locking %s: %w", s.path(s.name), err)
	}
	var mine, named unix.Stat_t
	err := unix.Fstat(int(s.dir.Fd()), &mine)
	if err == nil && (int(mine.Uid) != os.Geteuid() || mine.Mode&0o077 != 0) {
		return errorf(CodeExists, "%s is not a directory that this user made: remove it", s.path(s.name))
	}
	if err == nil {
		s.top, err = s.d.root.Open(".")
	}
	if err == nil {
		err = unix.Fstatat(int(s.top.Fd()), s.name, &named, unix.AT_SYMLINK_NOFOLLOW)
	}
	// Between opening and locking, another may have finished and removed it.
	if err != nil || mine.Ino != named.Ino || mine.Dev != named.Dev {
		return errorf(CodeExists, "%s was removed or replaced by another program: try again", s.path(s.name))
	}
	return nil
}

// mayLand refuses a destination that exists, as the policy says. It is a courtesy
// that comes early; what decides is the rename.
func (d *Directory) mayLand(e *wire.Entry) error {
	st, err := d.root.Lstat(e.Path)
	if err != nil {
		return d.missing(e, err)
	}
	return d.mayReplace(e, st.Mode(), st.ModTime())
}

// mayLandIn is mayLand for an entry of a directory that is open (fstatat(2)).
func (d *Directory) mayLandIn(dir *os.File, e *wire.Entry) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), path.Base(e.Path), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return d.missing(e, &fs.PathError{Op: "fstatat", Path: e.Path, Err: err})
	}
	mode := fs.ModeIrregular
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		mode = 0
	case unix.S_IFDIR:
		mode = fs.ModeDir
	}
	return d.mayReplace(e, mode, time.Unix(st.Mtim.Unix()))
}

// missing is what mayLand makes of a name that can't be looked at: mostly there is none.
func (d *Directory) missing(e *wire.Entry, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return errorf(CodeExists, "%s: what should be its directory is none: move that away", d.path(e.Path))
	}
	return errorf(CodeLocalIO, "destination: %w", err)
}

// mayReplace is what mayLand makes of what is there, of a type and with a time.
func (d *Directory) mayReplace(e *wire.Entry, mode fs.FileMode, mtime time.Time) error {
	switch {
	case e.Kind == wire.Dir && mode.IsDir():
		return nil
	case e.Kind == wire.Dir:
		return errorf(CodeExists, "%s exists and is not a directory: move it away", d.path(e.Path))
	case !mode.IsRegular():
		return errorf(CodeExists, "%s exists and is not a regular file: move it away", d.path(e.Path))
	case !d.overwrite.replaces(mtime, time.Unix(0, e.MTimeNS)):
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

// inside reports whether a symbolic link in the directory dir points to something
// below the root. After the first element that is not "..", another symbolic link may
// stand in the way, so there is no going up any more.
func inside(dir, link string) bool {
	to := path.Join(dir, link)
	if path.IsAbs(link) || to == ".." || strings.HasPrefix(to, "../") {
		return false
	}
	down := false
	for e := range strings.SplitSeq(link, "/") {
		if e == ".." && down {
			return false
		}
		down = down || e != ".." && e != "." && e != ""
	}
	return true
}
