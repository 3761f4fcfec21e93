package transfer

import (
	"context"
	"io"
	"slices"
	"sync"
)

// scheduler hands out extents, each to one lane at a time: files in the order of
// the manifest, what came back from a dead lane first.
type scheduler struct {
	extentSize int64

	mu       sync.Mutex
	files    []*pendingFile // with extents that nobody asked for yet
	returned []Extent
	dropped  map[uint32]bool
	ended    bool
	changed  chan struct{} // closed and renewed when there may be something new
}

type pendingFile struct {
	file uint32
	size int64
	next int64
}

func newScheduler(extentSize int) *scheduler {
	return &scheduler{extentSize: int64(extentSize), dropped: make(map[uint32]bool), changed: make(chan struct{})}
}

// notify wakes every Next. The lock is held.
func (s *scheduler) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// add puts a file at the end of the list. An empty one has no extents.
func (s *scheduler) add(file uint32, size int64) {
	if size == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = append(s.files, &pendingFile{file: file, size: size})
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

// drop forgets a file: no extent of it is handed out any more.
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
		if !s.dropped[e.File] {
			return e, true
		}
	}
	if len(s.files) == 0 {
		return Extent{}, false
	}
	f := s.files[0]
	e := Extent{File: f.file, Off: f.next, Len: int(min(s.extentSize, f.size-f.next))}
	if f.next += int64(e.Len); f.next == f.size {
		s.files = s.files[1:]
	}
	return e, true
}

// next waits for an extent; io.EOF after end.
func (s *scheduler) next(ctx context.Context) (Extent, error) {
	for {
		s.mu.Lock()
		e, ok := s.take()
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
