package ibverbs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
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
	object
	ctx   *Context
	ch    unsafe.Pointer
	depth int

	events    notifier
	hold      *hold                 // instead of events, after HoldThread
	look      func(fd uintptr) bool // polls wcs and arms; made once, so that waiting allocates nothing
	wcs       []WC                  // what look polls into
	found     int                   // what it found, or -errno
	armed     bool                  // an event was asked for and has not been taken yet
	solicited bool                  // events are asked for solicited completions alone
	spin      time.Duration
	polls     uint
	yielded   time.Time
	woken     atomic.Bool // by Wake, and the waiter was not told yet
}

// CreateCQ makes a completion queue for at least depth completions, and its
// channel (ibv_create_comp_channel, ibv_create_cq). Those of [QP.Drain]'s own requests
// need not be counted in, unless the depth is all that the device has (MaxCQE).
func (c *Context) CreateCQ(depth int) (*CQ, error) {
	if depth < 1 {
		return nil, &ParamError{"depth", fmt.Sprint(depth), "must be positive"}
	}
	dev, err := c.QueryDevice()
	if err != nil {
		return nil, err
	}
	// Who drains a queue pair is alone with its queues: two markers are there at the most.
	h, ch, fd, rc := sysCreateCQ(c.h, withMarkers(depth, 2, dev.MaxCQE))
	if rc < 0 {
		return nil, withHint(opError("ibv_create_cq", rc), fmt.Sprintf("%d completions: more than the device has? See MaxCQE", depth))
	}
	q := &CQ{ctx: c, ch: ch, depth: depth, spin: DefaultSpin}
	q.look = func(uintptr) bool {
		q.found, q.armed = sysPollArm(q.h, q.ch, q.wcs, q.solicited, q.armed)
		return q.found != 0
	}
	if err := q.events.open(fd, "completion channel"); err != nil {
		sysDestroyCQ(h, ch)
		return nil, err
	}
	q.made(kindCQ, h, &c.object)
	return q, nil
}

// Depth is how many completions the queue was made for.
func (q *CQ) Depth() int { return q.depth }

// SetSpin says how long WaitPoll polls before it parks; 0 parks at once.
func (q *CQ) SetSpin(d time.Duration) { q.spin = d }

// SetSolicitedOnly makes WaitPoll park until a completion comes that the peer
// marked [SendSolicited], or one that failed. Others are there to be polled.
func (q *CQ) SetSolicitedOnly(only bool) {
	q.solicited = only
	q.armed = false // asked for in the other way; asking again is allowed
}

// Poll takes up to len(wcs) completions without waiting (ibv_poll_cq). A loop of it
// lets other goroutines run now and then.
func (q *CQ) Poll(wcs []WC) (int, error) {
	n := sysPoll(q.h, wcs)
	if n < 0 {
		return 0, opError("ibv_poll_cq", n)
	}
	if q.polls++; q.polls%pollsAClock == 0 {
		q.yield()
	}
	return n, nil
}

// A goroutine that polls for 10 ms without going through Go's scheduler is taken for
// stuck: each time that the runtime's monitor then finds it in C it takes its P away,
// and it looks every 20 µs (retake in runtime/proc.go). To yield costs more than a
// poll, since it wakes another thread to look for work.
const (
	pollsAClock = 256 // polls for each look at the clock
	yieldAfter  = 5 * time.Millisecond
)

func (q *CQ) yield() {
	if now := time.Now(); now.Sub(q.yielded) > yieldAfter {
		q.yielded = now
		runtime.Gosched()
	}
}

// WaitPoll takes up to len(wcs) completions and waits until there is at least
// one: it polls, spins for a moment, asks for an event (ibv_req_notify_cq), polls
// again, and parks the goroutine in Go's netpoller (or see [CQ.HoldThread]).
//
// It answers 0 and no error after [CQ.Wake]; the context's error when that ends;
// [ErrDeviceGone] when the device was removed.
func (q *CQ) WaitPoll(ctx context.Context, wcs []WC) (int, error) {
	n := 0
	if q.spin > 0 || ctx.Err() != nil { // park polls too: without a spin once is enough
		n = sysPollSpin(q.h, wcs, int64(q.spin))
	}
	for n == 0 {
		woken, err := q.park(ctx, wcs)
		if err != nil || woken {
			return 0, err
		}
		n = q.found
	}
	if n < 0 {
		return 0, q.gone(opError("waiting for completions", n))
	}
	return n, nil
}

// park waits until look has found something. It reports true when it was woken
// without that. The event is asked for when the netpoller already watches: one that
// comes at once is not missed, and nothing has to be read to be sure of that.
func (q *CQ) park(ctx context.Context, wcs []WC) (woken bool, err error) {
	if q.hold != nil {
		return q.block(ctx, wcs)
	}
	q.wcs, q.found = wcs, 0
	err = q.events.wait(ctx, q.look)
	q.wcs = nil
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		// Without a Wake it was the end of an earlier wait's context that came late.
		return q.woken.Swap(false), nil
	case errors.Is(err, ErrClosed):
		return false, fmt.Errorf("completion queue: %w", err)
	}
	return false, q.gone(err)
}

// gone names the device that was removed, if that is what the error means.
func (q *CQ) gone(err error) error {
	if errors.Is(err, ErrDeviceGone) {
		return fmt.Errorf("%w: %s (%w)", ErrDeviceGone, q.ctx.name, err)
	}
	return err
}

// Wake makes the present, or else the next, parked WaitPoll answer 0.
func (q *CQ) Wake() {
	q.woken.Store(true)
	if q.hold != nil {
		q.hold.interrupt()
	} else {
		q.events.interrupt()
	}
}

// Close destroys the completion queue and its channel (ibv_destroy_cq,
// ibv_destroy_comp_channel), and with them the completions that nobody polled. It
// is a [*BusyError] while queue pairs use it.
func (q *CQ) Close() error {
	err := q.close(func(h unsafe.Pointer) int {
		// Every event that came is acknowledged as it is taken, so what is still in
		// the channel was never taken and ibv_destroy_cq does not wait for it.
		return sysDestroyCQ(h, q.ch)
	})
	if err != nil {
		return err
	}
	if q.hold != nil {
		return q.hold.close()
	}
	return q.events.close()
}
