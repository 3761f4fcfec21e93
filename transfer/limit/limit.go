// Package limit holds a transfer to a rate, all its lanes together.
package limit

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limiter is a token bucket that is empty when the first byte is asked for: from
// there on, no more bytes are let through than the rate allows. What was not used in
// a pause is lost but for 10 ms of it, so that a timer that comes late costs nothing.
// Several lanes may wait at once; they take turns.
type Limiter struct {
	bucket *rate.Limiter
	start  sync.Once
}

// New makes a limiter.
func New(r Rate) *Limiter {
	return &Limiter{bucket: rate.NewLimiter(rate.Limit(r), max(int(r/100), 1))}
}

// Wait blocks until n bytes may go. A nil limiter never blocks. It fails when ctx
// ends, or would end before that, with the reason of ctx.
func (l *Limiter) Wait(ctx context.Context, n int) error {
	if l == nil {
		return context.Cause(ctx)
	}
	l.start.Do(func() { l.bucket.AllowN(time.Now(), l.bucket.Burst()) })
	// The bucket refuses more at once than it holds.
	for n > 0 {
		some := min(n, l.bucket.Burst())
		if err := l.bucket.WaitN(ctx, some); err != nil {
			cause := context.Cause(ctx)
			if cause == nil { // the bucket sees that ctx's deadline comes first
				cause = context.DeadlineExceeded
			}
			return fmt.Errorf("waiting for the rate limit: %w", cause)
		}
		n -= some
	}
	return nil
}
