package rdma

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// answerLimit is how long the sender's end of a lane may take to be made: the receiver, who has
// 10 s for all of a lane, is to hear why there is none. hangGrace is how long a driver is waited
// for when nobody needs what it does any more, which it mostly has done by then; mostHung is how
// many calls may be left behind that have not come back even so, each of which keeps a thread.
const (
	answerLimit = 6 * time.Second
	hangGrace   = 2 * time.Second
	mostHung    = 8
)

// errNotAsked is why unlessHung did nothing at all.
var errNotAsked = errors.New("not asked")

// hung are the calls that were left behind, of all transports.
var hung atomic.Int32

// unlessHung makes an end of a lane, which asks the kernel's driver and the card, and comes
// back a little after the context ends, whatever those do: a card whose firmware hangs takes a
// minute, and auto has TCP to go on with. What such a call makes at last is closed.
func unlessHung[E io.Closer](ctx context.Context, device string, open func() (E, error)) (E, error) {
	type answer struct {
		end E
		err error
	}
	var none E
	if n := hung.Load(); n >= mostHung {
		return none, fmt.Errorf("%s is %w: %d calls of its driver, or another's, have not come back: does it hang (dmesg)?", device, errNotAsked, n)
	}
	came := make(chan answer, 1)
	go func() {
		e, err := open()
		came <- answer{e, err}
	}()
	select {
	case a := <-came:
		return a.end, a.err
	case <-ctx.Done():
	}
	grace := time.NewTimer(hangGrace)
	defer grace.Stop()
	select {
	case a := <-came:
		return a.end, a.err
	case <-grace.C:
	}
	hung.Add(1)
	go func() {
		defer hung.Add(-1)
		if a := <-came; a.err == nil {
			a.end.Close()
		}
	}()
	return none, fmt.Errorf("%s has not answered: does its driver hang (dmesg)? (%w)", device, context.Cause(ctx))
}
