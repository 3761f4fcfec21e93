package main

import (
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// collectAfter is how many bytes more may become garbage before it is collected than what
// Go allows by itself, as many as are in use: who sends or lands small files uses 5 MiB, and
// would collect each time that as much is used up. More would spare some collections and
// cost page faults: 24 MiB took an eighth more time than this, where a fault is 14 us, and in
// huge pages no less.
const collectAfter = 4 << 20

// inUse is collectAfter bytes, as the collector sees it. Nobody touches them, so they take no memory.
var inUse atomic.Pointer[[collectAfter]byte]

// askForThem asks for them, once.
func askForThem() {
	if inUse.Load() == nil {
		inUse.CompareAndSwap(nil, new([collectAfter]byte))
	}
}

// collectLate makes it so once there was a collection: to ask for them may bring one about, and
// most transfers are over before.
func collectLate() {
	first := new(*byte) // what has pointers is an object of its own
	runtime.AddCleanup(first, func(int) { askForThem() }, 0)
}

// hugePage is what the kernel gives at once where it may (PMD_SIZE of the machines that have
// RDMA), and hugeRoom as much of the heap as is made of them.
const (
	hugePage = 2 << 20
	hugeRoom = 32 << 20
)

// hugeHeap has what the heap grows by in huge pages, if the kernel grants them to who asks
// (/sys/kernel/mm/transparent_hugepage/enabled). Go maps 4 MiB at a time and asks for nothing,
// and 20,000 small files were 3,000 page faults of each end, a tenth of their time in a guest.
// So hugeRoom is asked for as one object, which is one mapping, and freed untouched: the heap
// then takes from there what it needs next. It takes two collections, 8 ms where threads
// are slow to start, so it is for who has many files to come, or nothing else to do.
func hugeHeap() {
	askForThem() // before, so that they are not of what is freed, which Go would have to clear
	room := uintptr(unsafe.Pointer(new([hugeRoom]byte)))
	// What lies below in the same page is of inUse, or others': their pages are what they are.
	below := room % hugePage
	// Where the kernel has no such pages, there are none.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, room-below, hugeRoom+below, unix.MADV_HUGEPAGE)
	runtime.GC()
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
