package transfer

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/ledger"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// staging is a transfer's place in a Directory: the hidden directory in which its
// parts grow, locked as long as the transfer lasts.
type staging struct {
	d    *Directory
	name string
	root *os.Root // nil in a dry run, when there is none
	dir  *os.File // the same directory: its lock, its descriptor for renameat2 and fsync
	top  *os.File // the destination; nil where no hidden directory is

	store    storage
	ledger   *ledger.Ledger
	checking sync.WaitGroup
	stop     chan struct{} // ends it
	ending   sync.Mutex    // held while parts that were left are ended, or replaced
	mu       sync.Mutex
	pending  map[*part][]Block // that landed, and are not in the ledger
	left     []*part           // that shall be kept
	end      func(error)       // ends the transfer
	made     map[string]bool   // directories that are new and not finished: nothing else is there
	named    string            // directory of which syncNames was the last; Check's alone
	at       openDir           // where Check looked last
	nameless nameless
	doubt    atomic.Bool // syncfs does not tell, or has failed and does not tell of that again
	earlier  sync.Once   // syncEarlier's
	unsynced error       // what came of it
	who      accounts
	began    int64               // when this batch did, where names are folded: by the file system's clock, nanoseconds; else 0
	mine     map[uint64]struct{} // where they are: inodes that landed in this batch and may be older
}

func (s *staging) path(name string) string { return s.d.path(name) }

// Storage says how files were written so far.
func (s *staging) Storage() Storage { return s.store.Storage() }

func (s *staging) release() {
	s.at.close()
	s.dir.Close()
	if s.top != nil {
		s.top.Close()
	}
	if s.root != nil {
		s.root.Close()
	}
}

// Close removes the hidden directory and the ledger, unless they hold what shall be
// kept.
func (s *staging) Close(keep bool) error {
	defer s.release()
	close(s.stop)
	s.checking.Wait()
	s.endLeft()
	end := s.ledger.Remove
	if parts, finished := s.ledger.Len(); keep && parts+finished > 0 {
		end = s.ledger.Close
	}
	if err := ledgerError("closing the ledger", end()); err != nil {
		return err
	}
	if !keep {
		if err := s.d.root.RemoveAll(s.name); err != nil {
			return errorf(CodeLocalIO, "removing %s: %w", s.path(s.name), err)
		}
		return nil
	}
	err := s.d.root.Remove(s.name)
	if err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
		return errorf(CodeLocalIO, "removing %s: %w", s.path(s.name), err)
	}
	return nil
}

// Check refuses names that are rdmaxfer's own, and what exists.
func (s *staging) Check(e *wire.Entry) (*Finished, error) {
	if err := mayBe(e); err != nil {
		return nil, err
	}
	if done, err := s.landedBefore(e); done != nil || err != nil {
		return done, err
	}
	if err := s.mayLand(e); err != nil {
		return nil, err
	}
	return nil, s.fits(e, 0)
}

// mayLand is [Directory.mayLand] for entries that come one directory after the other: in a
// new one nothing is looked for, and any other stays open.
func (s *staging) mayLand(e *wire.Entry) error {
	parent := path.Dir(e.Path)
	s.mu.Lock()
	made := s.made[parent]
	s.mu.Unlock()
	if made {
		return nil
	}
	if s.at.dir == nil || s.at.path != parent {
		s.at.close()
		dir, err := s.d.root.Open(parent)
		if err != nil {
			return s.d.mayLand(e) // which says why
		}
		s.at = openDir{parent, dir}
	}
	return s.d.mayLandIn(s.at.dir, e)
}

// openDir is a directory that is open.
type openDir struct {
	path string
	dir  *os.File
}

func (p *openDir) close() {
	if p.dir != nil {
		p.dir.Close()
		p.dir = nil
	}
}

// mayBe refuses what lands in no directory, whatever is there.
func mayBe(e *wire.Entry) error {
	switch {
	case reserved(e.Path), e.Kind == wire.HardLink && reserved(e.Link):
		return errorf(CodeUsage, "%s: names that begin so are for files on their way alone", Printable(e.Path))
	case e.Kind == wire.Symlink && !inside(path.Dir(e.Path), e.Link):
		return errorf(CodeUsage, "%s links to %s, which is outside of what is sent: it is not made", Printable(e.Path), Printable(e.Link))
	}
	return nil
}

