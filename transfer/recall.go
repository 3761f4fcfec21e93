package transfer

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/ledger"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// What a Directory remembers of a transfer, in its ledger, and how a transfer that is
// begun again makes use of it.

// ledgerError gives the ledger's errors their codes.
func ledgerError(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ledger.ErrBusy), errors.Is(err, ledger.ErrForeign):
		return errorf(CodeExists, "%s: %w", op, err)
	}
	return errorf(CodeLocalIO, "%s: %w", op, err)
}

// same reports whether a file is the one that the ledger speaks of. Some kernels number
// devices anew at every boot, so the time of birth decides where there is one.
func same(f *os.File, o ledger.Object) bool {
	now, err := ledger.ObjectOf(f)
	if err != nil || now.Ino != o.Ino {
		return false
	}
	if o.BornNS != 0 {
		return now.BornNS == o.BornNS
	}
	return now.Dev == o.Dev
}

// landedBefore gives what is known of what an earlier try finished, gives it what that was not
// asked to, and makes its name durable. Between the ledger's record and the name may lie a
// power cut: then the name is given now.
func (s *staging) landedBefore(e *wire.Entry) (*Finished, error) {
	done, f, named := s.finished(e)
	switch {
	case done == nil:
		return nil, nil
	case e.Kind == wire.Symlink:
		return done, s.touch(e)
	}
	defer f.Close()
	if err := s.complete(f, e); err != nil {
		return nil, err
	}
	if object, err := ledger.ObjectOf(f); err == nil {
		defer s.note(object.Ino) // not before it has its name: it may have one by which it is found
	}
	if named {
		return done, s.syncNames(path.Dir(e.Path))
	}
	if err := s.rename(partName(e, partSuffix), e); err != nil {
		return nil, err
	}
	return done, s.syncDirs(map[string]bool{path.Dir(e.Path): true})
}

// touch gives a symbolic link its time. That changes its inode, so that a sender who is about
// to remove the very same link, a source that is received onto itself, sees that it may not.
func (s *staging) touch(e *wire.Entry) error {
	dir, err := s.d.root.Open(path.Dir(e.Path))
	if err != nil {
		return errorf(CodeLocalIO, "destination: %w", err)
	}
	defer dir.Close()
	return s.setLinkTime(int(dir.Fd()), path.Base(e.Path), e)
}

// complete gives a file that landed before the owner and the attributes that come with its
// entry, unless it has them: the earlier try may have been without.
func (s *staging) complete(f *os.File, e *wire.Entry) error {
	switch {
	case e.Owner == nil && len(e.Attrs) == 0:
		return nil
	case hasAttributes(f, e, &s.who) && s.d.tells:
		return s.syncEarlier()
	case hasAttributes(f, e, &s.who):
		return s.sync(f)
	}
	if len(e.Attrs) > 0 { // its bits may forbid them
		_ = f.Chmod(fs.FileMode(e.Mode&0o777 | 0o200))
	}
	if err := setMeta(int(f.Fd()), e, unknownMode, &s.who); err != nil {
		_ = f.Chmod(fs.FileMode(e.Mode & 0o777))
		return errorf(CodeLocalIO, "setting owner and attributes of %s: %w", s.path(e.Path), err)
	}
	return s.sync(f)
}

// syncEarlier makes durable, once, all that an earlier try set: it may have ended before it
// did. That takes a descriptor of its own: a failed write is told to each once, and Commit
// must hear of it.
func (s *staging) syncEarlier() error {
	if s.d.NoSync {
		return nil
	}
	s.earlier.Do(func() {
		if err := s.d.syncfs(s.top); err != nil {
			s.unsynced = errorf(CodeLocalIO, "syncing the file system of %s: %w", s.path("."), err)
		}
	})
	return s.unsynced
}

// finished gives what is known of a file that an earlier try finished, and the file, which
// the caller closes, and whether it has its name; or of a symbolic link that is there as it
// shall be, without a file.
func (s *staging) finished(e *wire.Entry) (done *Finished, file *os.File, named bool) {
	switch e.Kind {
	case wire.File:
	case wire.Symlink:
		if to, err := s.d.root.Readlink(e.Path); err == nil && to == e.Link {
			return new(Finished), nil, true
		}
		return nil, nil, false
	default:
		return nil, nil, false
	}
	if _, finished := s.ledger.Len(); finished == 0 { // as mostly, and the key costs a SHA-256
		return nil, nil, false
	}
	was, ok := s.ledger.Finished(partKey(e))
	if !ok {
		return nil, nil, false
	}
	done = new(Finished)
	if was.HasDigest {
		sum := Digest(was.Digest)
		done.Digest = &sum
	}
	if f, err := s.d.root.OpenFile(e.Path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0); err == nil {
		if same(f, was.Object) && untouched(f, e) {
			return done, f, true
		}
		f.Close()
	}
	f, err := s.openPart(e, os.O_RDONLY)
	if err != nil {
		return nil, nil, false
	}
	if !same(f, was.Object) || !untouched(f, e) {
		f.Close()
		return nil, nil, false
	}
	return done, f, false
}

