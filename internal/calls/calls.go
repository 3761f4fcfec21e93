// Package calls makes many system calls at one go. Go pays for each of its own: one that lasts
// longer than some 20 µs, as making a file may, loses its processor to another thread, which is
// woken, where other work waits. Here a whole list of them is one call into C, or, without cgo, a loop.
//
// What is made is chains, in the order in which they were begun: of a file that is opened, or
// is open, and what is done with it. In a chain a call is made only if all before it did what
// they should; the chains know nothing of each other. What is interrupted is made again.
package calls

import (
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is one system call, as run.go's C has it.
type call struct {
	number uintptr
	args   [6]uintptr
	least  int   // a result that is less is none: of a read or write that was cut short
	result int   // or minus an errno
	opened int32 // the call whose result is the first argument; -1: that is args[0]
	after  int32 // the call that must have succeeded; -1: none
}

// List is system calls that are made together. The zero value is empty. It is for one
// goroutine.
//
// The calls have the addresses of what they read and write as numbers, which keep nothing
// alive: chunks and held do. Go's heap moves nothing.
type List struct {
	calls  []call
	chunks [][]uint64 // room for names, arguments and results
	used   int        // words of the last one
	held   []*byte    // what else the calls point at
}

// Chain is the calls with one file.
type Chain struct {
	list        *List
	fd          int
	opened      int32 // the call that opens the file; -1: it is fd
	first, last int32
}

// Open begins a chain with a file of a directory that it opens (openat(2)); dir may be
// [unix.AT_FDCWD]. A path with a zero byte in it is an EFAULT.
func (l *List) Open(dir int, path string, flags int) Chain {
	c := l.With(dir)
	c.add(unix.SYS_OPENAT, 0, l.name(path), uintptr(flags|unix.O_LARGEFILE), 0)
	c.opened = c.last
	return c
}

// Open2 begins a chain with a file that it opens as how says (openat2(2), Linux 5.6).
func (l *List) Open2(dir int, path string, how unix.OpenHow) Chain {
	c := l.With(dir)
	p := (*unix.OpenHow)(l.take(unsafe.Sizeof(how)))
	*p = how
	c.add(unix.SYS_OPENAT2, 0, l.name(path), uintptr(unsafe.Pointer(p)), unsafe.Sizeof(how))
	c.opened = c.last
	return c
}

// With begins a chain with what is open.
func (l *List) With(fd int) Chain {
	return Chain{list: l, fd: fd, opened: -1, first: int32(len(l.calls)), last: -1}
}

// add adds a call whose first argument is the chain's file.
func (c *Chain) add(number uintptr, least int, args ...uintptr) {
	x := call{number: number, least: least, opened: c.opened, after: c.last}
	x.args[0] = uintptr(c.fd)
	copy(x.args[1:], args)
	c.list.calls = append(c.list.calls, x)
	c.last = int32(len(c.list.calls) - 1)
}

// Read fills b, which is not empty, from the beginning of the file (pread(2)).
func (c *Chain) Read(b []byte) { c.move(unix.SYS_PREAD64, b) }

// Write writes b, which is not empty, at the beginning of the file (pwrite(2)).
func (c *Chain) Write(b []byte) { c.move(unix.SYS_PWRITE64, b) }

// move has an offset of 0, which is the same wherever a machine wants the halves of one.
func (c *Chain) move(number uintptr, b []byte) {
	p := unsafe.SliceData(b)
	c.list.held = append(c.list.held, p)
	c.add(number, len(b), uintptr(unsafe.Pointer(p)), uintptr(len(b)))
}

// Stat looks at the file (statx(2)). What it gives is there once the list was made, until
// the next Reset.
func (c *Chain) Stat(mask int) *unix.Statx_t { return c.stat("", unix.AT_EMPTY_PATH, mask) }

// StatIn looks at what has a name in the directory that is the chain's file. Like lstat(2) it
// follows no link and mounts nothing.
func (c *Chain) StatIn(name string, mask int) *unix.Statx_t {
	return c.stat(name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, mask)
}

func (c *Chain) stat(name string, flags, mask int) *unix.Statx_t {
	st := (*unix.Statx_t)(c.list.take(unsafe.Sizeof(unix.Statx_t{})))
	c.add(unix.SYS_STATX, 0, c.list.name(name), uintptr(flags), uintptr(mask), uintptr(unsafe.Pointer(st)))
	return st
}

// Times sets the times of access and modification (utimensat(2)), nanoseconds since 1970.
func (c *Chain) Times(ns int64) {
	both := (*[2]unix.Timespec)(c.list.take(unsafe.Sizeof([2]unix.Timespec{})))
	both[0] = unix.NsecToTimespec(ns)
	both[1] = both[0]
	c.add(unix.SYS_UTIMENSAT, 0, 0, uintptr(unsafe.Pointer(both)), 0)
}

// Link gives the file a name in a directory (linkat(2) with AT_EMPTY_PATH, which takes
// CAP_DAC_READ_SEARCH before Linux 6.10).
func (c *Chain) Link(dir int, name string) {
	c.add(unix.SYS_LINKAT, 0, c.list.name(""), uintptr(dir), c.list.name(name), unix.AT_EMPTY_PATH)
}

// LinkProc is Link for everybody, where there is a /proc, of a file that was open before.
func (c *Chain) LinkProc(dir int, name string) {
	c.add(unix.SYS_LINKAT, 0, c.list.name("/proc/self/fd/"+strconv.Itoa(c.fd)), uintptr(dir), c.list.name(name), unix.AT_SYMLINK_FOLLOW)
}

// Close closes the file (close(2)), if everything before did what it should. Whatever that
// says, the file is closed.
func (c *Chain) Close() { c.add(unix.SYS_CLOSE, 0) }

// Made says what came of the chain, once its list was made: the file's descriptor, if it is
// open, else -1, and an errno of the call that failed, with which the chain ended. A read or
// write that moved less than it should is [unix.ENODATA].
func (c *Chain) Made() (fd int, err error) {
	fd = c.fd
	if c.opened >= 0 {
		fd = max(c.list.calls[c.opened].result, -1)
	}
	for _, x := range c.list.calls[c.first : c.last+1] {
		switch {
		case x.number == unix.SYS_CLOSE && x.result != -int(unix.ECANCELED):
			fd = -1
		case x.result < 0 && err == nil:
			err = unix.Errno(-x.result)
		}
	}
	return fd, err
}

// Make makes the calls, each once.
func (l *List) Make() {
	if len(l.calls) > 0 {
		run(l.calls)
	}
}

// loop is what run does in C.
func loop(list []call) {
	for i := range list {
		x := &list[i]
		if x.after >= 0 && list[x.after].result < 0 {
			x.result = -int(unix.ECANCELED)
			continue
		}
		if x.opened >= 0 {
			x.args[0] = uintptr(list[x.opened].result)
		}
		a := &x.args
		r, _, errno := unix.Syscall6(x.number, a[0], a[1], a[2], a[3], a[4], a[5])
		for errno == unix.EINTR && x.number != unix.SYS_CLOSE {
			r, _, errno = unix.Syscall6(x.number, a[0], a[1], a[2], a[3], a[4], a[5])
		}
		switch x.result = int(r); {
		case errno != 0:
			x.result = -int(errno)
		case x.result < x.least:
			x.result = -int(unix.ENODATA)
		}
	}
}

// Reset empties the list: its chains, and what they gave, are void.
func (l *List) Reset() {
	clear(l.held)
	clear(l.chunks[min(1, len(l.chunks)):]) // room behind a slice's end keeps what is in it alive
	l.calls, l.held = l.calls[:0], l.held[:0]
	l.chunks, l.used = l.chunks[:min(1, len(l.chunks))], 0
}

// chunkWords is room for a statx(2) and the path of each of 64 files, so that one chunk, which is kept, is mostly enough.
const chunkWords = 8192

// take gives so many bytes of zeroes, which begin where anything may.
func (l *List) take(bytes uintptr) unsafe.Pointer {
	words := int(bytes+7) / 8
	if n := len(l.chunks); n == 0 || len(l.chunks[n-1])-l.used < words {
		l.chunks = append(l.chunks, make([]uint64, max(words, chunkWords)))
		l.used = 0
	}
	p := l.chunks[len(l.chunks)-1][l.used:][:words]
	l.used += words
	clear(p)
	return unsafe.Pointer(unsafe.SliceData(p))
}

// name gives the address of a name as C has it; 0, which no call takes, for one that C can't
// have.
func (l *List) name(s string) uintptr {
	if strings.IndexByte(s, 0) >= 0 {
		return 0
	}
	p := l.take(uintptr(len(s)) + 1)
	copy(unsafe.Slice((*byte)(p), len(s)), s)
	return uintptr(p)
}
