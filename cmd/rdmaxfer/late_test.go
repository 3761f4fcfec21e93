package main

import (
	"bytes"
	"context"
	"errors"
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
		l := &late{ctx: t.Context(), out: out}
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
		l := &late{ctx: t.Context(), out: out}
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
		pieces := (room*len(line) + latePiece - 1) / latePiece
		out.want(t, 1+pieces+1, strings.Repeat(string(line), room+2))
	})
}

// TestLateEndsWithoutItsReader: when the program is to end, who does not read is not waited
// for, and who does gets it all.
func TestLateEndsWithoutItsReader(t *testing.T) {
	why := errors.New("told to")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		out := &pipe{reads: make(chan struct{})}
		l := &late{ctx: ctx, out: out}
		l.soon([]byte("a"))
		synctest.Wait() // it is being written
		l.later(make([]byte, lateRoom))
		over := make(chan error, 2)
		go func() {
			l.later([]byte("b")) // for which there is no room
			over <- l.flush()
		}()
		go func() { over <- l.flush() }()
		synctest.Wait()
		cancel(why)
		synctest.Wait()
		if len(over) > 0 {
			t.Error("the reader had no time left")
		}
		for range 2 {
			if err := <-over; err != why {
				t.Errorf("flush: %v", err)
			}
		}
		close(out.reads)
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		out := &pipe{reads: make(chan struct{})}
		l := &late{ctx: ctx, out: out}
		l.soon([]byte("a"))
		synctest.Wait()
		l.soon([]byte("b"))
		go func() {
			for range 2 {
				time.Sleep(lateEnd * 2 / 3) // by the bubble's clock
				out.reads <- struct{}{}
			}
		}()
		if err := l.flush(); err != nil {
			t.Error(err)
		}
		out.want(t, 2, "ab")
	})
	synctest.Test(t, func(t *testing.T) { // who is far behind, and reads on
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		out := &pipe{reads: make(chan struct{})}
		l := &late{ctx: ctx, out: out}
		l.soon([]byte("a"))
		synctest.Wait()
		const pieces = 9
		l.soon(bytes.Repeat([]byte("b"), pieces*latePiece))
		go func() {
			for range 1 + pieces {
				time.Sleep(lateEnd * 2 / 3)
				out.reads <- struct{}{}
			}
		}()
		if err := l.flush(); err != nil {
			t.Error(err)
		}
		out.want(t, 1+pieces, "a"+strings.Repeat("b", pieces*latePiece))
	})
}
