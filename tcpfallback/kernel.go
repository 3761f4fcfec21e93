package tcpfallback

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// bootID is where a kernel says which it is, since when it booted (random(4)): the same in
// its containers, but for those that were given one of their own.
const bootID = "/proc/sys/kernel/random/boot_id"

// kernel is which kernel this is, for whoever has the lane's ticket; empty where it does not say.
func kernel(path string, ticket [32]byte) string {
	id, err := os.ReadFile(path)
	if err != nil || len(id) == 0 {
		return ""
	}
	mac := hmac.New(sha256.New, ticket[:])
	mac.Write(id)
	return hex.EncodeToString(mac.Sum(nil))
}

// sameKernel reports whether both ends of a lane are processes of one kernel, be it in several
// containers: their packets meet no network, unless somebody leads them there. A machine that was started from another's
// snapshot has that one's ID, and is taken for it.
func sameKernel(path string, l *wire.TCPLane) bool {
	own := kernel(path, l.Ticket)
	return own != "" && hmac.Equal([]byte(own), []byte(l.Kernel))
}

// unpaced takes BBR off a connection of this host with itself: there is
// no path to find out about, and BBR paces all the same, which costs more than half of the
// rate of a lane (docs/performance.md). reno every kernel has, and every user may choose. A
// socket that BBR had when it connected goes on pacing under any other, so this is a
// [transfer.Control].
func unpaced(network, address string, c syscall.RawConn) error {
	var name string
	_ = c.Control(func(fd uintptr) { name, _ = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION) })
	if strings.HasPrefix(name, "bbr") {
		_ = SocketOptions{Congestion: "reno"}.Control(network, address, c) // what can't be set stays as it was
	}
	return nil
}

// withinHost is unpaced where the address is this host's, and nothing else.
func withinHost(network, address string, c syscall.RawConn) error {
	if to, err := netip.ParseAddrPort(address); err != nil || !ofThisHost(to.Addr()) {
		return nil
	}
	return unpaced(network, address, c)
}

// ofThisHost reports whether an address is surely one of this host's. A link's own addresses
// mean something there alone: another link may have the same one.
func ofThisHost(a netip.Addr) bool {
	a = a.Unmap()
	if a.IsLoopback() {
		return true
	}
	var own []net.Addr
	if !a.IsLinkLocalUnicast() {
		own, _ = net.InterfaceAddrs()
	} else if link, err := net.InterfaceByName(a.Zone()); err == nil {
		own, _ = link.Addrs()
	}
	a = a.WithZone("")
	return slices.ContainsFunc(own, func(n net.Addr) bool {
		p, ok := n.(*net.IPNet)
		if !ok {
			return false
		}
		mine, _ := netip.AddrFromSlice(p.IP)
		return mine.Unmap() == a
	})
}
