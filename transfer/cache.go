package transfer

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// residency is which pages of a file were in the page cache when it was looked at. Its
// zero value is of a file of which none was.
type residency struct {
	size  int64 // bytes, of the file
	count int64 // pages that were there
	all   bool
	pages bitmap // those that were there, when some were and some not
}

// pageSize is the page cache's, bytes.
var pageSize = int64(os.Getpagesize())

// mincoreAtOnce is how much of a file is mapped to be looked at, bytes.
const mincoreAtOnce = 64 << 20

// residencyOf looks at a file of so many bytes. cachestat(2) (Linux 6.5) says at once
// whether there is nothing or everything, mincore(2) page by page. The kernel tells those
// alone who own the file or may write to it; to others everything seems to be there, so
// they leave everything there.
func residencyOf(fd int, size int64) (residency, error) {
	r := residency{size: size}
	total := (size + pageSize - 1) / pageSize
	var stat unix.Cachestat_t
	if unix.Cachestat(uint(fd), &unix.CachestatRange{Len: uint64(total * pageSize)}, &stat, 0) == nil {
		r.count = int64(stat.Cache)
		if r.all = r.count >= total; r.all || r.count == 0 {
			return r, nil
		}
	}
	r.count = 0
	for off := int64(0); off < size; off += mincoreAtOnce {
		if err := r.look(fd, off, min(mincoreAtOnce, size-off)); err != nil {
			return r, err
		}
	}
	r.all = r.count == total
	return r, nil
}

// look notes the pages of a range.
func (r *residency) look(fd int, off, n int64) error {
	mem, err := unix.Mmap(fd, off, int(n), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(mem)
	there := make([]byte, (n+pageSize-1)/pageSize)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(n), uintptr(unsafe.Pointer(&there[0]))); errno != 0 {
		return os.NewSyscallError("mincore", errno)
	}
	for i, b := range there {
		if b&1 != 0 {
			r.pages.set(int(off/pageSize) + i)
			r.count++
		}
	}
	return nil
}

// has reports whether all of a range was there.
func (r *residency) has(off, n int64) bool {
	if r.all || r.count == 0 {
		return r.all
	}
	for page := off / pageSize; page*pageSize < off+n; page++ {
		if !r.pages.has(int(page)) {
			return false
		}
	}
	return true
}

// restore drops from the page cache what of a range was not there. Pages that are dirty,
// locked or mapped stay, as posix_fadvise(2) has it.
func (r *residency) restore(fd int, off, n int64) {
	if r.all {
		return
	}
	if r.count == 0 {
		drop(fd, off, n)
		return
	}
	from := off
	for page := off / pageSize; page*pageSize < off+n; page++ {
		if at := page * pageSize; r.pages.has(int(page)) {
			if at > from {
				drop(fd, from, at-from)
			}
			from = at + pageSize
		}
	}
	if from < off+n {
		drop(fd, from, off+n-from)
	}
}

// drop drops clean pages of a range from the page cache: whole pages alone, so a range
// that ends within one is rounded up.
func drop(fd int, off, n int64) {
	n = (off+n+pageSize-1)/pageSize*pageSize - off
	_ = unix.Fadvise(fd, off, n, unix.FADV_DONTNEED) // advice: there is nothing to be done about it
}
