package transfer

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Work is what a process did that can be counted, and is the same whatever else the host
// does: what a gate can go by where times can't be trusted.
type Work struct {
	Crossings   int64 // calls into C
	Allocations int64 // on the heap
	SystemCalls int64 // -1: the kernel does not tell this process
}

// worker counts what this process does.
type worker struct {
	before Work
	fds    []int // perf events, one for each thread that there was
}

// startCounting begins; stop ends and gives the count. System calls are counted by the
// kernel's tracepoint, which costs a little with each of them.
func startCounting() *worker {
	w := &worker{fds: traceSystemCalls()}
	w.before = w.now()
	return w
}

func (w *worker) stop() Work {
	n := w.now()
	for _, fd := range w.fds {
		unix.Close(fd)
	}
	d := Work{n.Crossings - w.before.Crossings, n.Allocations - w.before.Allocations, -1}
	if w.before.SystemCalls >= 0 && n.SystemCalls >= 0 {
		d.SystemCalls = n.SystemCalls - w.before.SystemCalls
	}
	return d
}

func (w *worker) now() Work {
	var m runtime.MemStats
	runtime.ReadMemStats(&m) // runtime/metrics leaves out what processors have not told yet
	n := Work{runtime.NumCgoCall(), int64(m.Mallocs), -1}
	if len(w.fds) > 0 {
		n.SystemCalls = 0
	}
	for _, fd := range w.fds {
		var count [8]byte // perf_event_open(2): of the thread, and of those that it made
		if got, err := unix.Read(fd, count[:]); err != nil || got != len(count) {
			n.SystemCalls = -1
			break
		}
		n.SystemCalls += int64(binary.NativeEndian.Uint64(count[:]))
	}
	return n
}

// traceSystemCalls opens a counter of system calls (the tracepoint raw_syscalls:sys_enter)
// for each thread; nothing where that is not allowed, or there is no tracefs.
func traceSystemCalls() (fds []int) {
	b, err := os.ReadFile("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id")
	if err != nil {
		return nil
	}
	id, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil {
		return nil
	}
	threads, _ := filepath.Glob("/proc/self/task/*") // the pattern is good
	for _, t := range threads {
		tid, err := strconv.Atoi(filepath.Base(t))
		if err != nil {
			continue
		}
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Config: id, Bits: unix.PerfBitInherit}
		if fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC); err == nil {
			fds = append(fds, fd)
		}
	}
	return fds
}

func (w Work) wire() *wire.Work {
	return &wire.Work{Crossings: w.Crossings, Allocations: w.Allocations, SystemCalls: w.SystemCalls}
}
