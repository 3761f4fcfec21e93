//go:build linux

package verbsperf

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// shortSlice keeps the calling goroutine on one thread and asks the kernel to run that in
// short turns (sched_setattr(2), from Linux 6.12 on; refused, nothing is lost). Who polls
// has the processor all the time, and soft-RoCE's own threads, for which it polls, wait
// until the poller's turn is over. restore takes it back.
func shortSlice() (restore func()) {
	runtime.LockOSThread()
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return runtime.UnlockOSThread
	}
	short := *before
	short.Runtime = uint64(100 * time.Microsecond)
	if unix.SchedSetAttr(0, &short, 0) != nil {
		return runtime.UnlockOSThread
	}
	return func() {
		_ = unix.SchedSetAttr(0, before, 0) // as it was allowed before
		runtime.UnlockOSThread()
	}
}
