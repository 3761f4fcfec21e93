package main

import (
	"bytes"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// calls counts the writes that reach it.
type calls struct {
	mu sync.Mutex
	n  int
	bytes.Buffer
}

func (c *calls) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.Buffer.Write(b)
}

func (c *calls) want(t *testing.T, n int, words string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n != n || c.String() != words {
		t.Errorf("%d calls wrote %.40q, want %d and %.40q", c.n, c.String(), n, words)
	}
}

func TestLateWritesTogetherAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(calls)
		l := &late{out: out}
		l.later([]byte("a"))
		l.later([]byte("b"))
		synctest.Wait()
		out.want(t, 0, "")
		l.soon([]byte("c"))
		l.flush()
		out.want(t, 1, "abc")
		l.later([]byte("d"))
		time.Sleep(2 * lateBy) // by the bubble's clock
		out.want(t, 2, "abcd")
		l.later([]byte("e"))
		l.flush()
		l.flush()
		out.want(t, 3, "abcde")
		long := strings.Repeat("x", lateMost)
		l.later([]byte(long))
		synctest.Wait()
		out.want(t, 4, "abcde"+long)
		time.Sleep(2 * lateBy)
		out.want(t, 4, "abcde"+long)
	})
}

// pipe is a reader that takes nothing until it is told to.
type pipe struct {
	reads chan struct{}
	calls
}

func (p *pipe) Write(b []byte) (int, error) {
	<-p.reads
	return p.calls.Write(b)
}

func TestLateDoesNotWaitForAReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &pipe{reads: make(chan struct{})}
		l := &late{out: out}
		line := []byte(strings.Repeat("x", 99) + "\n")
		l.soon(line)
		synctest.Wait() // it is being written
		room := lateRoom / len(line)
		for range room {
			l.later(line) // for ever, if it waited
		}
		var more, over atomic.Bool
		go func() {
			l.later(line)
			more.Store(true)
			l.flush()
			over.Store(true)
		}()
		synctest.Wait()
		if more.Load() {
			t.Error("more was held than there is room for")
		}
		close(out.reads)
		synctest.Wait()
		if !more.Load() || !over.Load() {
			t.Error("it waits, and all was read")
		}
		out.want(t, 3, strings.Repeat(string(line), room+2))
	})
}
