package wire

// Tool is somebody else's program that measures, which a receiver may be asked to run
// its end of. There are no others: what is run is never a peer's to name.
type Tool uint8

// The tools.
const (
	ToolWriteBW   Tool = iota + 1 // perftest's ib_write_bw
	ToolReadBW                    // ib_read_bw
	ToolSendBW                    // ib_send_bw
	ToolWriteLat                  // ib_write_lat
	ToolReadLat                   // ib_read_lat
	ToolSendLat                   // ib_send_lat
	ToolQperf                     // qperf over TCP: the sending end says which test
	ToolQperfRDMA                 // qperf over RDMA
	ToolIperf3                    // iperf3
	toolEnd
)

// RDMA says whether a tool needs an RDMA path between the hosts.
func (t Tool) RDMA() bool { return t != ToolQperf && t != ToolIperf3 }

// RunTool asks the receiver to run its end of a tool. A receiver that was not told to
// (recv --allow-peers) refuses.
type RunTool struct {
	Tool        Tool   `cbor:"1,keyasint"`
	Size        uint32 `cbor:"2,keyasint"` // of a message, bytes
	Depth       uint16 `cbor:"3,keyasint"` // messages in flight
	Iterations  uint32 `cbor:"4,keyasint"` // messages, where the tool counts them
	Nanoseconds int64  `cbor:"5,keyasint"` // after which it is ended, whatever it does
	// Of perftest alone, as in Verbs. What is 0 is perftest's to choose.
	QPs    uint16 `cbor:"6,keyasint,omitempty"`
	Chain  uint16 `cbor:"7,keyasint,omitempty"`
	Signal uint16 `cbor:"8,keyasint,omitempty"`
	Inline uint16 `cbor:"9,keyasint,omitempty"`
	MTU    uint8  `cbor:"10,keyasint,omitempty"`
	Both   bool   `cbor:"11,keyasint,omitempty"`
	Events bool   `cbor:"12,keyasint,omitempty"`
	UD     bool   `cbor:"13,keyasint,omitempty"` // SENDs of datagrams
}

// ToolReady says that the receiver's end listens.
type ToolReady struct {
	Port      uint16   `cbor:"1,keyasint"`           // TCP
	Candidate uint16   `cbor:"2,keyasint,omitempty"` // of an RDMA tool: the sender's address, by its number
	GID       [16]byte `cbor:"3,keyasint"`           // and the receiver's
	// Fabric is what the receiver wants of the network; nil for nothing.
	Fabric *Fabric `cbor:"4,keyasint,omitempty"`
}

// ToolDone says that the sender's end is over, well or not. It follows each ToolReady.
type ToolDone struct{}

// ToolEnded says what became of the receiver's end: the answer to RunTool when that did
// not come up, else to ToolDone.
type ToolEnded struct {
	Code   uint8  `cbor:"1,keyasint,omitempty"` // exit code of the contract; 0: it ran
	Reason string `cbor:"2,keyasint,omitempty"`
	CPU    CPU    `cbor:"3,keyasint"` // of the program, and of its host meanwhile
}

// What may be asked of a receiver.
const (
	MaxToolTime       = 180e9    // nanoseconds
	MaxToolIterations = 10 << 20 // messages
)

func (*RunTool) kind() Kind   { return kindRunTool }
func (*ToolReady) kind() Kind { return kindToolReady }
func (*ToolDone) kind() Kind  { return kindToolDone }
func (*ToolEnded) kind() Kind { return kindToolEnded }

func (m *RunTool) check() error {
	if m.Tool < 1 || m.Tool >= toolEnd {
		return malformed("a tool with the number %d", m.Tool)
	}
	if m.Size < 1 || m.Size > MaxExtent || m.Depth < 1 || m.Depth > 4096 || m.Iterations > MaxToolIterations || m.Nanoseconds < 1 || m.Nanoseconds > MaxToolTime {
		return malformed("a tool's run of %d messages of %d bytes, %d in flight, for %d ns", m.Iterations, m.Size, m.Depth, m.Nanoseconds)
	}
	if m.QPs > maxVerbsQPs || m.Chain > 64 || m.Signal > m.Depth || m.Inline > 1024 || m.MTU > 5 {
		return malformed("a tool with %d queue pairs, %d messages a doorbell, %d a completion", m.QPs, m.Chain, m.Signal)
	}
	return nil
}

func (m *ToolReady) check() error {
	if m.Port == 0 || m.Candidate >= MaxCandidates {
		return malformed("a tool at port %d and address %d", m.Port, m.Candidate)
	}
	if m.Fabric != nil {
		return m.Fabric.check()
	}
	return nil
}

func (m *ToolDone) check() error { return nil }

func (m *ToolEnded) check() error {
	if err := m.CPU.check(); err != nil {
		return err
	}
	return texts(m.Reason)
}
