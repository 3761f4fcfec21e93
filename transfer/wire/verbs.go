package wire

// Verbs asks the receiver for its end of a measurement of the verbs alone: messages between
// queue pairs that are made for it, with the settings of perftest. The passive end runs
// until VerbsStop.
type Verbs struct {
	Op          string `cbor:"1,keyasint"` // write, send, read, ud
	Latency     bool   `cbor:"2,keyasint,omitempty"`
	Both        bool   `cbor:"3,keyasint,omitempty"` // both ends send
	Size        uint32 `cbor:"4,keyasint"`           // of a message, bytes
	Depth       uint16 `cbor:"5,keyasint"`           // messages in flight, each queue pair
	QPs         uint16 `cbor:"6,keyasint"`
	Chain       uint16 `cbor:"7,keyasint"`            // messages a doorbell
	Signal      uint16 `cbor:"8,keyasint"`            // messages a completion
	Inline      uint16 `cbor:"9,keyasint"`            // bytes
	Buffers     uint32 `cbor:"10,keyasint"`           // messages' room
	Events      bool   `cbor:"11,keyasint,omitempty"` // wait on events
	Spin        uint32 `cbor:"12,keyasint,omitempty"` // microseconds of polling before that
	MTU         uint8  `cbor:"13,keyasint,omitempty"` // coded, as in ibverbs.MTU; 0: the port's
	Nanoseconds int64  `cbor:"14,keyasint"`           // after which it is ended, whatever it does
}

// VerbsEnd is what an end tells the other so that its queue pairs can connect.
type VerbsEnd struct {
	Candidate uint16      `cbor:"1,keyasint,omitempty"` // the receiver's choice of Hello.RDMA
	QPs       []QueuePair `cbor:"2,keyasint"`
	Addr      uint64      `cbor:"3,keyasint"` // of the memory that may be read or written
	RKey      uint32      `cbor:"4,keyasint"`
	Detail    string      `cbor:"5,keyasint"` // what it runs on
	// Fabric is what the receiver wants of the network; nil for nothing.
	Fabric *Fabric `cbor:"6,keyasint,omitempty"`
}

// VerbsReady says that the receiver's end is connected and serves.
type VerbsReady struct{}

// VerbsStop says that the sender has measured, or given up.
type VerbsStop struct{}

// VerbsOver says what the receiver's end did meanwhile.
type VerbsOver struct {
	Code        uint8  `cbor:"1,keyasint,omitempty"` // exit code of the contract; 0: all went well
	Reason      string `cbor:"2,keyasint,omitempty"`
	Messages    int64  `cbor:"3,keyasint"` // of its own, when both ends send
	Nanoseconds int64  `cbor:"4,keyasint"` // that they took
	Received    int64  `cbor:"5,keyasint"` // of the sender's, where they take a receive
	CPU         CPU    `cbor:"6,keyasint"` // since VerbsReady
}

// What may be asked of a receiver; its memory and its queues have bounds of their own.
const (
	MaxVerbsTime = 900e9   // nanoseconds
	MaxVerbsSpin = 1000000 // microseconds
	maxVerbsQPs  = 64
)

func (*Verbs) kind() Kind      { return kindVerbs }
func (*VerbsEnd) kind() Kind   { return kindVerbsEnd }
func (*VerbsReady) kind() Kind { return kindVerbsReady }
func (*VerbsStop) kind() Kind  { return kindVerbsStop }
func (*VerbsOver) kind() Kind  { return kindVerbsOver }

func (m *Verbs) check() error {
	if m.Size < 1 || m.Size > MaxExtent || m.Depth < 1 || m.Depth > 4096 || m.QPs < 1 || m.QPs > maxVerbsQPs || m.Chain < 1 || m.Chain > 64 ||
		m.Signal < 1 || m.Signal > m.Depth || m.Inline > 1024 || m.Buffers < 1 || m.Buffers > 1<<20 || m.MTU > 5 || m.Spin > MaxVerbsSpin {
		return malformed("a measurement of verbs: %d bytes, depth %d, %d queue pairs", m.Size, m.Depth, m.QPs)
	}
	if m.Nanoseconds < 1 || m.Nanoseconds > MaxVerbsTime {
		return malformed("a measurement of verbs for %d ns", m.Nanoseconds)
	}
	return texts(m.Op)
}

func (m *VerbsEnd) check() error {
	if len(m.QPs) < 1 || len(m.QPs) > maxVerbsQPs || m.Candidate >= MaxCandidates {
		return malformed("%d queue pairs at address %d", len(m.QPs), m.Candidate)
	}
	for i := range m.QPs {
		if q := &m.QPs[i]; q.MTU < 1 || q.MTU > 5 || q.QPN > 0xffffff || q.PSN > 0xffffff {
			return malformed("a queue pair's parameters")
		}
	}
	if m.Fabric != nil {
		if err := m.Fabric.check(); err != nil {
			return err
		}
	}
	return texts(m.Detail)
}

func (m *VerbsReady) check() error { return nil }
func (m *VerbsStop) check() error  { return nil }

func (m *VerbsOver) check() error {
	if m.Messages < 0 || m.Nanoseconds < 0 || m.Received < 0 {
		return malformed("a negative measurement")
	}
	if err := m.CPU.check(); err != nil {
		return err
	}
	return texts(m.Reason)
}
