package main

import (
	"os"
	"runtime"
	"sync/atomic"
)

// collectAfter is how many bytes more may become garbage before it is collected than what
// Go allows by itself, as many as are in use: who sends or lands small files uses 5 MiB, and
// would collect each time that as much is used up. More would spare some collections and
// cost page faults: 24 MiB took an eighth more time than this, where a fault is 14 us.
const collectAfter = 4 << 20

// inUse is collectAfter bytes, as the collector sees it. Nobody touches them, so they take no memory.
var inUse atomic.Pointer[[collectAfter]byte]

// collectLate makes it so once there was a collection: to ask for them may bring one about, and
// most transfers are over before.
func collectLate() {
	first := new(*byte) // what has pointers is an object of its own
	runtime.AddCleanup(first, func(int) { inUse.Store(new([collectAfter]byte)) }, 0)
}

// leastAtOnce is how much Go code may run at a time, where the machine has fewer processors and
// nobody set GOMAXPROCS: who is in a system call counts until the runtime's monitor looks, and
// a receiver of small files is in little else.
const leastAtOnce = 4

// runMore makes it so. It stops all goroutines for that, which takes two milliseconds where
// threads are slow to wake.
func runMore() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < leastAtOnce {
		runtime.GOMAXPROCS(leastAtOnce)
	}
}
