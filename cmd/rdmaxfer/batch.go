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
	begun bool
}

// Planned is called when the first lane carries, and when that changes.
func (b *batched) Planned(p transfer.Plan) {
	if !b.begun {
		b.begun = true
		transfers.begin()
	}
	b.output.Planned(p)
}

// ended is for when Planned is not called any more.
func (b *batched) ended() {
	if b.begun {
		transfers.end()
	}
}

// transfers are those of this process that run.
var transfers batch

// batch is how many there are for whose sake this process is batch work.
type batch struct {
	mu      sync.Mutex
	n       int
	changed bool // by the first; else it was started by another policy, which it keeps
}

func (b *batch) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.n++; b.n == 1 {
		b.changed = reschedule(unix.SCHED_NORMAL, unix.SCHED_BATCH)
	}
}

func (b *batch) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.n--; b.n == 0 && b.changed {
		reschedule(unix.SCHED_BATCH, unix.SCHED_NORMAL)
	}
}

// reschedule gives those threads of this process another policy that have the one, and reports
// whether there were any.
func reschedule(from, to uint32) (changed bool) {
	// Threads take after those that make them. One that was being made meanwhile is seen when
	// its maker has been changed: so it is looked twice more.
	for quiet := 0; quiet < 2; quiet++ {
		threads, _ := os.ReadDir("/proc/self/task")
		for _, t := range threads {
			if id, err := strconv.Atoi(t.Name()); err == nil && setPolicy(id, from, to) {
				changed, quiet = true, -1
			}
		}
	}
	return changed
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
