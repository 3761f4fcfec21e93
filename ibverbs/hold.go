package ibverbs

import (
	"context"
	"fmt"
	"sync"
	"syscall"
)

// hold is what ends a wait that holds its thread: an eventfd(2) that is polled beside the
// completion channel.
type hold struct {
	mu sync.Mutex // a Wake may come as late as after Close
	fd int        // -1 when it is closed: its number may be somebody else's then
	watch
}

// HoldThread makes WaitPoll hold its thread in poll(2) while it waits, as a C program
// would, and not park in Go's netpoller. That wakes up sooner: Go looks at its netpoller
// twice before it sleeps there, and the next call of C wakes the runtime's monitor. The
// price is a thread for each queue that is waited for. Where GOMAXPROCS is 1 the runtime
// takes the thread's P away at once, and it gains little.
//
// It is called before the first WaitPoll and there is no way back. Such a queue must not be
// closed while somebody waits for it: Wake, and close it when WaitPoll has answered.
func (q *CQ) HoldThread() error {
	fd, err := openEventFD()
	if err != nil {
		return fmt.Errorf("completion queue: eventfd: %w", err)
	}
	q.hold = &hold{fd: fd}
	return q.events.close()
}

// block is park for a queue whose waiter holds its thread.
func (q *CQ) block(ctx context.Context, wcs []WC) (woken bool, err error) {
	q.hold.see(ctx, q.hold)
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		q.found, q.armed = sysPollHold(q.h, q.ch, wcs, q.solicited, q.armed, q.hold.fd)
		switch {
		case q.found == -int(syscall.ENODEV):
			return false, q.gone(ErrDeviceGone)
		case q.found != 0:
			return false, nil
		case q.woken.Swap(false):
			return true, nil
		}
		// The end of this context, or of an earlier wait's that came late.
	}
}

// interrupt ends the present wait, or the next.
func (h *hold) interrupt() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd >= 0 {
		raiseEventFD(h.fd)
	}
}

func (h *hold) close() error {
	h.stop() // without the lock: it waits for an interrupt
	h.mu.Lock()
	defer h.mu.Unlock()
	fd := h.fd
	h.fd = -1
	return closeFD(fd)
}
