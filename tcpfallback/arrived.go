package tcpfallback

import (
	"net"

	"golang.org/x/sys/unix"
)

// Arrived is [transfer.Trickling], by the kernel's count (tcp_info): landings move bytes that
// the program never sees.
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
	return n
}
