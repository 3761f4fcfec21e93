package rdma

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Candidate is an address over which this host's RDMA can be reached: a device, a
// port of it that is up, and a GID (or, on InfiniBand, a LID).
type Candidate struct {
	wire.Candidate
	Subnet   netip.Prefix // of the address; none on InfiniBand
	Software bool         // the device is a program of its host
}

// softwareLanes is how many lanes a port is worth whose device is software, where there are as
// many CPUs: rdma_rxe seems to do the work of a queue pair on one at a time (docs/performance.md).
const softwareLanes = 2

// lanes is how many lanes are worth while on it, where nobody says how many.
func (c *Candidate) lanes() int {
	if c.Software {
		return min(softwareLanes, runtime.NumCPU())
	}
	return 1
}

func addrOf(c *wire.Candidate) netip.Addr { return ibverbs.GID(c.GID).Addr() }

// ErrNoPath says that this host has no usable RDMA address; what wraps it says why.
var ErrNoPath = errors.New("no usable RDMA address")

// Selection is what a user chose of this host by hand. The zero value chooses nothing.
type Selection struct {
	Devices  []string    // "mlx5_0" or, with a port, "mlx5_0/1"; empty for all
	GIDIndex *int        // that entry of the table alone, whatever it is
	GIDType  string      // as [ibverbs.GIDType] prints itself; empty for RoCE v2 (and InfiniBand)
	Rails    []wire.Rail // pairs of devices that lanes run on, and no others
	PKey     *uint16     // the partition that is wanted, of the many that a port may be in
}

// gidsAPort is how many addresses of one port are offered. A host of many addresses is
// reached by the first ones of each network device and family as well.
const gidsAPort = 8

// Candidates lists what of a host can carry a lane, and says of every other port why
// not, and what to do about it.
func (h *Host) Candidates(s *Selection) (list []Candidate, refused []wire.Refusal) {
	for i := range h.Ports {
		p := &h.Ports[i]
		found, why := p.candidates(h, s)
		for i := range found {
			found[i].Far = len(h.Nodes) > 0 && p.Node >= 0 && !slices.Contains(h.Nodes, p.Node)
		}
		list = append(list, found...)
		if why != "" {
			refused = append(refused, wire.Refusal{Device: p.Device, Port: uint8(p.Port), Reason: why})
		}
	}
	return list, refused
}

// candidates lists those of one port, or says why there are none.
func (p *Port) candidates(h *Host, s *Selection) ([]Candidate, string) {
	if why := p.unfit(s); why != "" {
		return nil, why
	}
	var list []Candidate
	for _, g := range p.GIDs {
		if !p.usable(&g, h, s) {
			continue
		}
		subnet, _ := h.subnet(&g)
		list = append(list, Candidate{
			Candidate: wire.Candidate{
				Device:   p.Device,
				Port:     uint8(p.Port),
				GIDIndex: uint8(g.Index),
				GID:      g.GID.As16(),
				GIDType:  uint8(gidType(g.Type)),
				LID:      p.LID,
				MTU:      uint8(mtuOf(p.MTU)),
				Ethernet: p.Link == linkEthernet,
				Netdev:   g.Netdev,
				Mbps:     uint32(p.Mbps),
				Node:     int16(p.Node),
				PKeys:    s.pkeys(p.PKeys),
			},
			Subnet:   subnet,
			Software: p.Software,
		})
	}
	// Routable ones first, IPv4 before IPv6, those of the port's own network device before
	// those of what is stacked on it; else as the table has them.
	foreign := func(c *Candidate) int {
		if c.Netdev != p.Netdev {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(list, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(kindOf(&b.Candidate), kindOf(&a.Candidate)), cmp.Compare(foreign(&a), foreign(&b)))
	})
	if len(list) > gidsAPort {
		list = firstOfEach(list)[:gidsAPort]
	}
	if len(list) > 0 {
		return list, ""
	}
	return nil, p.noGID(h, s)
}

// firstOfEach puts an address of each network device and family first: what the other host
// shares may be any of them.
func firstOfEach(list []Candidate) []Candidate {
	type net struct {
		netdev string
		kind   kind
	}
	seen := make(map[net]bool)
	var first, rest []Candidate
	for _, c := range list {
		if n := (net{c.Netdev, kindOf(&c.Candidate)}); !seen[n] {
			seen[n] = true
			first = append(first, c)
		} else {
			rest = append(rest, c)
		}
	}
	return append(first, rest...)
}

// pkeys are those of a port's partition keys that the other host is told: sixteen, the
// wanted one first.
func (s *Selection) pkeys(all []uint16) []uint16 {
	list := slices.Clone(all)
	if s.PKey != nil {
		slices.SortStableFunc(list, func(a, b uint16) int {
			return cmp.Compare(one(a&0x7fff != *s.PKey&0x7fff), one(b&0x7fff != *s.PKey&0x7fff))
		})
	}
	return list[:min(len(list), 16)]
}

