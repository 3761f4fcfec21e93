package rdma

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// kind is how good an address is to be reached at.
type kind int

const (
	kindPhantom   kind = iota // no network device that this host can see
	kindLinkLocal             // names a link, and is not routed
	kindIPv6
	kindIPv4
	kindLID
)

func kindOf(c *wire.Candidate) kind {
	a := addrOf(c)
	switch {
	case !c.Ethernet:
		return kindLID
	case c.Netdev == "":
		return kindPhantom
	case a.IsLinkLocalUnicast():
		return kindLinkLocal
	case a.Is4():
		return kindIPv4
	}
	return kindIPv6
}

// nearness is what can be told of a pair before a packet has passed.
type nearness int

const (
	phantom   nearness = iota // one end has no network device
	linkLocal                 // on one link, perhaps
	routed                    // a router is needed, and may not be there
	// One subnet, or a subnet that has no room for a neighbour (/31, /32), as rails to a
	// switch of their own have: there is a router then.
	neighbour
)

// pair is a path: an address of this host and one of the sender's.
type pair struct {
	mine   *Candidate
	theirs *wire.Candidate
	apart  int    // places in the order of the hosts' ports; 0 on one rail
	why    string // why it can't work; empty where it can be tried
	near   nearness
	shared bool // an end's address is that of another port of its host too: a bond of two cards

	up bool // a lane runs on it

	// What came of trying.
	state   progress
	mtu     ibverbs.MTU   // that passed
	took    time.Duration // of the first message's acknowledgement
	reason  string        // why it failed, or what is wrong with it all the same
	pkey    uint16        // of this end; 0 for the port's first
	theirsP uint16        // of the other
	fabric  Fabric        // in force at this end
}

type progress int

const (
	untried progress = iota
	underway
	failed // nothing came back
	alive  // or known to be good
)

// name is good for as long as the session: what the sender has offered keeps its number.
func (p *pair) name() string {
	return fmt.Sprintf("%s/%d gid=%d to %s/%d #%d (%v)", p.mine.Device, p.mine.Port, p.mine.GIDIndex, p.theirs.Device, p.theirs.Port, p.theirs.Number, addrOf(p.theirs))
}

// pairs lists every pair of addresses, the best first, with those that can't work last.
// rails are what each user chose, as this host sees it: a pair must be among those of both.
func pairs(mine []Candidate, theirs []wire.Candidate, rails [][]wire.Rail, want *uint16) []*pair {
	here, there := ordinals(len(mine), func(i int) *wire.Candidate { return &mine[i].Candidate }), ordinals(len(theirs), func(i int) *wire.Candidate { return &theirs[i] })
	var all []*pair
	for i := range mine {
		for j := range theirs {
			p := &pair{mine: &mine[i], theirs: &theirs[j], apart: here[i] - there[j]}
			if p.apart < 0 {
				p.apart = -p.apart
			}
			p.judge(rails, want)
			all = append(all, p)
		}
	}
	for _, p := range all {
		p.shared = shares(&p.mine.Candidate, len(mine), func(i int) *wire.Candidate { return &mine[i].Candidate }) ||
			shares(p.theirs, len(theirs), func(i int) *wire.Candidate { return &theirs[i] })
	}
	slices.SortStableFunc(all, compare)
	return all
}

// shares reports whether another port has the same address.
func shares(c *wire.Candidate, n int, of func(int) *wire.Candidate) bool {
	for i := range n {
		if o := of(i); c.Ethernet && o.GID == c.GID && nameOf(o) != nameOf(c) {
			return true
		}
	}
	return false
}

// ordinals number the ports that the candidates are of.
func ordinals(n int, of func(int) *wire.Candidate) []int {
	numbers := make(map[portName]int)
	list := make([]int, n)
	for i := range list {
		name := nameOf(of(i))
		if _, ok := numbers[name]; !ok {
			numbers[name] = len(numbers)
		}
		list[i] = numbers[name]
	}
	return list
}

