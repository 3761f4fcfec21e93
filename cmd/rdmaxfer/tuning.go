package main

import (
	"os"
	"runtime"
	"runtime/debug"
)

// collectAfter is how many bytes more may become garbage before it is collected than what
// Go allows by itself, as many as are in use: a program that uses 5 MiB would collect each
// time that 5 MiB more are used up, which of small files took a twentieth of the time.
const collectAfter = 24 << 20

// leastHeap is what Go lets a heap grow to before it collects for the first time, at 100 percent.
const leastHeap = 4 << 20

// inUse is collectAfter bytes, as the collector sees it. Nobody touches them, so they take no memory.
var inUse []byte

// collectLate lets collectAfter bytes be used up before the first collection, and as many more
// before each that follows. To ask for inUse is a collection by itself, so that is left until
// there is one: most transfers are over before.
func collectLate() {
	percent := debug.SetGCPercent(100 * collectAfter / leastHeap)
	if percent < 0 || percent > 100*collectAfter/leastHeap { // GOGC asked for even fewer
		debug.SetGCPercent(percent)
		return
	}
	type first struct{ self *first } // has a pointer, so it is an object of its own
	runtime.AddCleanup(&first{}, func(percent int) {
		inUse = make([]byte, collectAfter)
		debug.SetGCPercent(percent)
	}, percent)
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
