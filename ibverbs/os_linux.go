package ibverbs

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapMemory maps zeroed memory outside the Go heap, at least size bytes.
func mapMemory(size int, o MemoryOptions) ([]byte, error) {
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	var b []byte
	err := error(ErrUnsupported)
	if o.HugePages {
		whole := (size + hugePageSize - 1) &^ (hugePageSize - 1)
		if b, err = unix.Mmap(-1, 0, whole, prot, flags|unix.MAP_HUGETLB); err != nil && o.Require {
			return nil, fmt.Errorf("huge pages: %w (more of them: sysctl vm.nr_hugepages=%d)", err, whole/hugePageSize)
		}
	}
	if err != nil {
		if b, err = unix.Mmap(-1, 0, size, prot, flags); err != nil {
			return nil, err
		}
		if size >= hugePageSize {
			_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // a wish: kernels without THP refuse it
		}
	}
	if o.OnNode {
		if err := putOnNode(b, o.Node, o.Require); err != nil && o.Require {
			_ = unmap(b)
			return nil, fmt.Errorf("NUMA node %d: %w", o.Node, err)
		}
	}
	return b, nil
}

// The memory policies of mbind(2): of a full node, MPOL_BIND would rather kill the process
// than take another's pages.
const (
	mpolPreferred = 1
	mpolBind      = 2
)

// putOnNode asks for the pages of a fresh mapping on one NUMA node, before anything touches
// them; only there, where that is required.
func putOnNode(b []byte, node int, required bool) error {
	policy := uintptr(mpolPreferred)
	if required {
		policy = mpolBind
	}
	var mask [16]uint64 // 1024 nodes
	if node < 0 || node >= 64*len(mask) {
		return unix.EINVAL
	}
	mask[node/64] = 1 << (node % 64)
	_, _, errno := unix.Syscall6(unix.SYS_MBIND, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		policy, uintptr(unsafe.Pointer(&mask)), uintptr(64*len(mask)+1), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func unmap(b []byte) error { return unix.Munmap(b[:cap(b)]) }

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

func openEventFD() (int, error) { return unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK) }

// raiseEventFD makes the descriptor readable, until it is read.
func raiseEventFD(fd int) {
	_, _ = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // refused only when it is readable for long
}

func closeFD(fd int) error { return unix.Close(fd) }

// mapReadOnlyFile maps one page of a file that exists for that alone, shared and
// read-only, as the page cache of a source would be.
func mapReadOnlyFile() ([]byte, error) {
	fd, err := unix.MemfdCreate("ibverbs-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(fd)
	size := os.Getpagesize()
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, os.NewSyscallError("ftruncate", err)
	}
	return unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
}