type portName struct {
	device string
	port   uint8
}

func nameOf(c *wire.Candidate) portName { return portName{c.Device, c.Port} }

// judge says what can be told of a pair.
func (p *pair) judge(rails [][]wire.Rail, want *uint16) {
	m, t := &p.mine.Candidate, p.theirs
	a, b := addrOf(m), addrOf(t)
	switch {
	case m.Ethernet != t.Ethernet:
		p.why = "one port is Ethernet and the other InfiniBand"
	case slices.ContainsFunc(rails, func(chosen []wire.Rail) bool { return len(chosen) > 0 && !p.among(chosen) }):
		p.why = "it is no rail that was chosen (--rail)"
	case m.Ethernet && m.GIDType != t.GIDType:
		p.why = fmt.Sprintf("one GID is %v and the other %v: choose one --gid-type at both ends", ibverbs.GIDType(m.GIDType), ibverbs.GIDType(t.GIDType))
	case m.Ethernet && a.Is4() != b.Is4():
		p.why = fmt.Sprintf("the address families differ: the receiver's port has %s, the sender's %s (ip addr add one of the same family to one of them)", family(a), family(b))
	case m.Ethernet && a.IsLinkLocalUnicast() != b.IsLinkLocalUnicast():
		p.why = "one address is link-local, and the other is not (ip addr add a routable one to the port that has the link-local one alone)"
	default:
		p.pkey, p.theirsP, p.why = agreePKeys(m.PKeys, t.PKeys, want)
	}
	switch {
	case !m.Ethernet:
		p.near = routed
		if commonBits(m.GID, t.GID) >= 64 { // InfiniBand's subnet prefix
			p.near = neighbour
		}
	case kindOf(m) == kindPhantom || kindOf(t) == kindPhantom:
		p.near = phantom
	case a.IsLinkLocalUnicast():
		p.near = linkLocal
	case p.mine.Subnet.Contains(b), tiny(p.mine.Subnet):
		p.near = neighbour
	default:
		p.near = routed
	}
}

// tiny reports whether a subnet has no room for this host and the other and a router.
func tiny(p netip.Prefix) bool { return p.IsValid() && p.Bits() >= p.Addr().BitLen()-1 }

