package ibverbs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// notifier is a descriptor of the library in Go's netpoller: whoever waits for it
// holds no thread. Waiting is for one goroutine at a time.
type notifier struct {
	file *os.File
	raw  syscall.RawConn
	watch
}

// watch is the context whose end wakes a waiter. It is known by its channel, since contexts
// need not be comparable.
type watch struct {
	watching <-chan struct{}
	unwatch  func()
}

// open takes a dup of fd, which is non-blocking already: the library closes its
// own, and closing that number twice would close somebody else's file.
func (n *notifier) open(fd int, name string) error {
	dup, err := dupCloexec(fd)
	if err != nil {
		return fmt.Errorf("%s: dup: %w", name, err)
	}
	n.file = os.NewFile(uintptr(dup), name)
	if n.raw, err = n.file.SyscallConn(); err != nil {
		n.file.Close()
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// wait calls take until that reports true, parked while there is nothing to read.
// An interrupt, also one that came before, answers os.ErrDeadlineExceeded, once.
func (n *notifier) wait(ctx context.Context, take func(fd uintptr) bool) error {
	n.see(ctx, n)
	if err := ctx.Err(); err != nil {
		return err
	}
	err := n.raw.Read(take)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		if err := n.file.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return os.ErrDeadlineExceeded
	case errors.Is(err, os.ErrClosed):
		return ErrClosed
	}
	// A removed device shows as EPOLLERR alone, which Go calls "not pollable".
	return fmt.Errorf("%w (%v)", ErrDeviceGone, err)
}

// see arranges for the end of ctx to interrupt the waiter. Waiting with the same context
// again costs nothing.
func (w *watch) see(ctx context.Context, waiter interface{ interrupt() }) {
	done := ctx.Done()
	if w.watching == done {
		return
	}
	w.stop()
	w.watching = done
	if done != nil {
		told := make(chan struct{})
		end := context.AfterFunc(ctx, func() { waiter.interrupt(); close(told) })
		w.unwatch = func() {
			if !end() {
				<-told
			}
		}
	}
}

// stop makes sure that no interrupt of an earlier context is still to come: the descriptor may
// be closed next, and its number be somebody else's.
func (w *watch) stop() {
	if w.unwatch != nil {
		w.unwatch()
		w.unwatch = nil
	}
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// interrupt wakes the waiter, or the next one.
func (n *notifier) interrupt() { _ = n.file.SetReadDeadline(past) }

func (n *notifier) close() error {
	n.stop()
	return n.file.Close()
}
