package ibverbs

import (
	"fmt"
	"math/bits"
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
	IfIndex int // of the network device, 0 where there is none
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
}

// DeviceAttr is what a device can do (struct ibv_device_attr, in part).
type DeviceAttr struct {
	Firmware     string
	NodeGUID     uint64 // host byte order
	VendorID     uint32
	VendorPartID uint32
	Ports        int
	MaxMRSize    uint64 // bytes
	MaxQP        int
	MaxQPWR      int
	MaxSGE       int
	MaxCQE       int
	MaxMR        int
	MaxQPRead    int // outstanding READs as responder, a queue pair
	MaxQPInitRd  int // outstanding READs as initiator, a queue pair
}

// Access is what a memory region or a queue pair permits (enum ibv_access_flags).
type Access uint32

// The access flags. The least that works is the right choice: zero is enough for
// memory that is only sent from.
const (
	AccessLocalWrite   Access = 1 << 0
	AccessRemoteWrite  Access = 1 << 1
	AccessRemoteRead   Access = 1 << 2
	AccessRemoteAtomic Access = 1 << 3
	AccessOnDemand     Access = 1 << 6
)

// Opcode is what a send work request does (enum ibv_wr_opcode).
type Opcode uint32

// The opcodes.
const (
	OpWrite        Opcode = 0
	OpWriteWithImm Opcode = 1
	OpSend         Opcode = 2
	OpSendWithImm  Opcode = 3
	OpRead         Opcode = 4
	OpCompareSwap  Opcode = 5
	OpFetchAdd     Opcode = 6
)

// SendFlags modify a send work request (enum ibv_send_flags).
type SendFlags uint32

// The send flags.
const (
	SendFence     SendFlags = 1 << 0
	SendSignaled  SendFlags = 1 << 1
	SendSolicited SendFlags = 1 << 2
	SendInline    SendFlags = 1 << 3
)

// SGE is one stretch of registered memory (struct ibv_sge, to the byte).
type SGE struct {
	Addr   uint64
	Length uint32 // bytes
	LKey   uint32
}

// MaxSGE is the most stretches that one work request of this package can name.
const MaxSGE = 4

// SendWR is one send work request. It has no pointers, so that a batch of them
// crosses into C as it is.
type SendWR struct {
	ID         uint64
	Opcode     Opcode
	Flags      SendFlags
	Imm        uint32 // host byte order
	RKey       uint32 // write, read, atomics
	RemoteAddr uint64 // write, read, atomics
	CompareAdd uint64 // atomics: the value compared with, or added
	Swap       uint64 // compare-and-swap: the value stored
	NumSGE     uint32 // how many of SGE are used
	_          uint32
	SGE        [MaxSGE]SGE
}

// RecvWR is one receive work request.
type RecvWR struct {
	ID     uint64
	NumSGE uint32
	_      uint32
	SGE    [MaxSGE]SGE
}

// WCOpcode says what completed (enum ibv_wc_opcode). It is undefined when the
// completion failed.
type WCOpcode uint32

// The opcodes of completions. Those of receives have the bit of WCRecv.
const (
	WCSend        WCOpcode = 0
	WCWrite       WCOpcode = 1
	WCRead        WCOpcode = 2
	WCCompareSwap WCOpcode = 3
	WCFetchAdd    WCOpcode = 4
	WCRecv        WCOpcode = 1 << 7
	WCRecvWithImm WCOpcode = 1<<7 + 1
)

// WC is one completion, laid out as struct ibv_wc so that the device's library
// writes it straight into the caller's slice.
type WC struct {
	ID        uint64
	Status    WCStatus
	Opcode    WCOpcode
	VendorErr uint32
	ByteLen   uint32 // of a receive
	immBE     uint32
	QPN       uint32
	SrcQP     uint32
	Flags     uint32
	PKeyIndex uint16
	SLID      uint16
	SL        uint8
	PathBits  uint8
	_         uint16
}

// Err is nil for a success and a [*WCError] for anything else.
func (w *WC) Err() error {
	if w.Status == WCSuccess {
		return nil
	}
	return &WCError{Status: w.Status, Opcode: w.Opcode, VendorErr: w.VendorErr, QPN: w.QPN}
}

// Endpoint is all that one side of a queue pair must know of the other.
type Endpoint struct {
	QPN uint32 // 24 bits
	PSN uint32 // 24 bits: the first packet sequence number it sends
	GID GID
	LID uint16 // 0 on Ethernet
	MTU MTU    // the most that its port carries
}

// Imm is the immediate data of a receive, in host byte order.
func (w *WC) Imm() uint32 { return bits.ReverseBytes32(w.immBE) }
