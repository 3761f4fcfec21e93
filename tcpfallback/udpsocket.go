package tcpfallback

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// wantedRoom is what a socket should hold of what was not read yet, bytes; the kernel may
// allow less (net.core.rmem_max).
const wantedRoom = 4 << 20

// setUp sets the socket's options. Datagrams are never cut to pieces on their way: a path
// that is too small for them is noticed instead.
func (s *datagrams) setUp(v4 bool) error {
	if v4 {
		s.batch = ipv4.NewPacketConn(s.conn)
	} else {
		s.batch = ipv6.NewPacketConn(s.conn)
	}
	return s.control(func(fd int) error {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, wantedRoom) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, wantedRoom) // it is read below
		}
		var err error
		if s.room, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil {
			return err
		}
		if v4 {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
	})
}

// join lets the kernel join what comes, where it can (Linux 5.0): datagrams of one size that
// come one after the other are read as one.
func (s *datagrams) join() error {
	return s.control(func(fd int) error {
		s.joins = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) == nil
		return nil
	})
}

func (s *datagrams) control(f func(fd int) error) error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}

// connect makes the kernel drop what comes from elsewhere. It answers how many bytes a
// datagram to there may have, without its headers.
func (s *datagrams) connect(there netip.AddrPort) (payload int, err error) {
	err = s.control(func(fd int) (err error) {
		if there.Addr().Is4() {
			if err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(there.Port()), Addr: there.Addr().As4()}); err == nil {
				payload, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
			}
			payload -= 20 + 8 // without options; UDP's
			return err
		}
		to := &unix.SockaddrInet6{Port: int(there.Port()), Addr: there.Addr().As16()}
		if zone := there.Addr().Zone(); zone != "" {
			to.ZoneId = zoneNumber(zone)
		}
		if err = unix.Connect(fd, to); err == nil {
			payload, err = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU)
		}
		payload -= 40 + 8
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("connecting a socket for datagrams with %v: %w", there, err)
	}
	return min(max(payload, wire.MinDatagram), wire.MaxDatagram), nil
}

func zoneNumber(zone string) uint32 {
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	n, _ := strconv.ParseUint(zone, 10, 32) // 0 is refused by connect(2)
	return uint32(n)
}

// controlSize is room for the one control message that there may be, of 4 bytes at the most.
var controlSize = unix.CmsgSpace(4)

// segments writes the control message that has the kernel cut what is sent into datagrams
// of so many bytes.
func segments(oob []byte, size int) []byte {
	oob = oob[:unix.CmsgSpace(2)]
	clear(oob)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], uint16(size))
	return oob
}

// joined gives the size of the datagrams that the kernel joined to one of n bytes.
func joined(oob []byte, n int) int {
	for len(oob) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return n
		}
		if h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4 {
			if size := int(binary.NativeEndian.Uint32(data)); size > 0 {
				return size
			}
		}
		oob = rest
	}
	return n
}

// cantSegment says that the kernel does not cut what is sent into datagrams here: before
// 6.2 not over a network card that leaves checksums to it.
func cantSegment(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)
}

// unheard says that the other end's socket is not there (any more).
func unheard(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }

// dropped says that the kernel had no room to send.
func dropped(err error) bool { return errors.Is(err, unix.ENOBUFS) }
