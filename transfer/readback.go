package transfer

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
)

// What is done with parts between their sync and their names: they are read back, and
// dropped from the page cache.

// readersAtOnce is how many extents of a file are read back, and hashed, at a time.
const readersAtOnce = 4

// settled does both, as the user wants it, with each part that has not failed.
func (s *staging) settled(parts []*part, errs []error, kind digest.Kind) {
	for i, p := range parts {
		if errs[i] == nil && s.d.Readback {
			if errs[i] = s.readBack(p, kind); errs[i] != nil {
				p.Abort() // nobody could go on from it
				_ = s.syncLedger()
			}
		}
		if errs[i] == nil && s.d.KeepCache {
			errs[i] = p.leaveCache()
		}
	}
}

// readBack compares what the disk has of a part with the digest of what landed.
func (s *staging) readBack(p *part, kind digest.Kind) error {
	if kind == digest.None || p.digest == nil {
		return errorf(CodeUsage, "%s can't be read back: nothing is known that it could be compared with (send without --verify none)", s.path(p.e.Path))
	}
	began := time.Now()
	sum, n, err := p.reread(kind)
	s.store.reading.Add(int64(time.Since(began)))
	s.store.readback.Add(n)
	switch {
	case err != nil:
		return p.failed("reading back", err)
	case sum != *p.digest:
		return errorf(CodeIntegrity, "%s was read back and is not what landed: its disk, or memory, corrupts data (%s instead of %s)",
			s.path(p.e.Path), kind.Hex(sum), kind.Hex(*p.digest))
	}
	return nil
}

// reread takes the digest of a part from its file: past the page cache where that goes,
// else with what the cache has of it dropped before, so that the disk answers as far as
// can be. It gives the file's size, too.
func (p *part) reread(kind digest.Kind) (sum Digest, size int64, err error) {
	file, err := p.reader()
	if err != nil {
		return sum, 0, err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return sum, 0, err
	}
	size = st.Size()
	if err := control(file, func(fd int) error { drop(fd, 0, size); return nil }); err != nil {
		return sum, size, err
	}
	var past *directFile
	if size > maxPacked {
		past, err = openDirect(func(flags int) (*os.File, error) { return p.again(os.O_RDONLY | flags) })
		// Its bits may forbid that, too.
		if err != nil && !errors.Is(err, errNotDirect) && !errors.Is(err, fs.ErrPermission) {
			return sum, size, err
		}
		defer past.close()
	}
	r := &rereading{file: file, past: past, size: size, kind: kind, sums: digest.NewAccumulator(kind, DefaultExtentSize, blockSize)}
	readers := min(runtime.GOMAXPROCS(0), readersAtOnce, int((size+DefaultExtentSize-1)/DefaultExtentSize))
	var running sync.WaitGroup
	for range readers {
		running.Go(r.run)
	}
	running.Wait()
	if r.err != nil {
		return sum, size, r.err
	}
	sum, err = r.sums.Sum(size)
	return sum, size, err
}

// rereading is the reading of one file by several goroutines.
type rereading struct {
	file *os.File
	past *directFile // nil when there is none
	size int64
	kind digest.Kind
	next atomic.Int64 // extent

	mu   sync.Mutex
	sums *digest.Accumulator
	err  error
}

// rooms are buffers of an extent, for files that are read back.
var rooms = sync.Pool{New: func() any { return new([DefaultExtentSize]byte) }}

func (r *rereading) run() {
	room := rooms.Get().(*[DefaultExtentSize]byte)
	defer rooms.Put(room)
	for {
		n := r.next.Add(1) - 1
		off := n * DefaultExtentSize
		if off >= r.size {
			return
		}
		b := room[:min(DefaultExtentSize, r.size-off)]
		err := r.read(b, off)
		node := r.kind.Extent(b, off)
		r.mu.Lock()
		if err != nil {
			r.err = err
			r.next.Store(r.size) // nobody goes on
		} else {
			r.sums.Add(n, node)
		}
		r.mu.Unlock()
	}
}

func (r *rereading) read(b []byte, off int64) error {
	if r.past != nil {
		if err := r.past.readAt(b, off); !errors.Is(err, errNotDirect) {
			return err
		}
	}
	_, err := r.file.ReadAt(b, off)
	return err
}

// leaveCache drops a part's pages from the page cache.
func (p *part) leaveCache() error {
	file, err := p.reader()
	if err != nil {
		return p.failed("dropping from the page cache what is there of", err)
	}
	defer file.Close()
	return control(file, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return p.failed("looking at", err)
		}
		flush(fd, 0, st.Size) // what nobody synced (NoSync) is dirty still
		return nil
	})
}
