package main

import (
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// batched has the kernel's scheduler take this process, while a transfer runs, for what it is,
// one that has much to do and is not waited for (sched(7), SCHED_BATCH): a thread that wakes
// up has its share as before, but does not take the processor from another in the middle of
// its work, often the one that woke it. Go's monitor alone does so hundreds of times a second.
// What is measured over a session is not meant: how soon it comes is what counts there.
type batched struct {
	*output
	begin sync.Once
	begun bool
}

// Planned is called when the first lane carries.
func (b *batched) Planned(p transfer.Plan) {
	b.begin.Do(func() {
		b.begun = true
		transfers.add(1)
	})
	b.output.Planned(p)
}

// ended is for when Planned is not called any more.
func (b *batched) ended() {
	if b.begun {
		transfers.add(-1)
	}
}

// transfers are those of this process that run.
var transfers batch

// batch is how many there are for whose sake this process is batch work.
type batch struct {
	mu sync.Mutex
	n  int
}

func (b *batch) add(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n += n
	switch {
	case n > 0 && b.n == n:
		reschedule(unix.SCHED_NORMAL, unix.SCHED_BATCH)
	case n < 0 && b.n == 0:
		reschedule(unix.SCHED_BATCH, unix.SCHED_NORMAL)
	}
}

// reschedule gives those threads of this process another policy that have the one: who started
// it by a third keeps that.
func reschedule(from, to uint32) {
	// Threads take after those that make them. One that was being made meanwhile is seen when
	// its maker has been changed: so it is looked twice more.
	for quiet := 0; quiet < 2; quiet++ {
		threads, _ := os.ReadDir("/proc/self/task")
		for _, t := range threads {
			if id, err := strconv.Atoi(t.Name()); err == nil && setPolicy(id, from, to) {
				quiet = -1
			}
		}
	}
}

// setPolicy reports whether it has changed a thread's. One that has ended, or what a sandbox
// forbids, is left as it is.
func setPolicy(thread int, from, to uint32) bool {
	attr, err := unix.SchedGetAttr(thread, 0)
	if err != nil || attr.Policy != from {
		return false
	}
	attr.Policy = to
	return unix.SchedSetAttr(thread, attr, 0) == nil
}
