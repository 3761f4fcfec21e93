package ibverbs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// DefaultSpin is how long WaitPoll polls before it parks: about what parking and
// waking cost on a slow host. Long spins take the CPU from the peer's kernel
// where both share one.
const DefaultSpin = 20 * time.Microsecond

// CQ is a completion queue with a completion channel of its own (struct ibv_cq,
// struct ibv_comp_channel). One goroutine at a time polls or waits; Wake may be
// called from any.
type CQ struct {
	ctx      *Context
	h, ch    unsafe.Pointer
	depth    int
	children atomic.Int32 // queue pairs

	file     *os.File // a dup of the channel's descriptor, in Go's netpoller
	raw      syscall.RawConn
	take     func(fd uintptr) bool // drains the channel; made once, so that parking allocates nothing
	takeErr  error
	armed    bool // an event was asked for and has not come yet
	spin     time.Duration
	woken    atomic.Bool     // by Wake, and the waiter was not told yet
	watching context.Context // whose end wakes the waiter
	unwatch  func() bool
}

// CreateCQ makes a completion queue for at least depth completions, and its
// channel (ibv_create_comp_channel, ibv_create_cq).
func (c *Context) CreateCQ(depth int) (*CQ, error) {
	h, ch, fd, rc := sysCreateCQ(c.h, depth)
	if rc < 0 {
		return nil, opError("ibv_create_cq", rc)
	}
	q := &CQ{ctx: c, h: h, ch: ch, depth: depth, spin: DefaultSpin}
	if err := q.openChannel(fd); err != nil {
		sysDestroyCQ(h, ch)
		return nil, err
	}
	c.children.Add(1)
	return q, nil
}

// openChannel gives the channel to Go's netpoller. The descriptor is a dup: the
// library closes its own, and closing that number twice would close somebody
// else's file.
func (q *CQ) openChannel(fd int) error {
	dup, err := dupCloexec(fd)
	if err != nil {
		return fmt.Errorf("completion channel: dup: %w", err)
	}
	q.file = os.NewFile(uintptr(dup), "completion channel")
	if q.raw, err = q.file.SyscallConn(); err != nil {
		q.file.Close()
		return fmt.Errorf("completion channel: %w", err)
	}
	q.take = func(uintptr) bool {
		n := sysDrainEvents(q.ch)
		if n < 0 {
			q.takeErr = opError("ibv_get_cq_event", n)
		}
		if n > 0 {
			q.armed = false
		}
		return n != 0
	}
	return nil
}

// SetSpin says how long WaitPoll polls before it parks; 0 parks at once.
func (q *CQ) SetSpin(d time.Duration) { q.spin = d }

// Poll takes up to len(wcs) completions without waiting (ibv_poll_cq).
func (q *CQ) Poll(wcs []WC) (int, error) {
	n := sysPoll(q.h, wcs)
	if n < 0 {
		return 0, opError("ibv_poll_cq", n)
	}
	return n, nil
}

// WaitPoll takes up to len(wcs) completions and waits until there is at least
// one: it polls, spins for a moment, asks for an event (ibv_req_notify_cq), polls
// again, and parks the goroutine in Go's netpoller.
//
// It answers 0 and no error after [CQ.Wake]; the context's error when that ends;
// [ErrDeviceGone] when the device was removed.
func (q *CQ) WaitPoll(ctx context.Context, wcs []WC) (int, error) {
	for {
		n, armed := sysPollArm(q.h, wcs, int64(q.spin), !q.armed)
		q.armed = q.armed || armed
		if n < 0 {
			return 0, opError("ibv_poll_cq", n)
		}
		if n > 0 {
			return n, nil
		}
		if woken, err := q.park(ctx); err != nil || woken {
			return 0, err
		}
	}
}

// park waits for an event. It reports true when it was woken without one.
func (q *CQ) park(ctx context.Context) (woken bool, err error) {
	q.watch(ctx)
	if err := ctx.Err(); err != nil {
		return false, err
	}
	q.takeErr = nil
	err = q.raw.Read(q.take)
	switch {
	case err == nil:
		return false, q.gone(q.takeErr)
	case errors.Is(err, os.ErrDeadlineExceeded):
		if err := q.file.SetReadDeadline(time.Time{}); err != nil {
			return false, err
		}
		// Without either it was the end of an earlier wait's context that came late.
		return q.woken.Swap(false), ctx.Err()
	case errors.Is(err, os.ErrClosed):
		return false, fmt.Errorf("completion queue: %w", ErrClosed)
	}
	// A removed device shows as EPOLLERR alone, which Go calls "not pollable".
	return false, fmt.Errorf("%w: %s (%v)", ErrDeviceGone, q.ctx.name, err)
}

// gone says in words that the device was removed, if that is what the error means.
func (q *CQ) gone(err error) error {
	if errors.Is(err, ErrDeviceGone) {
		return fmt.Errorf("%w: %s (%w)", ErrDeviceGone, q.ctx.name, err)
	}
	return err
}

// watch arranges for the end of ctx to wake the waiter. Waiting with the same
// context again costs nothing.
func (q *CQ) watch(ctx context.Context) {
	if q.watching == ctx {
		return
	}
	if q.unwatch != nil {
		q.unwatch()
		q.unwatch = nil
	}
	q.watching = ctx
	if ctx.Done() != nil {
		q.unwatch = context.AfterFunc(ctx, q.interrupt)
	}
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// Wake makes the present, or else the next, parked WaitPoll answer 0.
func (q *CQ) Wake() {
	q.woken.Store(true)
	q.interrupt()
}

func (q *CQ) interrupt() { _ = q.file.SetReadDeadline(past) }

// Close destroys the completion queue and its channel (ibv_destroy_cq,
// ibv_destroy_comp_channel). It is a [*BusyError] while queue pairs use it.
func (q *CQ) Close() error {
	destroy := func(h unsafe.Pointer) int {
		// Every event that came is acknowledged as it is taken, so what is still in
		// the channel was never taken and ibv_destroy_cq does not wait for it.
		return sysDestroyCQ(h, q.ch)
	}
	if err := closeHandle("ibv_destroy_cq", "CQ", &q.h, &q.children, &q.ctx.children, destroy); err != nil {
		return err
	}
	if q.unwatch != nil {
		q.unwatch()
	}
	return q.file.Close()
}
