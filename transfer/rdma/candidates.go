package rdma

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Candidate is an address over which this host's RDMA can be reached: a device, a
// port of it that is up, and a GID (or, on InfiniBand, a LID).
type Candidate struct {
	Device   string
	Port     uint8
	GIDIndex uint8
	GID      ibverbs.GID
	LID      uint16
	MTU      ibverbs.MTU
	Ethernet bool
}

func (c *Candidate) wire() wire.Candidate {
	return wire.Candidate{Device: c.Device, Port: c.Port, GIDIndex: c.GIDIndex, GID: c.GID, LID: c.LID, MTU: uint8(c.MTU), Ethernet: c.Ethernet}
}

// ErrNoPath says that this host has no usable RDMA address; what wraps it says why.
var ErrNoPath = errors.New("no usable RDMA address")

// Candidates lists the addresses of this host, in the order of the devices. There
// being none is an error that says what stands in the way.
func Candidates() ([]Candidate, error) {
	devices, err := ibverbs.Devices()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoPath, err)
	}
	if len(devices) == 0 {
		return nil, fmt.Errorf("%w: no RDMA device (see: rdmaxfer devices)", ErrNoPath)
	}
	local, err := localAddrs()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoPath, err)
	}
	var list []Candidate
	var reasons []string
	for _, d := range devices {
		found, why := probe(d, local)
		list = append(list, found...)
		reasons = append(reasons, why...)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoPath, strings.Join(reasons, "; "))
	}
	return list, nil
}

// localAddrs are the addresses of this network namespace. A GID table also shows
// those of other namespaces; a packet with such a source goes nowhere.
func localAddrs() (map[netip.Addr]bool, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	local := make(map[netip.Addr]bool)
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				local[ip.Unmap()] = true
			}
		}
	}
	return local, nil
}

// probe lists the addresses of one device, and why it has no more.
func probe(d ibverbs.Device, local map[netip.Addr]bool) (list []Candidate, reasons []string) {
	because := func(format string, args ...any) {
		reasons = append(reasons, d.Name+" "+fmt.Sprintf(format, args...))
	}
	if d.Transport != ibverbs.TransportIB {
		because("is not InfiniBand or RoCE: its queue pairs can't be connected this way")
		return
	}
	ctx, err := ibverbs.Open(d.Name)
	if err != nil {
		because("can't be opened: %v", err)
		return
	}
	defer ctx.Close()
	attr, err := ctx.QueryDevice()
	if err != nil {
		because("does not answer: %v", err)
		return
	}
	gids, err := ctx.GIDTable()
	if err != nil {
		because("has no GID table: %v", err)
		return
	}
	for port := 1; port <= attr.Ports; port++ {
		pa, err := ctx.QueryPort(port)
		if err != nil {
			because("port %d does not answer: %v", port, err)
			continue
		}
		if pa.State != ibverbs.PortActive {
			because("port %d is %v (ip link set dev NETDEV up)", port, pa.State)
			continue
		}
		n := len(list)
		for _, g := range gids {
			if g.Port == port && usable(g, &pa, local) {
				list = append(list, Candidate{
					Device:   d.Name,
					Port:     uint8(port),
					GIDIndex: uint8(g.Index),
					GID:      g.GID,
					LID:      pa.LID,
					MTU:      pa.ActiveMTU,
					Ethernet: pa.LinkLayer == ibverbs.LinkEthernet,
				})
			}
		}
		if len(list) == n {
			because("port %d has no usable GID: give its network device an address of this host (ip addr add)", port)
		}
	}
	return list, reasons
}

// usable leaves out what can't carry packets from here: RoCE v1, which is not
// routed and which rxe lacks; link-local addresses, which name a link only
// together with an interface; addresses of other network namespaces.
func usable(g ibverbs.GIDEntry, port *ibverbs.PortAttr, local map[netip.Addr]bool) bool {
	if g.Index > 255 {
		return false // a GID index has eight bits in the verbs
	}
	if port.LinkLayer != ibverbs.LinkEthernet {
		return g.Index == 0
	}
	a := g.GID.Addr()
	return g.Type == ibverbs.GIDTypeRoCEv2 && !a.IsLinkLocalUnicast() && local[a]
}

// choose finds the best pair of addresses. Addresses of one subnet, as far as the
// longest common prefix tells, come before such that need a router; IPv4 before
// IPv6 otherwise; then the first.
func choose(mine []Candidate, theirs []wire.Candidate) (local, remote int, err error) {
	best := -1
	for i := range mine {
		for j := range theirs {
			if s := score(&mine[i], &theirs[j]); s > best {
				best, local, remote = s, i, j
			}
		}
	}
	if best < 0 {
		return 0, 0, fmt.Errorf("%w in common: the receiver has %s, the sender %s", ErrNoPath, mine[0].GID, ibverbs.GID(theirs[0].GID))
	}
	return local, remote, nil
}

func score(m *Candidate, t *wire.Candidate) int {
	a, b := m.GID.Addr(), ibverbs.GID(t.GID).Addr()
	if m.Ethernet != t.Ethernet || m.Ethernet && a.Is4() != b.Is4() {
		return -1
	}
	s := commonBits(m.GID, t.GID)
	if a == b {
		s = 96 // one address for both ends: a host that sends to itself
	}
	return s
}

// commonBits counts the leading bits that two GIDs share. IPv4-mapped ones begin
// with 96 equal bits, which prefers them.
func commonBits(a, b ibverbs.GID) int {
	n := 0
	for i := range a {
		x := a[i] ^ b[i]
		if x == 0 {
			n += 8
			continue
		}
		for x&0x80 == 0 {
			n++
			x <<= 1
		}
		break
	}
	return n
}
