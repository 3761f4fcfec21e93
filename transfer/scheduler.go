package transfer

import (
	"context"
	"io"
	"math"
	"slices"
	"sync"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// scheduler hands out extents, each to one lane at a time: files in the order of
// the manifest, small ones in packs, what came back from a dead lane first.
type scheduler struct {
	extentSize int64

	mu       sync.Mutex
	files    []*pendingFile // with extents that nobody asked for yet, by number
	returned []Extent
	dropped  map[uint32]bool
	packs    map[uint32][]packed // that are under way, by their first file
	below    int64               // nothing of a file at or beyond this offset is handed out
	ended    bool
	changed  chan struct{} // closed when there may be something new; nil while nobody waits for that
}

// pendingFile is a file, or a stream as far as it has grown.
type pendingFile struct {
	file    uint32
	through uint32 // from file to here there is nothing else that has bytes
	size    int64
	next    int64  // bytes that were handed out, or had landed before
	have    bitmap // extents that had landed before
	stream  bool
	open    bool // a stream that may grow
}

// packed is a small file's place in a pack.
type packed struct {
	file uint32
	size int
}

// maxPacked is the size of a file, bytes, up to which it travels with others.
const maxPacked = 256 << 10

func newScheduler(extentSize int) *scheduler {
	return &scheduler{
		extentSize: int64(extentSize),
		dropped:    make(map[uint32]bool),
		packs:      make(map[uint32][]packed),
		below:      math.MaxInt64,
	}
}

// notify wakes every Next. The lock is held.
func (s *scheduler) notify() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// small reports whether a file of that size travels in a pack.
func (s *scheduler) small(size int64) bool { return size > 0 && size <= min(maxPacked, s.extentSize/2) }

// add puts a file at the end of the list. Entries come in the order of their
// numbers; what has no bytes is added too, with size 0: a pack may reach over it.
func (s *scheduler) add(file uint32, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size > 0 {
		s.files = append(s.files, &pendingFile{file: file, through: file, size: size})
		s.notify()
	} else if n := len(s.files); n > 0 && s.files[n-1].through+1 == file {
		s.files[n-1].through = file
	}
}

// resume puts a file at the end of the list of which some extents have landed: its size is the
// sender's word, and nothing here grows with it.
func (s *scheduler) resume(file uint32, size int64, have bitmap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &pendingFile{file: file, through: file, size: size, have: have}
	if f.pass(s.extentSize); f.next < f.size {
		s.files = append(s.files, f)
		s.notify()
	}
}

// pass goes over what had landed before.
func (f *pendingFile) pass(extentSize int64) {
	for f.next < f.size && f.have.has(int(f.next/extentSize)) {
		f.next = min(f.next+extentSize, f.size)
	}
}

// grow makes more of a stream available; end says that there will be no more.
func (s *scheduler) grow(file uint32, size int64, end bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.files, func(f *pendingFile) bool { return f.file == file })
	if i < 0 {
		if s.dropped[file] {
			return
		}
		// A stream waits in the list from its first bytes on.
		s.files = append(s.files, &pendingFile{file: file, through: file, stream: true})
		i = len(s.files) - 1
	}
	f := s.files[i]
	f.size, f.open = size, !end
	if end && f.next == f.size {
		s.remove(i, i+1)
	}
	s.notify()
}

// allow sets how far into a file extents are handed out, bytes: a multiple of the
// extent's size.
func (s *scheduler) allow(below int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.below = below
	s.notify()
}

// giveBack makes extents available again that a lane did not land.
func (s *scheduler) giveBack(extents []Extent) {
	if len(extents) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.returned = append(s.returned, extents...)
	s.notify()
}

// again makes a small file available again, alone.
func (s *scheduler) again(file uint32, size int) {
	s.mu.Lock()
	s.packs[file] = []packed{{file, size}}
	s.mu.Unlock()
	s.giveBack([]Extent{{File: file, Len: size, Count: 1}})
}

// unpack gives the files of a pack that has landed, or was refused; nil when it
// had landed before.
func (s *scheduler) unpack(e Extent) []packed {
	s.mu.Lock()
	defer s.mu.Unlock()
	members := s.packs[e.File]
	delete(s.packs, e.File)
	return members
}

// drop forgets a file: no extent of it is handed out any more, unless a pack holds
// others too.
func (s *scheduler) drop(file uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped[file] = true
	s.files = slices.DeleteFunc(s.files, func(f *pendingFile) bool { return f.file == file })
}

// end makes every Next answer io.EOF: all is landed, or all is lost.
func (s *scheduler) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.notify()
}

// tryNext gives an extent if there is one now.
func (s *scheduler) tryNext() (Extent, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.take()
}

func (s *scheduler) take() (Extent, bool) {
	if s.ended {
		return Extent{}, false
	}
	for n := len(s.returned); n > 0; n = len(s.returned) {
		e := s.returned[n-1]
		s.returned = s.returned[:n-1]
		if e.Count > 1 || !s.dropped[e.File] {
			return e, true
		}
	}
	for i, f := range s.files {
		switch {
		case f.next == f.size, f.open && f.size-f.next < s.extentSize:
			continue // a stream that has nothing new
		case f.next >= s.below:
			continue
		case f.next == 0 && !f.stream && s.small(f.size):
			return s.pack(i), true
		}
		e := Extent{File: f.file, Off: f.next, Len: int(min(s.extentSize, f.size-f.next))}
		f.next += int64(e.Len)
		if f.pass(s.extentSize); f.next == f.size && !f.open {
			s.remove(i, i+1)
		}
		return e, true
	}
	return Extent{}, false
}

// pack takes the small files from the ith on that follow each other.
func (s *scheduler) pack(i int) Extent {
	first := s.files[i]
	e := Extent{File: first.file}
	n := i
	var members []packed
	for ; n < len(s.files); n++ {
		f := s.files[n]
		if n > i && f.file != s.files[n-1].through+1 || f.stream || !s.small(f.size) ||
			int64(e.Len)+f.size > s.extentSize || f.file-first.file >= wire.MaxPack {
			break
		}
		e.Len += int(f.size)
		e.Count = f.file - first.file + 1
		members = append(members, packed{f.file, int(f.size)})
	}
	s.remove(i, n)
	s.packs[e.File] = members
	return e
}

// remove takes files out of the list, mostly from its beginning.
func (s *scheduler) remove(from, to int) {
	if from == 0 {
		s.files = s.files[to:]
	} else {
		s.files = slices.Delete(s.files, from, to)
	}
}

// next waits for an extent; io.EOF after end.
func (s *scheduler) next(ctx context.Context) (Extent, error) {
	for {
		s.mu.Lock()
		e, ok := s.take()
		if !ok && s.changed == nil {
			s.changed = make(chan struct{})
		}
		ended, changed := s.ended, s.changed
		s.mu.Unlock()
		switch {
		case ok:
			return e, nil
		case ended:
			return Extent{}, io.EOF
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Extent{}, ctx.Err()
		}
	}
}
