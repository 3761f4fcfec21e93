package tcpfallback

import (
	"net"

	"golang.org/x/sys/unix"
)

// Arrived is [transfer.Trickling], by the kernel's count (tcp_info): landings move bytes that
// the program never sees.
// When that was asked twice and nothing had come, nobody waits for much any more.
func (p *puller) Arrived() (n uint64) {
	conn, ok := p.conn.(*net.TCPConn)
	if !ok {
		conn = p.conn.(*secured).raw
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { // what is closed brings nothing more
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Bytes_received
		}
	})
	if p.arrived.Swap(n) != n || n == 0 {
		p.still.Store(0)
	} else if p.still.Add(1) == 2 {
		p.low.disable(raw)
	}
	return n
}

// Busy is [transfer.Trickling].
func (p *puller) Busy() (busy bool) {
	conn, ok := p.conn.(*net.TCPConn)
	if !ok {
		return false // what is encrypted lands by Land
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	// Less than that may be what nobody is woken for.
	_ = raw.Control(func(fd uintptr) {
		n, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
		busy = err == nil && n >= bulk
	})
	return busy || p.low.pouring.Load()
}