// openPart opens a part that is there, to be read, or to be written to though it has the
// bits of its file already.
func (s *staging) openPart(e *wire.Entry, flags int) (*os.File, error) {
	if s.root == nil {
		return nil, fs.ErrNotExist
	}
	name := partName(e, partSuffix)
	open := func() (*os.File, error) {
		return s.root.OpenFile(name, flags|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	}
	f, err := open()
	if errors.Is(err, fs.ErrPermission) && flags&os.O_RDWR != 0 && s.root.Chmod(name, 0o600) == nil {
		f, err = open()
	}
	return f, err
}

// syncNames makes the names durable that an earlier try gave in a directory: it may have
// ended before it did. A tree comes depth first, so that is mostly once a directory.
func (s *staging) syncNames(dir string) error {
	if s.named == dir {
		return nil
	}
	if err := s.syncDirs(map[string]bool{dir: true}); err != nil {
		return err
	}
	s.named = dir
	return nil
}

// untouched reports whether a file still has the size and the time that it landed with:
// whoever wrote to it since changed that.
func untouched(f *os.File, e *wire.Entry) bool {
	st, err := f.Stat()
	return err == nil && st.Size() == e.Size && keptTime(st.ModTime().UnixNano(), e.MTimeNS)
}

// coarse are the units in which file systems keep times that keep no nanoseconds: FAT's,
// NFSv2's and HFS+'s, exFAT's, that of some FUSE file systems, and NTFS's and SMB's.
var coarse = []time.Duration{2 * time.Second, time.Second, 10 * time.Millisecond, time.Microsecond, 100 * time.Nanosecond}

// keptTime reports whether a time that was set, in nanoseconds since 1970, is what a file
// system made of another: it cuts off, or rounds to, what it has no room for.
func keptTime(kept, set int64) bool {
	return kept == set || slices.ContainsFunc(coarse, func(unit time.Duration) bool {
		u := int64(unit)
		return kept%u == 0 && kept-set < u && set-kept < u
	})
}

// Resume opens the part of a file that an earlier try began, if the ledger vouches for
// some of it.
func (s *staging) Resume(e *wire.Entry) (Landing, []Block, error) {
	f, object, blocks := s.begun(e, os.O_RDWR)
	if f == nil {
		return nil, nil, nil
	}
	p := &part{s: s, file: f, name: partName(e, partSuffix), e: *e, mode: unknownMode, object: object}
	p.known.Store(true)
	if e.Sparse { // it may not have been then, and zeroes at its end are left out now
		if err := f.Truncate(e.Size); err != nil {
			f.Close()
			return nil, nil, p.failed("making room for", err)
		}
	}
	return p, blocks, nil
}

// begun opens the part of a file that an earlier try began, and gives what the ledger
// vouches for of it; nil if that is nothing, and the file begins anew.
func (s *staging) begun(e *wire.Entry, flags int) (*os.File, ledger.Object, []Block) {
	known, ok := s.ledger.Part(partKey(e))
	if !ok || len(known.Digests) == 0 {
		return nil, ledger.Object{}, nil
	}
	f, err := s.openPart(e, flags)
	if err != nil {
		return nil, ledger.Object{}, nil // it is gone
	}
	var blocks []Block
	for n, sum := range known.Blocks() {
		if int64(n+1)*blockSize <= e.Size { // the last one may be shorter, and is never in the ledger
			blocks = append(blocks, Block{Number: n, Sum: Digest(sum)})
		}
	}
	if !same(f, known.Object) || len(blocks) == 0 {
		f.Close()
		return nil, ledger.Object{}, nil
	}
	return f, known.Object, blocks
}

// record writes down that files have landed: their contents are durable, their names
// are not given yet.
func (s *staging) record(parts []*part) error {
	if s.d.NoSync || len(parts) == 0 {
		return nil
	}
	s.mu.Lock()
	for _, p := range parts {
		done := ledger.Finished{Object: p.object, HasDigest: p.digest != nil}
		if p.digest != nil {
			done.Digest = *p.digest
		}
		p.recorded = true
		delete(s.pending, p)
		s.ledger.AppendFinished(partKey(&p.e), done)
	}
	s.mu.Unlock()
	if err := s.syncLedger(); err != nil {
		return err
	}
	for _, p := range parts {
		p.known.Store(true)
	}
	return nil
}

// ends is told what to call when the ledger has died.
func (s *staging) ends(end func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = end
}

// syncLedger makes durable what was written down. A ledger that can't be written is dead,
// and no file could be vouched for from then on: the transfer ends.
func (s *staging) syncLedger() error {
	err := ledgerError("ledger", s.ledger.Sync())
	s.mu.Lock()
	end := s.end
	s.mu.Unlock()
	if err != nil && end != nil {
		end(err)
	}
	return err
}

// checkpoint is how often what has landed of large files is made durable and written
// down: what a power cut costs.
const checkpoint = time.Second

// checkpoints runs until the transfer ends.
func (s *staging) checkpoints() {
	tick := time.NewTicker(checkpoint)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			s.checkpoint()
			return
		case <-tick.C:
			s.checkpoint()
		}
	}
}

// checkpoint syncs parts, then writes down which of their blocks are there.
func (s *staging) checkpoint() {
	defer s.endLeft()
	s.mu.Lock()
	pending := s.pending
	s.pending = make(map[*part][]Block)
	s.mu.Unlock()
	if len(pending) == 0 {
		return
	}
	for p, blocks := range pending {
		if p.sync() != nil {
			continue // it remembers that, and fails when it is committed
		}
		s.write(p, blocks)
	}
	_ = s.syncLedger() // which says so to whom it concerns
}

// write tells the ledger of blocks, unless it knows the end of the file already.
func (s *staging) write(p *part, blocks []Block) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.recorded {
		return
	}
	key := partKey(&p.e)
	if !p.known.Swap(true) {
		s.ledger.AppendPart(key, p.object)
	}
	for _, b := range blocks {
		s.ledger.AppendBlock(key, b.Number, b.Sum)
	}
}