// unfit says why nothing of a port can carry a lane.
func (p *Port) unfit(s *Selection) string {
	named := len(s.Devices) == 0 || slices.ContainsFunc(s.Devices, func(d string) bool { return isPort(d, p.Device, p.Port) })
	switch {
	case !named:
		return "is not among the devices that were chosen (--device)"
	case p.Transport == ibverbs.TransportIWARP.String():
		return "is iWARP, whose queue pairs can't be connected without rdma_cm: rdmaxfer has none for it (use TCP over its network device)"
	case p.Transport != ibverbs.TransportIB.String():
		return fmt.Sprintf("is neither InfiniBand nor RoCE (transport: %s; EFA and its like have no reliable connected queue pairs): use TCP", p.Transport)
	case p.Problem != "":
		return p.Problem
	case p.State == ibverbs.PortActive.String():
		return ""
	case p.Link == linkInfiniBand && (p.State == "INIT" || p.State == "ARMED"):
		return fmt.Sprintf("port %d is %s: no subnet manager has configured it (is opensm running, or the switch's?)", p.Port, p.State)
	case p.Link == linkInfiniBand:
		return fmt.Sprintf("port %d is %s: is the cable plugged in? (ibstat)", p.Port, p.State)
	}
	return fmt.Sprintf("port %d is %s (ip link set dev %s up; is the cable plugged in?)", p.Port, p.State, cmp.Or(p.Netdev, "NETDEV"))
}

// usable leaves out what can't carry packets from here: addresses of other network
// namespaces; RoCE v1, which is not routed and which rxe lacks, unless it was asked for.
// An index that was chosen by hand is good as it is, in the port's own namespace.
func (p *Port) usable(g *GID, h *Host, s *Selection) bool {
	switch {
	case g.Index > 255: // a GID index has eight bits in the verbs
		return false
	case s.GIDIndex != nil:
		return g.Index == *s.GIDIndex && (p.Netdev == "" || slices.Contains(h.Netdevs, p.Netdev))
	case p.Link == linkInfiniBand:
		return g.Index == 0
	}
	_, ours := h.subnet(g)
	return g.Type == s.gidType() && ours
}

// gidType is the one that is looked for.
func (s *Selection) gidType() string { return cmp.Or(s.GIDType, ibverbs.GIDTypeRoCEv2.String()) }

// subnet is that of a GID's address, if it is one of this host's: on the network device of
// the GID, where that is known. (Two may have one address.)
func (h *Host) subnet(g *GID) (netip.Prefix, bool) {
	for _, a := range h.Addresses {
		if a.Prefix.Addr() == g.GID.Unmap() && (g.Netdev == "" || a.Netdev == g.Netdev) {
			return a.Prefix.Masked(), true
		}
	}
	return netip.Prefix{}, false
}

// noGID says why none of a port's GIDs can be used.
func (p *Port) noGID(h *Host, s *Selection) string {
	other := slices.IndexFunc(p.GIDs, func(g GID) bool {
		_, ours := h.subnet(&g)
		return ours && g.Type != s.gidType()
	})
	netdev := cmp.Or(p.Netdev, "NETDEV")
	switch {
	case s.GIDIndex != nil && (p.Netdev == "" || slices.Contains(h.Netdevs, p.Netdev)):
		return fmt.Sprintf("port %d has no GID at index %d (--gid-index; see: rdmaxfer devices)", p.Port, *s.GIDIndex)
	case other >= 0 && p.GIDs[other].Type == ibverbs.GIDTypeRoCEv1.String():
		return fmt.Sprintf("port %d has no usable GID: those of its addresses are all of RoCE v1, which is not routed (--gid-type rocev1 at both ends, on one Ethernet)", p.Port)
	case other >= 0:
		return fmt.Sprintf("port %d has no GID of %s: those of its addresses are of %s (--gid-type)", p.Port, s.gidType(), p.GIDs[other].Type)
	case len(p.GIDs) == 0 && p.Netdev == "":
		return fmt.Sprintf("port %d has no GID and no network device: nothing can be reached through it", p.Port)
	case p.Netdev == "":
		return fmt.Sprintf("port %d has no network device here: its GIDs are of no address of this host", p.Port)
	case !slices.Contains(h.Netdevs, p.Netdev):
		return fmt.Sprintf("port %d has no usable GID: its network device %s is in another network namespace than this program (ip netns exec, or the container's network)", p.Port, netdev)
	}
	return fmt.Sprintf("port %d has no usable GID: give its network device an address of this host (ip addr add ADDRESS dev %s)", p.Port, netdev)
}

// isPort reports whether a name, "mlx5_0" or "mlx5_0/1", is that of a port, or of one of a
// whole device (port 0).
func isPort(name, device string, port int) bool {
	of, _, _ := strings.Cut(name, "/")
	return name == device || name == fmt.Sprintf("%s/%d", device, port) || port == 0 && of == device
}

func mtuOf(bytes int) ibverbs.MTU {
	for m := ibverbs.MTU(5); m > 1; m-- {
		if m.Bytes() <= bytes {
			return m
		}
	}
	return 1
}

func gidType(name string) ibverbs.GIDType {
	for t := ibverbs.GIDTypeIB; t <= ibverbs.GIDTypeRoCEv2; t++ {
		if t.String() == name {
			return t
		}
	}
	return ibverbs.GIDTypeIB
}

// Explain joins why a host has no candidates.
func Explain(refused []wire.Refusal) error {
	if len(refused) == 0 {
		return fmt.Errorf("%w: no RDMA device (see: rdmaxfer doctor)", ErrNoPath)
	}
	var words []string
	for _, r := range refused {
		words = append(words, r.Device+" "+r.Reason)
	}
	return fmt.Errorf("%w: %s", ErrNoPath, strings.Join(words, "; "))
}

// Candidates lists the addresses of this host. There being none is an error that says
// what stands in the way.
func Candidates(s *Selection) ([]Candidate, error) {
	host, err := Inventory()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoPath, err)
	}
	list, refused := host.Candidates(s)
	if len(list) == 0 {
		return nil, Explain(refused)
	}
	return list, nil
}
