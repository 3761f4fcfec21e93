package ibverbs

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

const hugePage = 2 << 20

// mapAnonymous maps zeroed memory outside the Go heap. Regions of a huge page or
// more ask for transparent huge pages: fewer entries in the device's tables.
func mapAnonymous(size int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil && size >= hugePage {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // a wish: kernels without THP refuse it
	}
	return b, err
}

func unmap(b []byte) error { return unix.Munmap(b) }

// memlockLimit says RLIMIT_MEMLOCK in words.
func memlockLimit() string {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil {
		return "an unknown amount"
	}
	if l.Cur == unix.RLIM_INFINITY {
		return "nothing by RLIMIT_MEMLOCK (memory.max of the cgroup, or the device's own limit, then)"
	}
	return fmt.Sprintf("%d KiB", l.Cur>>10)
}

func dupCloexec(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }
