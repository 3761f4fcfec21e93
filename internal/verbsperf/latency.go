//go:build linux

package verbsperf

import (
	"context"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// longest is the longest round trip that is told from longer ones, nanoseconds.
const longest = 600e9

// atOnce is how many round trips are played before they are put into the histogram.
const atOnce = 1 << 14

// signalEvery is how often a message of a ping-pong tells when it is done: the queue must
// not fill up.
const signalEvery = 32

// pingPongDepth is the send queue that this takes.
const pingPongDepth = 2 * signalEvery

// Signalled is how many messages there are for a completion, at the most.
func (e *End) Signalled() int {
	if e.Latency && e.Op != OpRead {
		return signalEvery
	}
	return e.Signal
}

func (e *End) game() (*ibverbs.PingPong, error) {
	return e.cq.NewPingPong(e.loop(e.sends(), e.Signalled()))
}

// play times whole round trips, one message at a time: of reads from the post to the
// completion; else from a message that is posted to the one that the peer sends back.
func (e *End) play(ctx context.Context) (*Result, error) {
	g, err := e.game()
	if err != nil {
		return nil, err
	}
	trips := make([]int64, atOnce)
	warm := time.Now().Add(e.WarmUp)
	for left := e.WarmUp; left > 0; left = time.Until(warm) {
		if _, err := g.Play(ctx, trips, left); err != nil {
			return nil, err
		}
	}
	r := &Result{Trips: hdrhistogram.New(1, longest, 3)}
	posts, over := g.Posts(), time.Now().Add(e.Duration)
	for {
		some, left := trips, time.Until(over)
		if e.Iterations > 0 {
			some, left = trips[:min(atOnce, e.Iterations-int(r.Messages))], 0
		}
		if len(some) == 0 || e.Iterations == 0 && left <= 0 {
			break
		}
		n, err := g.Play(ctx, some, left)
		if err != nil {
			return nil, err
		}
		for _, took := range some[:n] {
			r.Elapsed += time.Duration(took)
			if err := r.Trips.RecordValue(max(1, took)); err != nil {
				return nil, err
			}
		}
		r.Messages += int64(n)
	}
	r.Sent, r.Posts = g.Posts(), g.Posts()-posts
	return r, nil
}

// answer answers messages, until it is told to end.
func (e *End) answer(ctx context.Context) error {
	g, err := e.game()
	if err != nil {
		return err
	}
	return g.Answer(ctx)
}
