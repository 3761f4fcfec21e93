package transfer

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// aliveReader gives every read of the connection its own deadline, so that a long frame on a
// slow link is not taken for silence. Nor is what the kernel has heard and can't hand on yet:
// less than a TLS record, or what came behind a packet that was lost. A peer that is heard of
// may take its time to read, too: its storage is slow, and a write that is under way waits for
// it, until this end has had enough.
type aliveReader struct {
	conn   net.Conn
	heard  func() uint32 // counts what has come of the peer's
	last   uint32        // its answer when the connection was looked at last
	enough *atomic.Bool
}

func (r *aliveReader) Read(p []byte) (n int, err error) {
	for quiet := 0; ; {
		if err := r.conn.SetReadDeadline(time.Now().Add(silence / 2)); err != nil {
			return 0, err
		}
		n, err = r.conn.Read(p)
		late := errors.Is(err, os.ErrDeadlineExceeded) // TLS reads on after that where it was
		if err != nil && !late {
			return n, err
		}
		was := r.last
		if r.last = r.heard(); late && r.last == was {
			if quiet++; quiet == 2 {
				return n, err
			}
			continue
		}
		quiet = 0
		if !r.enough.Load() {
			if err := r.conn.SetWriteDeadline(time.Now().Add(silence)); err != nil {
				return n, err
			}
		}
		if !late {
			return n, nil
		}
	}
}

// patience gives a write more time as long as the peer is heard of, like [aliveReader], and
// while nobody reads: who does may be the one who writes.
type patience struct {
	conn   net.Conn
	heard  func() uint32
	enough *atomic.Bool

	mu      sync.Mutex
	timer   *time.Timer
	writing bool
	looks   int // since the write began
	last    uint32
}

// begin is called before a write, end after it.
func (p *patience) begin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writing, p.looks = true, 0
	if p.timer == nil {
		p.timer = time.AfterFunc(silence/4, p.look)
	} else {
		p.timer.Reset(silence / 4)
	}
	return p.conn.SetWriteDeadline(time.Now().Add(silence))
}

func (p *patience) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writing = false
	p.timer.Stop()
}

func (p *patience) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.writing {
		return
	}
	was := p.last
	p.last = p.heard()
	if p.looks++; p.looks > 1 && p.last != was && !p.enough.Load() {
		_ = p.conn.SetWriteDeadline(time.Now().Add(silence)) // what is closed waits for nothing
	}
	p.timer.Reset(silence / 4)
}

// segments counts the packets with data that a connection has received, in order or not
// (tcp_info): a stopped program's kernel sends none. 0 where that is not known.
func segments(conn *tls.Conn) (n uint32) {
	under := conn.NetConn()
	if u, ok := under.(*unreadConn); ok { // as a listener's are
		under = u.Conn
	}
	tcp, ok := under.(*net.TCPConn)
	if !ok {
		return 0
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Data_segs_in
		}
	})
	return n
}
