package ibverbs

import (
	"fmt"
	"net/netip"
)

// GID is a 128-bit port address (IBTA vol. 1, 4.1.1). On RoCE v2 it is an IPv6
// address, or an IPv4 address mapped into one.
type GID [16]byte

// Addr is the GID as an IP address; IPv4-mapped ones are unmapped.
func (g GID) Addr() netip.Addr { return netip.AddrFrom16(g).Unmap() }

// IsZero reports whether the GID is all zero, as in an empty table entry.
func (g GID) IsZero() bool { return g == GID{} }

// String prints the GID as an IPv6 address, as sysfs and ibv_devinfo do in
// their longer way.
func (g GID) String() string { return netip.AddrFrom16(g).String() }

// GIDType is the protocol that a GID speaks (enum ibv_gid_type).
type GIDType uint32

// The GID types.
const (
	GIDTypeIB     GIDType = 0
	GIDTypeRoCEv1 GIDType = 1
	GIDTypeRoCEv2 GIDType = 2
)

// String gives the name that sysfs uses.
func (t GIDType) String() string {
	switch t {
	case GIDTypeIB:
		return "IB"
	case GIDTypeRoCEv1:
		return "RoCE v1"
	case GIDTypeRoCEv2:
		return "RoCE v2"
	}
	return fmt.Sprintf("GIDType(%d)", uint32(t))
}

// GIDEntry is one line of a port's GID table (struct ibv_gid_entry).
type GIDEntry struct {
	GID     GID
	Index   int
	Port    int
	Type    GIDType
	IfIndex int    // of the network device, 0 where there is none
	Netdev  string // its name; empty where there is none in this network namespace
}

// MTU is a path MTU in its coded form (enum ibv_mtu): 1 is 256 bytes, 5 is 4096.
type MTU uint8

// Bytes is the MTU in bytes, 0 for a code that IBTA does not define.
func (m MTU) Bytes() int {
	if m < 1 || m > 5 {
		return 0
	}
	return 128 << m
}

// PortState is the logical state of a port (enum ibv_port_state).
type PortState uint32

// PortActive is the only state in which a port carries traffic.
const PortActive PortState = 4

var portStates = [...]string{"NOP", "DOWN", "INIT", "ARMED", "ACTIVE", "ACTIVE_DEFER"}

// String gives the C library's name without IBV_PORT_.
func (s PortState) String() string {
	if int(s) < len(portStates) {
		return portStates[s]
	}
	return fmt.Sprintf("PortState(%d)", uint32(s))
}

// Link layers of a port (IBV_LINK_LAYER_*).
const (
	LinkUnspecified uint8 = 0
	LinkInfiniBand  uint8 = 1
	LinkEthernet    uint8 = 2
)

// PortAttr is what a port says of itself (struct ibv_port_attr).
type PortAttr struct {
	State     PortState
	MaxMTU    MTU
	ActiveMTU MTU
	GIDs      int // length of the GID table
	PKeys     int // length of the P_Key table
	LID       uint16
	LinkLayer uint8
	MaxMsg    uint32 // longest message, bytes
	Speed     uint8  // active speed, coded as in IBTA's PortInfo
	Width     uint8  // active width, coded: 1, 2, 4, 8 for 1x, 4x, 8x, 12x; 16 for 2x
	// NeedsGRH says that packets must have a global header (IBV_QPF_GRH_REQUIRED): several
	// virtual ports have one LID.
	NeedsGRH bool
}

// Mbps is the rate of the link, Mbit/s: what its lanes carry of data, by their nominal
// speed (IBTA vol. 1, PortInfo); 0 for a code that is not known here.
func (a *PortAttr) Mbps() int {
	lanes := map[uint8]int{1: 1, 2: 4, 4: 8, 8: 12, 16: 2}[a.Width]
	speed := map[uint8]int{1: 2500, 2: 5000, 4: 10000, 8: 10000, 16: 14000, 32: 25000, 64: 50000, 128: 100000}[a.Speed]
	return lanes * speed
}

// DeviceAttr is what a device can do (struct ibv_device_attr_ex, in part). Limits
// are the device's promise of an upper bound, not of what is free now.
type DeviceAttr struct {
	Firmware     string
	NodeGUID     uint64 // host byte order
	VendorID     uint32
	VendorPartID uint32
	Ports        int
	Flags        DeviceFlags
	PageSizes    uint64 // bit n: pages of 2^n bytes
	MaxMRSize    uint64 // bytes
	MaxQP        int
	MaxQPWR      int // requests a work queue
	MaxSGE       int
	MaxCQ        int
	MaxCQE       int
	MaxMR        int
	MaxPD        int
	MaxMW        int
	MaxAH        int
	MaxSRQ       int
	MaxSRQWR     int
	MaxSRQSGE    int
	MaxQPRead    int // outstanding READs and atomics as responder, a queue pair
	MaxQPInitRd  int // the same as initiator
	MaxPKeys     int
	Atomics      bool // fetch-and-add and compare-and-swap work between queue pairs
	ODP          ODPCaps
}

// DeviceFlags are what else a device can do (enum ibv_device_cap_flags).
type DeviceFlags uint32

// The flags that this package makes use of.
const (
	DeviceMemWindow        DeviceFlags = 1 << 17
	DeviceMemMgtExtensions DeviceFlags = 1 << 21 // local invalidate, send with invalidate
	DeviceMemWindow2A      DeviceFlags = 1 << 23
	DeviceMemWindow2B      DeviceFlags = 1 << 24
)

// ODPCaps says what works on memory that is not pinned (struct ibv_odp_caps). All
// are zero where there is no on-demand paging.
type ODPCaps struct {
	Supported, Implicit bool
	RC, UC, UD          ODPOps
}

// ODPOps is a set of operations (enum ibv_odp_transport_cap_bits).
type ODPOps uint32

// The operations that may touch memory that is not pinned.
const (
	ODPSend    ODPOps = 1 << 0
	ODPRecv    ODPOps = 1 << 1
	ODPWrite   ODPOps = 1 << 2
	ODPRead    ODPOps = 1 << 3
	ODPAtomic  ODPOps = 1 << 4
	ODPSRQRecv ODPOps = 1 << 5
)

// Access is what a memory region, a window or a queue pair permits (enum
// ibv_access_flags).
type Access uint32

// The access flags. The least that works is the right choice: zero is enough for
// memory that is only sent from.
const (
	AccessLocalWrite   Access = 1 << 0
	AccessRemoteWrite  Access = 1 << 1 // needs AccessLocalWrite too
	AccessRemoteRead   Access = 1 << 2
	AccessRemoteAtomic Access = 1 << 3 // needs AccessLocalWrite too
	AccessBindMW       Access = 1 << 4 // memory windows may be bound to the region
	AccessZeroBased    Access = 1 << 5 // the peer's addresses begin at 0
	AccessOnDemand     Access = 1 << 6 // not pinned; see [Context.CanODP]
	// AccessRelaxedOrdering lets PCIe reorder the device's writes. Optional: what
	// does not know it ignores it.
	AccessRelaxedOrdering Access = 1 << 20
)

// Endpoint is all that one side of a queue pair must know of the other.
type Endpoint struct {
	QPN      uint32 // 24 bits
	PSN      uint32 // 24 bits: the first packet sequence number it sends
	GID      GID
	LID      uint16 // 0 on Ethernet
	MTU      MTU    // the most that its port carries
	NeedsGRH bool   // its port takes no packets without a global header: [PortAttr].NeedsGRH
}
