package main

import (
	"io"
	"sync"
	"time"
)

// late writes some of what it is given a little later, many pieces in one call: a small
// file's receipt would take as long to print as its name to be given.
type late struct {
	out io.Writer

	mu    sync.Mutex
	held  []byte
	timer *time.Timer // runs while something is held
}

// How long, and how many bytes of it, are held.
const (
	lateBy   = 50 * time.Millisecond
	lateMost = 32 << 10
)

// later writes b soon, or with what comes next.
func (l *late) later(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held = append(l.held, b...); len(l.held) >= lateMost {
		l.empty()
	} else if l.timer == nil {
		l.timer = time.AfterFunc(lateBy, l.flush)
	}
}

// Write writes b at once, after all that is held.
func (l *late) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.empty()
	return l.out.Write(b)
}

// flush writes all that is held.
func (l *late) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.empty()
}

// empty is flush, for who has the lock. Nobody could be told of an error.
func (l *late) empty() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if len(l.held) > 0 {
		_, _ = l.out.Write(l.held)
		l.held = l.held[:0]
	}
}
