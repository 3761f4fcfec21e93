package rdma

import (
	"fmt"
	"slices"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// pair is a path: an address of this host and one of the sender's that reach each
// other, as far as can be told before a packet has passed.
type pair struct {
	mine   *Candidate
	theirs *wire.Candidate
	remote uint16 // its number in Hello.RDMA
	score  int    // the length of the prefix that they share, bits
	subnet bool   // by the mask, or prefix, of this host's address the other is its neighbour
}

// name is good for as long as the session: the sender's list doesn't change.
func (p *pair) name() string {
	return fmt.Sprintf("%s/%d gid=%d to %s/%d (%v)", p.mine.Device, p.mine.Port, p.mine.GIDIndex, p.theirs.Device, p.theirs.Port, ibverbs.GID(p.theirs.GID).Addr())
}

// Paths lists the rails between the hosts: pairs of ports, each port in one pair.
// A lane on each of them carries what its device can.
func (*Transport) Paths(hello *wire.Hello) ([]string, error) {
	rails, err := findRails(hello)
	var names []string
	for i := range rails {
		names = append(names, rails[i].name())
	}
	return names, err
}

// findRail gives the rail of a name, which may be gone since it was listed. An
// empty name is the best.
func findRail(hello *wire.Hello, name string) (*pair, error) {
	rails, err := findRails(hello)
	if err != nil {
		return nil, err
	}
	for i := range rails {
		if name == "" || rails[i].name() == name {
			return &rails[i], nil
		}
	}
	return nil, fmt.Errorf("%w any more on %s: has the device, or its address, been removed?", ErrNoPath, name)
}

func findRails(hello *wire.Hello) ([]pair, error) {
	mine, err := Candidates()
	if err != nil {
		return nil, fmt.Errorf("the receiver has %w", err)
	}
	if len(hello.RDMA) == 0 {
		return nil, fmt.Errorf("the sender has %s", hello.RDMAReason)
	}
	return choose(mine, hello.RDMA)
}

// choose pairs addresses, the best first: neighbours before those that need a
// router, then those with the longest common prefix, IPv4 before IPv6, then the
// first. No port is in two pairs. Where there are neighbours, the others are left
// out: they are likely to be of networks that don't meet.
func choose(mine []Candidate, theirs []wire.Candidate) ([]pair, error) {
	var all []pair
	for i := range mine {
		for j := range theirs {
			p := pair{mine: &mine[i], theirs: &theirs[j], remote: uint16(j), score: score(&mine[i], &theirs[j])}
			if p.subnet = mine[i].Subnet.Contains(ibverbs.GID(theirs[j].GID).Addr()); !mine[i].Ethernet {
				p.subnet = p.score >= 64 // InfiniBand's subnet prefix
			}
			if p.score >= 0 {
				all = append(all, p)
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w in common: the receiver has %s, the sender %s", ErrNoPath, mine[0].GID, ibverbs.GID(theirs[0].GID))
	}
	slices.SortStableFunc(all, func(a, b pair) int {
		if a.subnet != b.subnet {
			if a.subnet {
				return -1
			}
			return 1
		}
		return b.score - a.score
	})
	type port struct {
		device string
		number uint8
	}
	left, right := make(map[port]bool), make(map[port]bool)
	var rails []pair
	for _, p := range all {
		l, r := port{p.mine.Device, p.mine.Port}, port{p.theirs.Device, p.theirs.Port}
		if left[l] || right[r] || all[0].subnet && !p.subnet {
			continue
		}
		left[l], right[r] = true, true
		rails = append(rails, p)
	}
	return rails, nil
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
