package tcpfallback

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bulk is how much of an extent shall have come before anybody is woken for it, bytes.
// Go's netpoller is woken for all that comes, also while nobody waits: on loopback more than a
// thousand times a second, by which the runtime's monitor never came to rest either.
const bulk = 512 << 10

// lowWater is a connection that wakes who waits when there is enough of what is expected
// (SO_RCVLOWAT, socket(7)).
type lowWater struct {
	*net.TCPConn // nil where a lane is encrypted
	least        int
	off          atomic.Bool   // for good
	pouring      atomic.Bool   // what has come goes into its file
	poured       time.Duration // how long it did, by calls that take turns at the file; of the extent that arrives
}

// expect says that so many bytes come next. Of much nobody hears before there is some of it.
func (l *lowWater) expect(n int) error {
	if l.TCPConn == nil || n < bulk || l.least == bulk || l.off.Load() {
		return nil
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = l.raise(int(fd), bulk) }); cerr != nil {
		return cerr
	}
	if err != nil { // a network stack without it: the lane is woken more often
		l.least = 0
		l.off.Store(true)
	}
	return nil
}

// disable has who waits woken by whatever comes. Kernels before 5.7, and some under memory
// pressure, wake nobody when many small segments have filled the receive buffer with fewer bytes
// than are waited for, by what later ones were mended for ("tcp: fix SO_RCVLOWAT hangs with fat
// skbs"); being told they look again.
func (l *lowWater) disable(raw syscall.RawConn) {
	if !l.off.Swap(true) {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1) })
	}
}

func (l *lowWater) raise(fd, n int) error {
	l.least = n
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n)
	if l.off.Load() { // disable came in between, and is not called again
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1)
	}
	return os.NewSyscallError("setsockopt", err)
}

// read is rawRead, and waits for no more than is missing. Whoever reads in another way may wait
// for what never comes.
func (l *lowWater) read(n int, call func(fd, done int) (int, error)) error {
	return rawRead(l.TCPConn, n, func(fd, done int) (int, error) {
		k, err := call(fd, done)
		if err == unix.EAGAIN && l.least > n-done && !l.off.Load() {
			if err := l.raise(fd, n-done); err != nil {
				return 0, err
			}
			k, err = call(fd, done) // it may have come in between
		}
		return k, err
	})
}

// fill reads len(b) bytes. Where nothing was ever expected it allocates nothing for that.
func (p *puller) fill(b []byte) error {
	if p.low.least == 0 {
		_, err := io.ReadFull(p.conn, b)
		return err
	}
	return p.low.read(len(b), func(fd, done int) (int, error) { return unix.Read(fd, b[done:]) })
}
