package ibverbs

import (
	"fmt"
	"syscall"
)

// Path is how packets travel to a peer: what of an address vector (struct
// ibv_ah_attr, IBTA vol. 1, 11.2.2.1) is no end's own address.
type Path struct {
	ServiceLevel uint8  // 0 to 15
	TrafficClass uint8  // RoCE v2: the IP header's DSCP and ECN
	FlowLabel    uint32 // 20 bits; RoCE v2: spreads flows over equal-cost paths
	HopLimit     uint8  // default 64
	GRH          bool   // InfiniBand: a global header within the subnet too; RoCE always has one
}

func (p *Path) setDefaults() {
	if p.HopLimit == 0 {
		p.HopLimit = 64
	}
}

// ParamError is a parameter that can't be right, found before the device was asked.
type ParamError struct {
	Param, Value string
	Why          string
}

// Error names the parameter, its value, and what would be right.
func (e *ParamError) Error() string { return e.Param + " " + e.Value + ": " + e.Why }

// check finds what can't work between two ends.
func (p *Path) check(local, remote *Endpoint, link uint8) error {
	switch {
	case p.ServiceLevel > 15:
		return &ParamError{"service level", fmt.Sprint(p.ServiceLevel), "must be 0 to 15"}
	case p.FlowLabel > 0xfffff:
		return &ParamError{"flow label", fmt.Sprintf("%#x", p.FlowLabel), "has 20 bits"}
	case link != LinkEthernet && remote.LID == 0:
		return &ParamError{"remote LID", "0", "an InfiniBand port has one when a subnet manager has configured it"}
	case link != LinkEthernet:
		return nil
	case remote.GID.IsZero():
		return &ParamError{"remote GID", "::", "RoCE needs one: set it from the peer's Endpoint"}
	}
	mine, theirs := local.GID.Addr(), remote.GID.Addr()
	switch {
	case mine.Is4() != theirs.Is4():
		return &ParamError{"remote GID", theirs.String(), fmt.Sprintf("is not of the family of the local %v: choose GIDs of one", mine)}
	case mine.IsLinkLocalUnicast() != theirs.IsLinkLocalUnicast():
		return &ParamError{"remote GID", theirs.String(), fmt.Sprintf("and the local %v: one of them is link-local, which is not routed: choose GIDs of one kind", mine)}
	}
	return nil
}

// vector is an address vector as C takes it.
type vector struct {
	Path
	dgid           GID
	dlid           uint16
	port, gidIndex int
	global         bool
}

// addressVector decides what the link layer needs: Ethernet has no LIDs and always
// a global header; InfiniBand needs that header only beyond the subnet, which is
// the upper half of a GID, and where the port of either end says so.
func addressVector(port, gidIndex int, attr *PortAttr, local, remote *Endpoint, p *Path) vector {
	v := vector{Path: *p, port: port, gidIndex: gidIndex}
	if attr.LinkLayer == LinkEthernet {
		v.global = true
	} else {
		v.dlid = remote.LID
		beyond := [8]byte(local.GID[:8]) != [8]byte(remote.GID[:8])
		v.global = !remote.GID.IsZero() && (p.GRH || attr.NeedsGRH || remote.NeedsGRH || beyond)
	}
	if v.global {
		v.dgid = remote.GID
	}
	return v
}

// pathError says what a refused address vector may be about.
func pathError(op string, rc int, local, remote *Endpoint, gidIndex int) error {
	hint := fmt.Sprintf("remote GID %v LID %d, local GID %v index %d", remote.GID, remote.LID, local.GID, gidIndex)
	switch syscall.Errno(-rc) {
	case syscall.EINVAL:
		hint += ": is the local index still that GID (see: rdmaxfer devices), and the address one that this host can reach?"
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ETIMEDOUT:
		hint += ": no route to the address (ip route get), or it does not answer ARP"
	}
	return withHint(opError(op, rc), hint)
}
