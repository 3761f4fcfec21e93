package transfer

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/ledger"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// part is one file on its way into a Directory.
type part struct {
	s      *staging
	name   string // in the hidden directory; "" for a small file that has none yet
	e      wire.Entry
	mode   uint32        // permission bits of the file, or unknownMode
	object ledger.Object // which file the part is
	digest *Digest       // when it is whole
	known  atomic.Bool   // the ledger has it

	syncing sync.Mutex // of one at a time: a failed write is told once, to whoever asks first

	recorded bool // the ledger knows that it was finished, or given up; s.mu guards it

	mu     sync.Mutex
	file   *os.File    // nil when a small file was written whole and has a name in the hidden directory, or is bare
	bare   int         // descriptor of a file without a name until somebody wants more of it than its name; else 0
	set    bool        // mode and times are, and nothing was written since
	direct *directFile // the same, past the page cache; nil when there is none, or none yet
	tried  bool        // to open that
	done   bool        // it has its name, or is gone
	bad    error       // a sync failed: what was written may be lost
	behind behind
}

const partSuffix = ".part"

// Create makes the part. One that is there was left by a transfer that was interrupted, and
// goes: its owner and bits may be its file's already, which forbid to open it. The directory
// is the program's own.
func (s *staging) Create(e *wire.Entry) (Landing, error) {
	key := partKey(e)
	_, begun := s.ledger.Part(key)
	_, done := s.ledger.Finished(key)
	if begun || done { // what it knows of this file ends here
		s.ledger.AppendForget(key)
		if err := s.syncLedger(); err != nil {
			return nil, err
		}
	}
	name := partName(e, partSuffix)
	f, err := s.createPart(name)
	if errors.Is(err, fs.ErrExist) {
		f, err = s.replacePart(name)
	}
	if err != nil {
		return nil, errorf(CodeLocalIO, "part file: %w (is %s writable?)", err, s.path("."))
	}
	p := &part{s: s, file: f, name: name, e: *e, mode: unknownMode}
	if e.Sparse {
		err = f.Truncate(e.Size)
	}
	if err == nil {
		p.object, err = ledger.ObjectOf(f)
	}
	if err != nil {
		p.Abort()
		return nil, p.failed("making room for", err)
	}
	return p, nil
}

func (s *staging) createPart(name string) (*os.File, error) {
	return s.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// fits says at once what would otherwise be found out when the disk is full. What an
// interrupted transfer left of the file takes room that is the file's already; taken is
// what else will be gone by then, bytes.
func (s *staging) fits(e *wire.Entry, taken int64) error {
	if e.Size <= maxPacked || e.Sparse {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(s.dir.Fd()), &st); err != nil {
		return errorf(CodeLocalIO, "destination: %w", err)
	}
	free := max(int64(st.Bavail)*int64(st.Bsize)-taken, 0)
	var old unix.Stat_t
	if s.root != nil && unix.Fstatat(int(s.dir.Fd()), partName(e, partSuffix), &old, unix.AT_SYMLINK_NOFOLLOW) == nil {
		free += old.Blocks * 512
	}
	if st.Blocks > 0 && free < e.Size {
		also := ""
		if s.root != nil && s.ledger != nil {
			if parts, _ := s.ledger.Len(); parts > 0 { // of files that are others by now, maybe
				also = ", give up what interrupted transfers left (recv --clean)"
			}
		}
		return errorf(CodeLocalIO, "%s needs %d bytes and %s has %d free: make room%s, or choose another directory with --into: %w",
			Printable(e.Path), e.Size, s.path("."), free, also, syscall.ENOSPC)
	}
	return nil
}

func (p *part) failed(op string, err error) error {
	mend := ""
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		mend = ": make room, or choose another directory with --into"
	}
	return errorf(CodeLocalIO, "%s %s: %w%s", op, p.s.path(p.e.Path), err, mend)
}

