package transfer

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// How the bytes of a part are written, where that is more than a pwrite.

// again opens the part's file once more.
func (p *part) again(flags int) (*os.File, error) {
	f, err := p.s.root.OpenFile(p.name, flags|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err == nil && !same(f, p.object) {
		f.Close()
		err = errors.New("another program has replaced the part")
	}
	return f, err
}

// reader gives the part's file once more, to be read. If its bits forbid that, the
// descriptor that is open has to do.
func (p *part) reader() (*os.File, error) {
	f, err := p.again(os.O_RDONLY)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opened() == nil || !errors.Is(err, fs.ErrPermission) {
		return f, err
	}
	var twin int
	err = control(p.file, func(fd int) (err error) {
		twin, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return os.NewSyscallError("fcntl", err)
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(twin), p.file.Name()), nil
}

// write writes b at off: past the page cache as far as its blocks go, where the user wants
// that and the file system has it, the rest through it.
func (p *part) write(file *os.File, b []byte, off int64) (n int, err error) {
	d, err := p.past()
	if err != nil {
		return 0, err
	}
	if d != nil {
		n, err = d.writeAt(b, off)
		p.s.store.direct.Add(int64(n))
		if errors.Is(err, errNotDirect) {
			p.s.store.refuse(err)
			n, err = 0, nil
		}
		if err != nil || n == len(b) {
			return n, err
		}
	}
	m, err := file.WriteAt(b[n:], off+int64(n))
	p.s.store.cached.Add(int64(m))
	if err == nil {
		err = p.wrote(off+int64(n), int64(m))
	}
	return n + m, err
}

// past gives the descriptor that goes past the page cache; nil when there is none. Small
// files are not worth one.
func (p *part) past() (*directFile, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.direct != nil || p.tried || p.done || p.s.store.asked != DirectAlways || p.e.Kind != wire.Stream && p.e.Size <= maxPacked {
		return p.direct, nil
	}
	p.tried = true
	var err error
	p.direct, err = p.s.store.open(func(flags int) (*os.File, error) { return p.again(os.O_RDWR | flags) })
	return p.direct, err
}

// behind follows the writing of a file whose pages shall not stay in the page cache: a
// stretch that is complete goes to the disk while the next grows, and is dropped when it
// is there, which may hold up the writer: a disk that is slower than the network would
// else fill the memory with what it has not written.
type behind struct {
	mu      sync.Mutex
	written map[int64]int64 // bytes of each stretch, by its offset
	started []int64         // stretches on their way to the disk, the oldest first
	// file is a descriptor of its own: a failed write is told to each descriptor once, and
	// it is the ledger's sync that must hear of it.
	file *os.File
	over bool // the part is: no descriptor is opened any more, for a write that was under way
}

// wrote notes bytes that went through the page cache.
func (p *part) wrote(off, n int64) error {
	if !p.s.store.keep || p.e.Kind != wire.Stream && p.e.Size <= maxPacked {
		return nil // small files are dropped when they are committed
	}
	b := &p.behind
	at := off / dropEvery * dropEvery
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return nil
	}
	if b.file == nil {
		var err error
		if b.file, err = p.again(os.O_RDWR); err != nil {
			return err
		}
		b.written = make(map[int64]int64)
	}
	if b.written[at] += n; b.written[at] < dropEvery {
		return nil
	}
	delete(b.written, at)
	b.started = append(b.started, at)
	return control(b.file, func(fd int) error {
		// Errors are for the sync of the whole file, which hears of them too.
		_ = unix.SyncFileRange(fd, at, dropEvery, unix.SYNC_FILE_RANGE_WRITE)
		if len(b.started) > 1 {
			flush(fd, b.started[0], dropEvery)
			b.started = b.started[1:]
		}
		return nil
	})
}

// flush waits until a range is on the disk, and drops it from the page cache.
func flush(fd int, off, n int64) {
	_ = unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	drop(fd, off, n)
}

// close is for who holds part.mu.
func (b *behind) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file != nil {
		b.file.Close()
		b.file = nil
	}
}
