package transfer

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/internal/calls"
	"github.com/rdmaxfer/rdmaxfer/transfer/ledger"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// A small file has no name until everything in it is durable (O_TMPFILE, open(2)): no
// name in the hidden directory that is made, looked for and taken away again, and nothing
// that a killed receiver leaves. Where a file system, or the kernel, has no such files they
// are parts like the others.

// nameless is what was found out of files without a name, once a transfer.
type nameless struct {
	once sync.Once
	link func(c *calls.Chain, dir int, name string) // gives one its name; nil: there are none
}

// one gives a file its name by itself.
func (n *nameless) one(file, dir int, name string) error {
	list := newList()
	defer freeList(list)
	c := list.With(file)
	n.link(&c, dir, name)
	list.Make()
	_, err := c.Made()
	return err
}

// probe tries with a file of its own, in the hidden directory.
func (n *nameless) probe(dir int) {
	file, err := openNameless(dir, ".", 0o600)
	if err != nil {
		return
	}
	defer unix.Close(file)
	const name = "probe" + partSuffix
	for _, n.link = range []func(*calls.Chain, int, string){(*calls.Chain).Link, (*calls.Chain).LinkProc} {
		err := n.one(file, dir, name)
		_ = unix.Unlinkat(dir, name, 0)
		if err == nil {
			return
		}
	}
	n.link = nil
}

// openNameless makes a file without a name in a directory below another one, on the same
// file system, whoever swaps what meanwhile (openat2(2), Linux 5.6). In which directory it
// is says no more than where on the disk it lies, and whose rights it inherits: near those
// that it will be with.
func openNameless(root int, dir string, mode uint32) (int, error) {
	how := howNameless(mode)
	return unix.Openat2(root, dir, &how)
}

func howNameless(mode uint32) unix.OpenHow {
	return unix.OpenHow{
		Flags:   unix.O_TMPFILE | unix.O_RDWR | unix.O_CLOEXEC,
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
}

// Put makes a file that is small with all of its bytes.
func (s *staging) Put(e *wire.Entry, b []byte) (Landing, error) {
	x := small{entry: e, bytes: b}
	s.putTogether([]*small{&x})
	return x.landing, x.err
}

// putTogether is Put of many at one go. What can have no name, or can't be made so, is made
// as a part, by itself, and says what is wrong.
func (s *staging) putTogether(files []*small) {
	list := newList()
	defer freeList(list)
	type writing struct {
		calls.Chain
		*small
		st *unix.Statx_t
	}
	all := make([]writing, 0, len(files))
	for _, x := range files {
		if !s.mayBeNameless(x.entry) {
			s.putPart(x)
			continue
		}
		mode := x.entry.Mode & 0o777
		if len(x.entry.Attrs) > 0 {
			mode = 0o600 // they may need it
		}
		w := writing{Chain: list.Open2(int(s.top.Fd()), path.Dir(x.entry.Path), howNameless(mode)), small: x}
		if len(x.bytes) > 0 {
			w.Write(x.bytes)
		}
		w.st = w.Stat(partMask)
		w.Times(x.entry.MTimeNS)
		all = append(all, w)
	}
	list.Make()
	for _, w := range all {
		open, err := w.Made()
		if err != nil {
			if open >= 0 {
				unix.Close(open)
			}
			s.d.nameless.Add(-1)
			s.putPart(w.small)
			continue
		}
		s.store.cached.Add(int64(len(w.bytes)))
		p := &part{s: s, e: *w.entry, bare: open, object: ledger.ObjectIn(w.st)}
		p.mode = uint32(w.st.Mode) & 0o777 // less what the umask, or the directory's lists, took away
		p.set = p.mode == p.e.Mode&0o777 && p.e.Owner == nil && len(p.e.Attrs) == 0
		if w.err = p.finish(); w.err != nil {
			p.over()
			continue
		}
		w.landing = p
	}
}

// putPart is Put of a file that has a name while it lands.
func (s *staging) putPart(x *small) {
	if x.landing, x.err = s.Create(x.entry); x.err != nil || len(x.bytes) == 0 {
		return
	}
	if _, x.err = x.landing.WriteAt(x.bytes, 0); x.err != nil {
		x.landing.Abort()
		x.landing = nil
	}
}

// partMask is what of statx(2) a part is told by.
const partMask = unix.STATX_MODE | ledger.ObjectMask

// mayBeNameless says whether a file shall have no name while it lands, and takes one of
// the descriptors that are set aside for such files.
func (s *staging) mayBeNameless(e *wire.Entry) bool {
	// What is read back, or dropped from the page cache, is opened again by its name.
	if e.Kind != wire.File || e.Size > maxPacked || e.Sparse || s.d.Readback || s.d.KeepCache {
		return false
	}
	s.nameless.once.Do(func() { s.nameless.probe(int(s.dir.Fd())) })
	if s.nameless.link == nil {
		return false
	}
	if s.d.nameless.Add(1) > s.d.mostNameless {
		s.d.nameless.Add(-1)
		return false
	}
	return true
}

// callTogether gives those of some parts their names in a directory, and ends them, that were
// written without one and whose names are free. It gives the others, which are for call.
func (s *staging) callTogether(parts []*part, some []int, dir *os.File) (left []int) {
	for some := range slices.Chunk(some, atOnce) {
		list := newList()
		type naming struct {
			calls.Chain
			n int
		}
		var all []naming
		for _, n := range some {
			fd := parts[n].takeBare()
			if fd == 0 {
				left = append(left, n)
				continue
			}
			c := list.With(fd)
			s.nameless.link(&c, int(dir.Fd()), path.Base(parts[n].e.Path))
			c.Close()
			all = append(all, naming{c, n})
		}
		list.Make()
		for _, c := range all {
			if fd, err := c.Made(); err != nil {
				parts[c.n].giveBare(fd)
				left = append(left, c.n)
			} else {
				s.d.nameless.Add(-1)
			}
		}
		freeList(list)
	}
	return left
}

// call gives a part its name in a directory.
func (s *staging) call(p *part, dir *os.File) error {
	if p.name != "" {
		return s.renameIn(dir, p.name, &p.e)
	}
	p.mu.Lock()
	fd := p.descriptor()
	p.mu.Unlock()
	err := s.nameless.one(fd, int(dir.Fd()), path.Base(p.e.Path))
	if !errors.Is(err, fs.ErrExist) {
		return s.renamed(&p.e, err)
	}
	// No link replaces a file: it gets a name to be renamed from, if it may be.
	name := partName(&p.e, partSuffix)
	_ = s.root.Remove(name) // of an interrupted transfer
	if err := s.nameless.one(fd, int(s.dir.Fd()), name); err != nil {
		return s.renamed(&p.e, err)
	}
	if err := s.renameIn(dir, name, &p.e); err != nil {
		_ = s.root.Remove(name)
		return err
	}
	return nil
}
