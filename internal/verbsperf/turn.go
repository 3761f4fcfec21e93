//go:build linux

package verbsperf

import (
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// software says whether a device is a program of this host, as rdma_rxe is: it hangs on no
// bus.
func software(device string) bool {
	_, err := os.Stat(filepath.Join("/sys/class/infiniband", device, "device"))
	return os.IsNotExist(err)
}

// givingWay runs f on a thread of its own that gives way to others (nice 19, sched(7)).
// Messages of a software device are carried by the kernel's threads, on the processors that
// those who poll for them keep for turns of milliseconds. Nobody may take that back without
// privileges, so the thread ends with f.
func givingWay[T any](f func() (T, error)) (v T, err error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread()                                     // and never unlocked: the thread ends here
		_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19) // refused, nothing is lost but speed
		v, err = f()
	}()
	<-ended
	return v, err
}

// morePs sees to it that a thread that blocks in C does not hold the only P: the runtime
// takes that away at once, and again and again.
func morePs() {
	if runtime.GOMAXPROCS(0) == 1 {
		runtime.GOMAXPROCS(2)
	}
}