// Mkdir makes a directory that is private until Finish. One that is there is used, and may
// be written to by its owner until then: an earlier try may have finished it without a file
// that failed.
func (s *staging) Mkdir(e *wire.Entry) error {
	err := s.d.root.Mkdir(e.Path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		st, err := s.d.root.Lstat(e.Path)
		switch {
		case err == nil && !st.IsDir():
			return s.d.mayReplace(e, st.Mode(), st.ModTime())
		case err == nil && st.Mode()&0o700 != 0o700:
			_ = s.d.root.Chmod(e.Path, st.Mode()|0o700) // who may not hears of it when something is to land
		}
		return nil
	}
	if err != nil {
		return errorf(CodeLocalIO, "making a directory: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made[e.Path] = true
	return nil
}

// Finish gives a directory its mode and times.
func (s *staging) Finish(e *wire.Entry) error {
	s.mu.Lock()
	delete(s.made, e.Path)
	s.mu.Unlock()
	dir, err := s.d.root.Open(e.Path)
	if err != nil {
		return errorf(CodeLocalIO, "destination: %w", err)
	}
	defer dir.Close()
	if err = setMeta(int(dir.Fd()), e, unknownMode, &s.who); err != nil {
		err = errorf(CodeLocalIO, "setting mode and times of %s: %w", s.path(e.Path), err)
	}
	// It has a name in any case, and files in it have receipts.
	return cmp.Or(err, s.sync(dir), s.syncDirs(map[string]bool{path.Dir(e.Path): true}))
}

// Symlink makes a link. It replaces nothing but another link or a file that may be.
func (s *staging) Symlink(e *wire.Entry) error {
	name := partName(e, ".link")
	_ = s.root.Remove(name) // of an interrupted transfer
	if err := s.root.Symlink(e.Link, name); err != nil {
		var named *os.LinkError
		if errors.As(err, &named) {
			err = named.Err // what it would print is the peer's
		}
		return errorf(CodeLocalIO, "making %s a symbolic link to %s: %w", s.path(e.Path), Printable(e.Link), err)
	}
	err := s.setLinkTime(int(s.dir.Fd()), name, e)
	if err == nil {
		err = s.rename(name, e)
	}
	if err != nil {
		_ = s.root.Remove(name)
	}
	return err
}

// setLinkTime gives a symbolic link, which has a name in a directory, the time of its entry.
func (s *staging) setLinkTime(dir int, name string, e *wire.Entry) error {
	mtime := unix.NsecToTimespec(e.MTimeNS)
	if err := unix.UtimesNanoAt(dir, name, []unix.Timespec{mtime, mtime}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return errorf(CodeLocalIO, "setting the times of %s: %w", s.path(e.Path), err)
	}
	return nil
}

// HardLink gives what landed under another name this one too, unless it has it.
func (s *staging) HardLink(e *wire.Entry) error {
	if err := mayBe(e); err != nil {
		return err
	}
	first, err := s.d.root.Lstat(e.Link)
	if err != nil || !first.Mode().IsRegular() {
		return errorf(CodeExists, "%s, whose other name is %s, was moved away or replaced: send again", s.path(e.Link), Printable(e.Path))
	}
	if there, err := s.d.root.Lstat(e.Path); err == nil && os.SameFile(first, there) {
		return nil
	}
	name := partName(e, ".link")
	_ = s.root.Remove(name) // of an interrupted transfer
	if err := s.d.root.Link(e.Link, s.name+"/"+name); err != nil {
		return errorf(CodeLocalIO, "giving a file another name: %w", err)
	}
	if err := s.rename(name, e); err != nil {
		_ = s.root.Remove(name)
		return err
	}
	// Every other directory is synced when it is finished.
	if path.Dir(e.Path) == "." {
		return s.syncDirs(map[string]bool{".": true})
	}
	return nil
}

// Commit makes the files durable, gives them their names, and makes those durable.
// Everything between is done for all of them at a time: a small file does not wait for
// a disk of its own.
func (s *staging) Commit(list []Whole) []error {
	errs := make([]error, len(list))
	parts := make([]*part, len(list))
	for i, w := range list {
		parts[i] = w.Landing.(*part)
		parts[i].digest = w.Digest
		errs[i] = parts[i].finish()
	}
	alone := s.syncParts(parts, errs)
	if len(list) > 0 {
		s.settled(parts, errs, list[0].Kind)
	}
	s.each(parts, errs, s.record)
	dirs := s.callAll(parts, errs, alone && s.d.loses)
	// The files have their names: nothing takes them away again.
	spread(errs, s.syncDirs(dirs))
	return errs
}

// callAll gives parts that have not failed their names, and ends all of them. Each
// directory is looked up once for all that lands in it. again has those synced once more that
// had no name before. It gives the directories in which something landed.
func (s *staging) callAll(parts []*part, errs []error, again bool) map[string]bool {
	in := make(map[string][]int)
	for i, p := range parts {
		if errs[i] != nil {
			p.giveUp(errs[i])
			continue
		}
		dir := path.Dir(p.e.Path)
		in[dir] = append(in[dir], i)
	}
	dirs := make(map[string]bool)
	for name, list := range in {
		dir, err := s.d.root.Open(name)
		if err == nil && !again {
			if left := s.callTogether(parts, list, dir); len(left) < len(list) {
				dirs[name], list = true, left
			}
		}
		for _, i := range list {
			p := parts[i]
			if err != nil {
				errs[i] = errorf(CodeLocalIO, "destination: %w", err)
			} else if errs[i] = s.closeUnsynced(p); errs[i] == nil {
				errs[i] = s.call(p, dir)
			}
			if errs[i] != nil {
				p.giveUp(errs[i])
				continue
			}
			if again && p.name == "" {
				errs[i] = p.sync()
			}
			s.note(p.object.Ino)
			p.over()
			dirs[name] = true
		}
		if err == nil {
			dir.Close()
		}
	}
	return dirs
}

// closeUnsynced closes a part that no sync tells of: some file systems say only then that they
// could not keep it.
func (s *staging) closeUnsynced(p *part) error {
	if !s.d.NoSync || p.name == "" {
		return nil
	}
	p.close()
	return p.lost()
}

// each runs one operation for the parts that have not failed.
func (s *staging) each(parts []*part, errs []error, op func([]*part) error) {
	var good []*part
	for i, p := range parts {
		if errs[i] == nil {
			good = append(good, p)
		}
	}
	spread(errs, op(good))
}

// spread gives an error to all that have none yet.
func spread(errs []error, err error) {
	for i := range errs {
		if errs[i] == nil {
			errs[i] = err
		}
	}
}

// rename gives what lies in the hidden directory its name.
func (s *staging) rename(name string, e *wire.Entry) error {
	dir, err := s.d.root.Open(path.Dir(e.Path))
	if err != nil {
		return errorf(CodeLocalIO, "destination: %w", err)
	}
	defer dir.Close()
	return s.renameIn(dir, name, e)
}

// renameIn is rename into a directory that is open.
func (s *staging) renameIn(dir *os.File, name string, e *wire.Entry) (err error) {
	from, to, base := int(s.dir.Fd()), int(dir.Fd()), path.Base(e.Path)
	switch s.d.overwrite {
	case OverwriteNever:
		err = unix.Renameat2(from, name, to, base, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // some network file systems
			if err = unix.Linkat(from, name, to, base, 0); err == nil {
				err = s.root.Remove(name)
			}
		}
	default:
		if err := s.d.mayLandIn(dir, e); err != nil {
			return err
		}
		if s.began != 0 && (bornAt(to, base) > s.began || s.isMine(to, base)) {
			return errorf(CodeExists, "%s has come since this transfer began: this file system takes names for the same that differ in case; send one of them under another name", s.path(e.Path))
		}
		err = unix.Renameat(from, name, to, base)
	}
	return s.renamed(e, err)
}

// renamed says what came of giving an entry its name.
func (s *staging) renamed(e *wire.Entry, err error) error {
	switch {
	case errors.Is(err, fs.ErrExist):
		return s.d.exists(e.Path)
	case errors.Is(err, unix.EXDEV):
		return errorf(CodeLocalIO, "%s is on another file system than %s: receive into that one (--into)", s.path(path.Dir(e.Path)), s.path("."))
	case err != nil:
		return errorf(CodeLocalIO, "renaming the part to %s: %w", s.path(e.Path), err)
	}
	return nil
}

// partKey is the same for the same version of the same file alone.
func partKey(e *wire.Entry) (k ledger.Key) {
	h := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%d\x00%d", e.Path, e.Size, e.MTimeNS, e.Version))
	copy(k[:], h[:])
	return k
}

func partName(e *wire.Entry, suffix string) string {
	k := partKey(e)
	return hex.EncodeToString(k[:]) + suffix
}

// unknownMode is what a file is said to have whose permission bits have to be set.
const unknownMode = ^uint32(0)

// setMeta sets whose a file is, the permission bits (setuid and setgid are dropped, and a
// directory keeps the setgid and the sticky bit that it has), unless they are what it has,
// attributes and times. A user's attributes come before the bits that may forbid them, and
// lists after those, which change them.
func setMeta(fd int, e *wire.Entry, has uint32, who *accounts) error {
	if err := setOwner(fd, e.Owner, who); err != nil {
		return fmt.Errorf("owner: %w (receive as root, or send without --owner)", err)
	}
	if err := setAttrs(fd, e.Attrs, false); err != nil {
		return err
	}
	mode := e.Mode & 0o777
	if e.Kind == wire.Dir { // what is made in it later has its group, and is safe from others
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		mode |= st.Mode & (unix.S_ISGID | unix.S_ISVTX)
	}
	if mode != has {
		if err := unix.Fchmod(fd, mode); err != nil {
			return err
		}
	}
	if err := setAttrs(fd, e.Attrs, true); err != nil {
		return err
	}
	if e.Kind == wire.Stream && e.MTimeNS == 0 {
		return nil
	}
	// futimens(3), which Go does not have: utimensat(2) without a path.
	mtime := unix.NsecToTimespec(e.MTimeNS)
	both := [2]unix.Timespec{mtime, mtime}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&both)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
