//go:build linux

package verbsperf

import (
	"context"
	"errors"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// Run measures from this end. The other one has to Serve.
func (e *End) Run(ctx context.Context) (*Result, error) {
	if e.Latency {
		return e.play(ctx)
	}
	p, err := e.cq.NewPump(e.loop(e.Depth, e.Signal))
	if err != nil {
		return nil, err
	}
	if e.Iterations == 0 {
		done, err := p.Run(ctx, e.WarmUp, e.Duration, 0)
		if err == nil && done.Counted == 0 {
			err = errors.New("not one message completed in that time")
		}
		return &Result{Messages: done.Counted, Sent: done.Sent, Received: done.Received, Elapsed: done.Took, Posts: done.Posts}, err
	}
	var warm ibverbs.Pumped
	if e.WarmUp > 0 {
		if warm, err = p.Run(ctx, 0, e.WarmUp, 0); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	done, err := p.Run(ctx, 0, 0, int64(e.Iterations))
	return &Result{Messages: done.Sent, Sent: warm.Sent + done.Sent, Received: done.Received, Elapsed: time.Since(began), Posts: done.Posts}, err
}

// Serve does what the other end's Run needs of this one, until ctx ends.
func (e *End) Serve(ctx context.Context) (*Result, error) {
	r, err := e.serve(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		err = nil
	}
	return r, err
}

func (e *End) serve(ctx context.Context) (*Result, error) {
	depth := 0
	switch {
	case e.Latency && e.Op != OpRead:
		return &Result{}, e.answer(ctx)
	case e.Both:
		depth = e.Depth
	case e.Latency || e.Op == OpWrite || e.Op == OpRead:
		<-ctx.Done() // the device does it
		return &Result{}, nil
	}
	p, err := e.cq.NewPump(e.loop(depth, e.Signal))
	if err != nil {
		return nil, err
	}
	began := time.Now()
	done, err := p.Run(ctx, 0, 0, 0)
	return &Result{Messages: done.Sent, Sent: done.Sent, Received: done.Received, Elapsed: time.Since(began), Posts: done.Posts}, err
}
