package tcpfallback

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/limit"
)

// SocketOptions are set on each TCP socket before it connects or listens. What is zero is
// left to the kernel, which tunes buffers by itself; NODELAY and keep-alives are on
// anyhow. See socket(7), tcp(7), ip(7).
type SocketOptions struct {
	SendBuffer    int           // SO_SNDBUF, bytes
	ReceiveBuffer int           // SO_RCVBUF, bytes
	Congestion    string        // TCP_CONGESTION: cubic, bbr, ...
	MSS           int           // TCP_MAXSEG, bytes; of IPv4's headers and options not counted
	DSCP          int           // IP_TOS and IPV6_TCLASS, without their two lowest bits (RFC 2474)
	Pacing        limit.Rate    // SO_MAX_PACING_RATE: the kernel spreads what leaves over time
	UserTimeout   time.Duration // TCP_USER_TIMEOUT: how long what was sent may stay unacknowledged
	NotSentLowat  int           // TCP_NOTSENT_LOWAT, bytes: no more than that waits unsent in the kernel
	// Fast open (RFC 7413) saves a round trip of each connection but the first to a host:
	// TCP_FASTOPEN_CONNECT at the end that dials, TCP_FASTOPEN at the one that listens.
	FastOpenDial, FastOpenListen bool
}

// Control sets the options of a socket (net.Dialer, net.ListenConfig). An error is a
// [*transfer.Error] with [transfer.CodeUsage] that names the flag and the mend.
func (o SocketOptions) Control(network, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) { failed = o.set(int(fd), network) })
	return errors.Join(err, failed)
}

func (o SocketOptions) set(fd int, network string) error {
	for _, opt := range []struct {
		flag   string
		wanted bool
		set    func() error
		value  any
		mend   string
	}{
		{"send-buffer", o.SendBuffer != 0, func() error {
			return setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, o.SendBuffer)
		}, o.SendBuffer, fmt.Sprintf("sysctl -w net.core.wmem_max=%d, or a smaller one", o.SendBuffer)},
		{"recv-buffer", o.ReceiveBuffer != 0, func() error {
			return setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, o.ReceiveBuffer)
		}, o.ReceiveBuffer, fmt.Sprintf("sysctl -w net.core.rmem_max=%d, or a smaller one", o.ReceiveBuffer)},
		{"congestion", o.Congestion != "", func() error { return setCongestion(fd, o.Congestion) }, o.Congestion,
			"modprobe tcp_" + o.Congestion + ", as root; sysctl net.ipv4.tcp_allowed_congestion_control for others"},
		{"mss", o.MSS != 0, func() error {
			return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, o.MSS)
		}, o.MSS, "from 88 to 32767 bytes"},
		{"dscp", o.DSCP != 0, func() error { return setDSCP(fd, network, o.DSCP) }, o.DSCP, "from 0 to 63"},
		{"pacing", o.Pacing != 0, func() error {
			return unix.SetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, uint64(o.Pacing))
		}, int64(o.Pacing), "Linux 4.20 or later; --limit needs none"},
		{"user-timeout", o.UserTimeout != 0, func() error {
			return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(o.UserTimeout.Milliseconds()))
		}, o.UserTimeout, "Linux 2.6.37 or later"},
		{"notsent-lowat", o.NotSentLowat != 0, func() error {
			return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, o.NotSentLowat)
		}, o.NotSentLowat, "Linux 3.12 or later"},
		{"fast-open", o.FastOpenDial, func() error {
			return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
		}, "", "sysctl -w net.ipv4.tcp_fastopen=3; Linux 4.11 or later"},
		{"fast-open", o.FastOpenListen, func() error { return setFastOpenListen(fd) }, "", "sysctl -w net.ipv4.tcp_fastopen=3"},
	} {
		if !opt.wanted {
			continue
		}
		if err := opt.set(); err != nil {
			return &transfer.Error{Code: transfer.CodeUsage, Err: fmt.Errorf("--%s: %w (mend: %s)", strings.TrimSpace(fmt.Sprint(opt.flag, " ", opt.value)), err, opt.mend)}
		}
	}
	return nil
}

// setBuffer sets a buffer's size: with CAP_NET_ADMIN any, else up to the kernel's bound,
// which it goes down to without a word. The kernel doubles what it is given, for its own
// bookkeeping.
func setBuffer(fd, force, plain, size int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size)
	if errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size)
	}
	if err != nil {
		return err
	}
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, plain)
	if err == nil && got/2 < size {
		err = fmt.Errorf("the kernel allows %d bytes", got/2)
	}
	return err
}

// setDSCP marks packets of both protocols where a socket may speak both.
func setDSCP(fd int, network string, dscp int) error {
	err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, dscp<<2)
	if network == "tcp6" {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, dscp<<2))
	}
	return err
}

// setCongestion says what there is where there is not what was asked for.
func setCongestion(fd int, name string) error {
	err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
	if err == nil {
		return nil
	}
	b, rerr := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
	if rerr != nil {
		return err
	}
	return fmt.Errorf("%w; there are: %s", err, strings.Join(strings.Fields(string(b)), ", "))
}

// fastOpens is how many connections that came with data may wait for their handshakes.
const fastOpens = 64

// setFastOpenListen is for a socket that listens. The kernel takes the option where it is
// switched off, and accepts no data early then.
func setFastOpenListen(fd int) error {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_fastopen")
	if err == nil {
		err = mayFastOpen(string(b))
	}
	if err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, fastOpens)
}

// mayFastOpen says from the sysctl's value why listeners can't.
func mayFastOpen(sysctl string) error {
	n, err := strconv.ParseUint(strings.TrimSpace(sysctl), 0, 32)
	switch {
	case err != nil:
		return fmt.Errorf("net.ipv4.tcp_fastopen: %w", err)
	case n&2 == 0:
		return fmt.Errorf("net.ipv4.tcp_fastopen is %d, which is without listeners", n)
	}
	return nil
}
