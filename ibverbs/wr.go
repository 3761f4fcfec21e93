package ibverbs

import "math/bits"

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
	OpLocalInv     Opcode = 7 // RKey is made invalid here
	OpSendWithInv  Opcode = 9 // RKey is made invalid at the peer
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
	RKey       uint32 // write, read, atomics, invalidation
	RemoteAddr uint64 // write, read, atomics
	CompareAdd uint64 // atomics: the value compared with, or added
	Swap       uint64 // compare-and-swap: the value stored
	AH         AHRef  // UD: where to; see [AH.Ref]
	RemoteQPN  uint32 // UD
	RemoteQKey uint32 // UD; with the top bit set, the queue pair's own
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
	WCBindMW      WCOpcode = 5
	WCLocalInv    WCOpcode = 6
	WCRecv        WCOpcode = 1 << 7
	WCRecvWithImm WCOpcode = 1<<7 + 1
)

// WCFlags tell what else a completion carries (enum ibv_wc_flags).
type WCFlags uint32

// The flags of completions.
const (
	WCHasGRH WCFlags = 1 << 0 // UD: the first GRHSize bytes are the packet's own header
	WCHasImm WCFlags = 1 << 1
	WCHasInv WCFlags = 1 << 3 // the peer invalidated an rkey of this host
)

// GRHSize is how many bytes a UD receive needs in front of the message (IBTA vol. 1,
// 11.4.1.2). They are only meaningful with [WCHasGRH].
const GRHSize = 40

// WC is one completion, laid out as struct ibv_wc so that the device's library
// writes it straight into the caller's slice.
type WC struct {
	ID        uint64
	Status    WCStatus
	Opcode    WCOpcode
	VendorErr uint32
	ByteLen   uint32 // of a receive
	immBE     uint32 // or, as it is, the rkey that the peer made invalid
	QPN       uint32
	SrcQP     uint32
	Flags     WCFlags
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

// Imm is the immediate data of a receive, in host byte order.
func (w *WC) Imm() uint32 { return bits.ReverseBytes32(w.immBE) }

// InvalidatedRKey is the rkey that the peer's [OpSendWithInv] made invalid here.
func (w *WC) InvalidatedRKey() uint32 { return w.immBE }
