package transfer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"

	"golang.org/x/sys/unix"

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
	link func(file, dir int, name string) error // gives one its name; nil: there are none
}

// linkOpen gives an open file a name (linkat(2)). Before Linux 6.10 it takes
// CAP_DAC_READ_SEARCH.
func linkOpen(file, dir int, name string) error {
	return unix.Linkat(file, "", dir, name, unix.AT_EMPTY_PATH)
}

// linkProc is linkOpen for everybody, where there is a /proc.
func linkProc(file, dir int, name string) error {
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", file), dir, name, unix.AT_SYMLINK_FOLLOW)
}

// probe tries with a file of its own, in the hidden directory.
func (n *nameless) probe(dir int) {
	file, err := openNameless(dir, ".", 0o600)
	if err != nil {
		return
	}
	defer unix.Close(file)
	const name = "probe" + partSuffix
	for _, link := range []func(file, dir int, name string) error{linkOpen, linkProc} {
		err := link(file, dir, name)
		_ = unix.Unlinkat(dir, name, 0)
		if err == nil {
			n.link = link
			return
		}
	}
}

// openNameless makes a file without a name in a directory below another one, on the same
// file system, whoever swaps what meanwhile (openat2(2), Linux 5.6). In which directory it
// is says no more than where on the disk it lies, and whose rights it inherits: near those
// that it will be with.
func openNameless(root int, dir string, mode uint32) (int, error) {
	return unix.Openat2(root, dir, &unix.OpenHow{
		Flags:   unix.O_TMPFILE | unix.O_RDWR | unix.O_CLOEXEC,
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
}

// Put makes a file that is small with all of its bytes.
func (s *staging) Put(e *wire.Entry, b []byte) (Landing, error) {
	if p, err := s.putNameless(e, b); p != nil || err != nil {
		return p, err
	}
	l, err := s.Create(e)
	if err != nil || len(b) == 0 {
		return l, err
	}
	if _, err := l.WriteAt(b, 0); err != nil {
		l.Abort()
		return nil, err
	}
	return l, nil
}

// putNameless is Put without a name; nil if that can't be.
func (s *staging) putNameless(e *wire.Entry, b []byte) (Landing, error) {
	if !s.mayBeNameless(e) {
		return nil, nil
	}
	mode := e.Mode & 0o777
	if len(e.Attrs) > 0 {
		mode = 0o600 // they may need it
	}
	fd, err := openNameless(int(s.top.Fd()), path.Dir(e.Path), mode)
	if err != nil {
		s.d.nameless.Add(-1)
		return nil, nil
	}
	p := &part{s: s, e: *e, bare: fd}
	var st unix.Statx_t
	if err = writeAll(fd, b); err == nil {
		s.store.cached.Add(int64(len(b)))
	}
	if err == nil {
		err = unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MODE|ledger.ObjectMask, &st)
	}
	if err != nil {
		err = p.failed("writing", err)
	} else {
		p.object, p.mode = ledger.ObjectIn(&st), uint32(st.Mode)&0o777 // less what the umask, or the directory's lists, took away
		err = p.finish()
	}
	if err != nil {
		p.over()
		return nil, err
	}
	return p, nil
}

// writeAll writes b at the beginning of a file.
func writeAll(fd int, b []byte) error {
	for off := 0; off < len(b); {
		n, err := unix.Pwrite(fd, b[off:], int64(off))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("pwrite", err)
		default:
			off += n
		}
	}
	return nil
}

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

// call gives a part its name in a directory.
func (s *staging) call(p *part, dir *os.File) error {
	if p.name != "" {
		return s.renameIn(dir, p.name, &p.e)
	}
	p.mu.Lock()
	fd := p.descriptor()
	p.mu.Unlock()
	err := s.nameless.link(fd, int(dir.Fd()), path.Base(p.e.Path))
	if !errors.Is(err, fs.ErrExist) {
		return s.renamed(&p.e, err)
	}
	// No link replaces a file: it gets a name to be renamed from, if it may be.
	name := partName(&p.e, partSuffix)
	_ = s.root.Remove(name) // of an interrupted transfer
	if err := s.nameless.link(fd, int(s.dir.Fd()), name); err != nil {
		return s.renamed(&p.e, err)
	}
	if err := s.renameIn(dir, name, &p.e); err != nil {
		_ = s.root.Remove(name)
		return err
	}
	return nil
}
