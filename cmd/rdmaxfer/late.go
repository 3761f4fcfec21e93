package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"syscall"
	"time"
)

// late writes what it is given in a goroutine of its own, so that a transfer goes on while
// nobody reads its standard output, and some of it a little later, many pieces in one call:
// a small file's receipt would take as long to print as its name to be given.
type late struct {
	ctx context.Context // when it ends, no reader is waited for much longer
	out io.Writer

	mu      sync.Mutex
	held    []byte
	spare   []byte // held's room before
	timer   *time.Timer
	writing bool          // a goroutine writes, until nothing is held
	wrote   chan struct{} // closed after its next write
	err     error         // the first of those that nobody was told of
	stuck   bool          // ctx has ended, and nobody has read for lateEnd
}

// How long a receipt is held, how many bytes of them, and how many bytes at most for a
// reader who does not read: who has more to say then waits. When the program is to end, a
// write, which is of no more than a pipe takes at once, gets so much longer.
const (
	lateBy    = 50 * time.Millisecond
	lateMost  = 32 << 10
	lateRoom  = 16 << 20
	latePiece = 64 << 10
	lateEnd   = 2 * time.Second
)

// later writes b soon, or with what comes next.
func (l *late) later(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hold(b); len(l.held) >= lateMost {
		l.write()
	} else if l.timer == nil {
		l.timer = time.AfterFunc(lateBy, l.kick)
	}
}

// soon writes b at once, after all that is held, and does not wait for that.
func (l *late) soon(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hold(b)
	l.write()
}

// flush waits until all that is held is written, and gives what came of it since the last
// flush, or why ctx has ended, when nobody reads. A reader who has ended wants no more, which is
// no error.
func (l *late) flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.write(); l.writing; {
		if !l.wait() {
			return context.Cause(l.ctx)
		}
	}
	err := l.err
	if l.err = nil; errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// kick is what the timer does.
func (l *late) kick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write()
}

// hold adds b, when there is room; when none is made for it before the end, it is lost. The
// caller has the lock.
func (l *late) hold(b []byte) {
	for l.writing && len(l.held)+len(b) > lateRoom {
		if !l.wait() {
			return
		}
	}
	l.held = append(l.held, b...)
}

// wait waits for a write, without the lock that the caller has. It answers false when it did so
// in vain: ctx has ended.
func (l *late) wait() bool {
	if l.stuck {
		return false
	}
	wrote := l.wrote
	l.mu.Unlock()
	read := l.read(wrote)
	l.mu.Lock()
	l.stuck = l.stuck || !read
	return read
}

// read reports whether a write came to its end. A reader who is there has its chance also when
// ctx has ended: the summary is among what it has not read.
func (l *late) read(wrote <-chan struct{}) bool {
	select {
	case <-wrote:
		return true
	case <-l.ctx.Done():
	}
	select {
	case <-wrote:
		return true
	case <-time.After(lateEnd):
		return false
	}
}

// write has all that is held written. The caller has the lock.
func (l *late) write() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if !l.writing && len(l.held) > 0 {
		l.writing = true
		l.wrote = make(chan struct{})
		go l.empty()
	}
}

// empty writes until nothing is held.
func (l *late) empty() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.held) > 0 {
		b := l.held
		l.held, l.spare = l.spare[:0], nil
		for piece := range slices.Chunk(b, latePiece) {
			l.mu.Unlock()
			_, err := l.out.Write(piece)
			l.mu.Lock()
			l.stuck = false
			if l.err == nil {
				l.err = err
			}
			close(l.wrote)
			l.wrote = make(chan struct{})
			if err != nil {
				break
			}
		}
		if l.spare = b; cap(b) > 2*lateMost {
			l.spare = nil
		}
	}
	l.writing = false
	close(l.wrote)
}
