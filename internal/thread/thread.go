// Package thread says what the calling thread has used. Who asks twice locks the goroutine
// to its thread in between (runtime.LockOSThread).
package thread

import (
	"time"

	"golang.org/x/sys/unix"
)

// Time is how long it was on a processor (clock_gettime(2), CLOCK_THREAD_CPUTIME_ID).
func Time() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // which Linux has since 2.6
	return time.Duration(t.Nano())
}

// Reads is how much it had read from disks, in blocks and in pages that it touched (getrusage(2),
// ru_inblock and ru_majflt). What was in memory is none.
func Reads() int64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &u) // which Linux has since 2.6.26
	return int64(u.Inblock + u.Majflt)
}