// among reports whether a pair is one of the rails.
func (p *pair) among(rails []wire.Rail) bool {
	return slices.ContainsFunc(rails, func(r wire.Rail) bool {
		return isPort(r.Here, p.mine.Device, int(p.mine.Port)) && isPort(r.There, p.theirs.Device, int(p.theirs.Port))
	})
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// agreePKeys chooses each end's partition key: the wanted one, else the first that both
// ports are in. Two limited members of a partition can't talk (IBTA vol. 1, 10.9.3).
func agreePKeys(mine, theirs []uint16, want *uint16) (m, t uint16, why string) {
	if want == nil && (len(mine) == 0 || len(theirs) == 0) {
		return 0, 0, "" // Ethernet, or nobody knows
	}
	limited := false
	for _, a := range orDefault(mine) {
		for _, b := range orDefault(theirs) {
			switch {
			case a&0x7fff != b&0x7fff || want != nil && a&0x7fff != *want&0x7fff:
			case a&0x8000 == 0 && b&0x8000 == 0:
				limited = true
			default:
				return a, b, ""
			}
		}
	}
	keys := fmt.Sprintf("the receiver's port has %#x, the sender's %#x", orDefault(mine), orDefault(theirs))
	switch {
	case limited:
		return 0, 0, "both ports are limited members of their partition, which can't talk to each other: " + keys + " (the subnet manager's partitions.conf)"
	case want != nil:
		return 0, 0, fmt.Sprintf("the ports are not both in the partition %#x: %s (--pkey)", *want, keys)
	}
	return 0, 0, "the ports are in no partition together: " + keys + " (the subnet manager's partitions.conf)"
}

func orDefault(keys []uint16) []uint16 {
	if len(keys) == 0 {
		return []uint16{0xffff}
	}
	return keys
}

// compare puts the better pair first: what can work; neighbours; ports that have an
// address of their own; devices on a NUMA node that the programs may run on; the faster;
// whose subnet has both addresses, which one without room for two cannot; of the longest
// common prefix, which says something only of what is routed; of devices that have one
// name, and on one rail, both of which say something where a fabric has one subnet; the
// better kind of address; the larger MTU.
func compare(a, b *pair) int {
	far := func(p *pair) int { return one(p.mine.Far) + one(p.theirs.Far) }
	bits := func(p *pair) int {
		if p.near != routed && !tiny(p.mine.Subnet) {
			return 0
		}
		return commonBits(p.mine.GID, p.theirs.GID)
	}
	meet := func(p *pair) int { return one(!p.mine.Ethernet || p.mine.Subnet.Contains(addrOf(p.theirs))) }
	namesakes := func(p *pair) int { return one(nameOf(&p.mine.Candidate) == nameOf(p.theirs)) }
	same := func(p *pair) int { return one(p.mine.GID == p.theirs.GID) } // a host that sends to itself
	return cmp.Or(
		cmp.Compare(one(a.why != ""), one(b.why != "")),
		cmp.Compare(b.near, a.near),
		cmp.Compare(same(b), same(a)),
		cmp.Compare(one(a.shared), one(b.shared)),
		cmp.Compare(far(a), far(b)),
		cmp.Compare(b.mbps(), a.mbps()),
		cmp.Compare(meet(b), meet(a)),
		cmp.Compare(bits(b), bits(a)),
		cmp.Compare(namesakes(b), namesakes(a)),
		cmp.Compare(a.apart, b.apart),
		cmp.Compare(b.worse(), a.worse()),
		cmp.Compare(min(b.mine.MTU, b.theirs.MTU), min(a.mine.MTU, a.theirs.MTU)),
	)
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// mbps is the slower end's rate. What nobody knows is as good as nothing.
func (p *pair) mbps() uint32 { return min(p.mine.Mbps, p.theirs.Mbps) }

func (p *pair) worse() kind { return min(kindOf(&p.mine.Candidate), kindOf(p.theirs)) }

// match chooses the rails among pairs, which are in order: no port is in two of them, and
// no address. good says which may be chosen; lanes that run on some already stay. Where the
// best are neighbours, the others are left out, and so are those that are a quarter as fast
// as the fastest, or slower: both are likely to be of networks that carry something else.
func match(all []*pair, good func(*pair) bool) (rails []*pair) {
	here, there := newTaken(), newTaken()
	fastest := uint32(0)
	for _, up := range []bool{true, false} {
		for _, p := range all {
			if p.up != up || p.why != "" || !good(p) {
				continue
			}
			if len(rails) > 0 && (p.near < rails[0].near || p.mbps() > 0 && p.mbps() <= fastest/4) {
				continue
			}
			if here.has(&p.mine.Candidate) || there.has(p.theirs) {
				continue
			}
			here.take(&p.mine.Candidate)
			there.take(p.theirs)
			fastest = max(fastest, p.mbps())
			rails = append(rails, p)
		}
	}
	return rails
}

// hopeful are pairs that have not failed; proven are those that have answered.
func hopeful(p *pair) bool { return p.state != failed }
func proven(p *pair) bool  { return p.state == alive }

// taken is what of a host is in a rail.
type taken struct {
	ports     map[portName]bool
	addresses map[[16]byte]bool
}

func newTaken() taken { return taken{make(map[portName]bool), make(map[[16]byte]bool)} }

func (t taken) has(c *wire.Candidate) bool { return t.ports[nameOf(c)] || t.addresses[c.GID] }

func (t taken) take(c *wire.Candidate) { t.ports[nameOf(c)], t.addresses[c.GID] = true, true }

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
