//go:build linux

// Package verbsperf measures the verbs alone, as perftest does: messages between two
// queue pairs, with nothing of a transfer around them. What perftest lets its user choose
// is chosen here too, and means the same.
package verbsperf

import (
	"errors"
	"fmt"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// The ops.
const (
	OpWrite = "write"
	OpSend  = "send"
	OpRead  = "read"
	OpUD    = "ud" // SENDs of unreliable datagrams
)

// Config is what is measured. Both ends have the same.
type Config struct {
	Op      string
	Latency bool          // one message at a time, and how long it takes; else bandwidth
	Both    bool          // of bandwidth: both ends send
	Size    int           // bytes a message
	Depth   int           // messages in flight, each queue pair
	QPs     int           // queue pairs
	Chain   int           // messages a doorbell at the most (perftest's -l)
	Signal  int           // a completion for every so many messages (-Q)
	Inline  int           // bytes; messages up to this long are copied into the request (-I)
	Buffers int           // messages' room that is used in turn: the working set; perftest has 1
	Events  bool          // wait on events (-e); else poll
	Spin    time.Duration // polling before a wait on events
	MTU     ibverbs.MTU   // 0: the port's
	// Iterations of them are measured, from the first post to the last completion, as
	// perftest does; 0: what completes within Duration.
	Iterations int
	Duration   time.Duration
	WarmUp     time.Duration // before that, and not counted
}

// Bounds of a Config: what a peer may ask for.
const (
	MaxQPs    = 64
	MaxDepth  = 4096
	MaxPosted = 1 << 15  // requests and receives, of all queue pairs
	MaxMemory = 64 << 20 // bytes, registered
)

// recvDepth is how many receives are posted at least, as perftest has it.
const recvDepth = 512

// receives is how many are posted on a queue pair, when messages take one each.
func (c *Config) receives() int {
	if c.Op == OpSend || c.Op == OpUD {
		return max(recvDepth, 2*c.Depth)
	}
	return 1
}

// sends is how many there may be on a queue pair.
func (c *Config) sends() int {
	switch {
	case c.Latency && c.Op == OpRead:
		return max(c.Depth, 2) // the next is laid out while one is under way
	case c.Latency:
		return max(c.Depth, pingPongDepth)
	}
	return c.Depth
}

// stride is how far apart the messages' places are: each has a cache line of its own, and
// of datagrams the header before it.
func (c *Config) stride() int { return (ibverbs.GRHSize + c.Size + 63) &^ 63 }

// in is where the messages that come in begin, behind those that go out: at a page, as
// perftest has it. Packets that lie across two are copied in two pieces by soft-RoCE.
func (c *Config) in() int {
	const page = 4096
	return (c.Buffers*c.stride() + page - 1) &^ (page - 1)
}

// Memory is what is registered, bytes: what goes out and what comes in.
func (c *Config) Memory() int { return c.in() + c.Buffers*c.stride() }

// Check refuses what is beyond the bounds, or makes no sense.
func (c *Config) Check() error {
	within := func(name string, v, least, most int) error {
		if v < least || v > most {
			return fmt.Errorf("%s %d: from %d to %d", name, v, least, most)
		}
		return nil
	}
	if err := errors.Join(
		within("size", c.Size, 1, MaxMemory/2), within("depth", c.Depth, 1, MaxDepth), within("queue pairs", c.QPs, 1, MaxQPs),
		within("messages a doorbell", c.Chain, 1, 64), within("messages a completion", c.Signal, 1, c.Depth),
		within("inline bytes", c.Inline, 0, 1024), within("buffers", c.Buffers, 1, 1<<20), within("MTU", int(c.MTU), 0, 5),
	); err != nil {
		return err
	}
	switch {
	case c.Op != OpWrite && c.Op != OpSend && c.Op != OpRead && c.Op != OpUD:
		return fmt.Errorf("op %q: write, send, read or ud", c.Op)
	case c.QPs*(c.sends()+c.receives()) > MaxPosted:
		return fmt.Errorf("%d queue pairs of depth %d: more than %d requests and receives at once", c.QPs, c.Depth, MaxPosted)
	case c.Memory() > MaxMemory:
		return fmt.Errorf("%d buffers for %d bytes: more than %d bytes of registered memory", c.Buffers, c.Size, MaxMemory)
	case c.Latency && (c.QPs > 1 || c.Both):
		return errors.New("latency: of one queue pair, with one message at a time")
	case c.Latency && c.Op == OpWrite && c.Events:
		return errors.New("latency of writes: who waits for one looks for its last byte, and no event tells of it")
	case c.Iterations < 0 || c.Duration < 0 || c.WarmUp < 0 || c.Spin < 0:
		return errors.New("a negative number of messages, or time")
	}
	return nil
}