// WriteAt writes at an offset; it never shares a file position. What a file with holes
// has of zeroes is left out. A small file that is whole is finished, and closed if it can
// be opened again: many may wait for their names. In doubt only its own descriptor tells
// what comes of it.
func (p *part) WriteAt(b []byte, off int64) (n int, err error) {
	file, err := p.open()
	switch {
	case err != nil:
		return 0, p.failed("writing", err)
	case file == nil:
		return len(b), nil // nobody wants it any more
	}
	if p.e.Sparse {
		n, err = p.writeSparse(file, b, off)
	} else {
		n, err = p.write(file, b, off)
	}
	if err != nil {
		return n, p.failed("writing", err)
	}
	if p.e.Kind == wire.File && int64(n) == p.e.Size && n <= maxPacked {
		if err := p.finish(); err != nil {
			return n, err
		}
		if p.name != "" && p.e.Mode&0o400 != 0 && !p.s.doubt.Load() {
			p.close()
		}
	}
	return n, nil
}

// open gives the part's file, to be written to: a small one that was written whole comes
// again when it arrived damaged. nil when the part has its name, or is gone.
func (p *part) open() (_ *os.File, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set = false
	if p.opened() == nil && !p.done {
		p.file, err = p.s.openPart(&p.e, os.O_RDWR)
	}
	return p.file, err
}

// opened gives the part's file, nil when it is closed, for who holds the lock.
func (p *part) opened() *os.File {
	if p.bare != 0 {
		p.file, p.bare = os.NewFile(uintptr(p.bare), p.e.Path), 0
	}
	return p.file
}

// descriptor gives the same, 0 when it is closed: what has no name by now needs no *os.File,
// which costs a small file a system call and a finalizer.
func (p *part) descriptor() int {
	if p.file != nil {
		return int(p.file.Fd())
	}
	return p.bare
}

// hole is the unit in which a file's zeroes are looked for, bytes: a page, of which
// file systems make holes.
const hole = 4096

// writeSparse writes what is not zero, and makes holes of the rest: what lay there may
// have arrived damaged before. The file has its length.
func (p *part) writeSparse(f *os.File, b []byte, off int64) (int, error) {
	for at := 0; at < len(b); {
		empty := zero(b[at:page(b, off, at)])
		end := at
		for end < len(b) && zero(b[end:page(b, off, end)]) == empty {
			end = page(b, off, end)
		}
		if !empty || punch(f, off+int64(at), int64(end-at)) != nil {
			if n, err := p.write(f, b[at:end], off+int64(at)); err != nil {
				return at + n, err
			}
		}
		at = end
	}
	return len(b), nil
}

// page is the end of the page in b that begins at at.
func page(b []byte, off int64, at int) int {
	return min(at+hole-int(off+int64(at))%hole, len(b))
}

// punch makes a hole of a range (fallocate(2)); some file systems can't. A part that is given
// up meanwhile is closed, and its descriptor may be another file's.
func punch(f *os.File, off, n int64) error {
	return control(f, func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
}

var zeroes [hole]byte

func zero(b []byte) bool { return string(b) == string(zeroes[:len(b)]) }

// finish sets mode and times, unless they are, of a file that has its length. One without a
// name was written at one go.
func (p *part) finish() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	fd := p.descriptor()
	if fd == 0 || p.set {
		return nil
	}
	if p.e.Kind == wire.File && p.name != "" {
		st, err := p.file.Stat()
		if err != nil {
			return p.failed("looking at", err)
		}
		if st.Size() != p.e.Size {
			return errorf(CodeIntegrity, "%s has %d bytes and not %d when everything has landed: another program changed its part (send it again)",
				p.s.path(p.e.Path), st.Size(), p.e.Size)
		}
	}
	if err := setMeta(fd, &p.e, p.mode, &p.s.who); err != nil {
		return p.failed("setting mode and times of", err)
	}
	p.set = true
	return nil
}

// takeBare ends a part that has no name yet, and leaves its descriptor to the caller; 0 if it
// has a name, or an *os.File.
func (p *part) takeBare() (fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bare != 0 {
		fd, p.bare, p.done = p.bare, 0, true
	}
	return fd
}

// giveBare takes that back.
func (p *part) giveBare(fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bare, p.done = fd, false
}

// closed reports whether a part has to be opened again.
func (p *part) closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.descriptor() == 0
}

// close may hear that what was written is lost, of a network's file system (close(2)).
func (p *part) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.closeFile(); err != nil && p.bad == nil {
		p.bad = p.failed("closing", err)
	}
}

