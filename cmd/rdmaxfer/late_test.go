package main

import (
	"bytes"
	"strings"
	"sync"
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
		out.want(t, 0, "")
		l.Write([]byte("c"))
		out.want(t, 2, "abc")
		l.later([]byte("d"))
		time.Sleep(2 * lateBy) // by the bubble's clock
		out.want(t, 3, "abcd")
		l.later([]byte("e"))
		l.flush()
		l.flush()
		out.want(t, 4, "abcde")
		long := strings.Repeat("x", lateMost)
		l.later([]byte(long))
		out.want(t, 5, "abcde"+long)
		time.Sleep(2 * lateBy)
		out.want(t, 5, "abcde"+long)
	})
}
