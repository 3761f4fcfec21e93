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
	Subnet   netip.Prefix // of the address; none on InfiniBand
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
// those of other namespaces; a packet with such a source goes nowhere. Each comes
// with its subnet.
func localAddrs() (map[netip.Addr]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	local := make(map[netip.Addr]netip.Prefix)
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			local[p.Addr()] = p.Masked()
		}
	}
	return local, nil
}

// probe lists the addresses of one device, and why it has no more.
func probe(d ibverbs.Device, local map[netip.Addr]netip.Prefix) (list []Candidate, reasons []string) {
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
					Subnet:   local[g.GID.Addr()],
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
func usable(g ibverbs.GIDEntry, port *ibverbs.PortAttr, local map[netip.Addr]netip.Prefix) bool {
	if g.Index > 255 {
		return false // a GID index has eight bits in the verbs
	}
	if port.LinkLayer != ibverbs.LinkEthernet {
		return g.Index == 0
	}
	a := g.GID.Addr()
	return g.Type == ibverbs.GIDTypeRoCEv2 && !a.IsLinkLocalUnicast() && local[a].IsValid()
}