// closeFile is close, for who holds the lock.
func (p *part) closeFile() (err error) {
	if p.name == "" && p.descriptor() != 0 {
		p.s.d.nameless.Add(-1)
	}
	if p.bare != 0 {
		unix.Close(p.bare)
		p.bare = 0
	}
	if p.file != nil {
		err = p.file.Close()
		p.file = nil
	}
	p.direct.close()
	p.direct = nil
	p.behind.close()
	return err
}

// Verified leaves it to the next checkpoint to write down that a block has landed.
func (p *part) Verified(block uint32, sum Digest) {
	if p.e.Kind != wire.File || p.e.Size <= blockSize || p.s.d.NoSync {
		return // it begins anew
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.pending[p] = append(p.s.pending[p], Block{Number: block, Sum: sum})
}

// errDoubt is why a part that was closed is not vouched for: it may be what syncfs failed
// of, and a new descriptor does not hear of what failed before it for sure.
var errDoubt = errors.New("its file system failed to write something, and does not say again what: send it again")

// sync makes the content durable. Once that has failed it fails for ever: the kernel
// may take pages for clean that it could not write.
func (p *part) sync() error {
	p.syncing.Lock()
	defer p.syncing.Unlock()
	p.mu.Lock()
	file, bad := p.opened(), p.bad
	if p.done || bad != nil {
		p.mu.Unlock()
		return bad
	}
	p.mu.Unlock()
	// Without the lock: whoever writes does not wait for the disk.
	err := errDoubt
	if file == nil && !p.s.doubt.Load() {
		if file, err = p.s.root.OpenFile(p.name, os.O_RDONLY|syscall.O_NOFOLLOW, 0); err != nil {
			return p.failed("syncing", err)
		}
		defer file.Close()
	}
	if file != nil {
		err = p.s.d.fsync(file)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil && !p.done {
		p.bad = p.failed("syncing", err)
	}
	return p.bad
}

// lost is the error of an earlier sync.
func (p *part) lost() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bad
}

// over closes a part that has its name, or needs none any more.
func (p *part) over() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
	p.behind.mu.Lock()
	p.behind.over = true
	p.behind.mu.Unlock()
	_ = p.closeFile()
}

// Abort removes the part.
func (p *part) Abort() {
	if p.name != "" {
		_ = p.s.root.Remove(p.name)
	}
	p.s.mu.Lock()
	delete(p.s.pending, p)
	p.recorded = true
	if p.known.Load() {
		p.s.ledger.AppendForget(partKey(&p.e))
	}
	p.s.mu.Unlock()
	p.over()
}

// Leave keeps the part. It is closed when what has landed of it was written down.
func (p *part) Leave() {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.left = append(p.s.left, p)
}

// replacePart is createPart where there is one, which may have been left in this very session.
func (s *staging) replacePart(name string) (*os.File, error) {
	s.ending.Lock() // who removes that one has done so, or does it never
	defer s.ending.Unlock()
	s.mu.Lock()
	var was []*part
	s.left = slices.DeleteFunc(s.left, func(p *part) bool {
		if p.name != name {
			return false
		}
		was = append(was, p)
		delete(s.pending, p)
		p.recorded = true
		return true
	})
	s.mu.Unlock()
	for _, p := range was {
		p.over()
	}
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return s.createPart(name)
}

// endLeft ends the parts that were left and of which nothing is to be written down any more.
func (s *staging) endLeft() {
	s.ending.Lock()
	defer s.ending.Unlock()
	var ended []*part
	s.mu.Lock()
	s.left = slices.DeleteFunc(s.left, func(p *part) bool {
		_, owed := s.pending[p]
		if !owed {
			ended = append(ended, p)
		}
		return !owed
	})
	s.mu.Unlock()
	for _, p := range ended {
		if p.known.Load() {
			p.over()
		} else {
			p.Abort() // nobody could go on from it
		}
	}
}

// giveUp ends a part that gets no name. From a large one another try may go on, when there
// is room, or what else its host lacked.
func (p *part) giveUp(err error) {
	if CodeOf(err) == CodeLocalIO && p.e.Size > blockSize {
		p.Leave()
	} else {
		p.Abort()
	}
}
