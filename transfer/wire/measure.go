package wire

// Measure asks the receiver to pull extents for a while, and to forget them: how fast a
// lane is. Messages of this file are for sessions whose Hello says so.
type Measure struct {
	Transport   string `cbor:"1,keyasint"` // rdma, tcp, udp
	Op          string `cbor:"2,keyasint"` // of RDMA: read, write, send
	Size        uint32 `cbor:"3,keyasint"` // of an extent, bytes
	Depth       uint16 `cbor:"4,keyasint"` // requests in flight
	Extents     uint32 `cbor:"5,keyasint"` // there are; they are asked for in turn
	Warmup      int64  `cbor:"6,keyasint"` // nanoseconds that don't count
	Nanoseconds int64  `cbor:"7,keyasint"` // that do
	// Interval is how far apart requests are due, nanoseconds; 0: as soon as there is room.
	Interval int64 `cbor:"8,keyasint,omitempty"`
	Count    bool  `cbor:"9,keyasint,omitempty"` // Work too, which costs a little
}

// Measuring says that the lane is up and warm: from now on it counts.
type Measuring struct {
	Detail string `cbor:"1,keyasint"` // what the receiver's end of the lane runs on
}

// Measured is what came of it.
type Measured struct {
	Code        uint8  `cbor:"1,keyasint,omitempty"` // exit code of the contract; 0: it was measured
	Reason      string `cbor:"2,keyasint,omitempty"` // why it was not
	Extents     int64  `cbor:"3,keyasint"`           // that landed
	Nanoseconds int64  `cbor:"4,keyasint"`           // that it took
	CPU         CPU    `cbor:"5,keyasint"`           // of the receiver's host meanwhile
	// How long extents took from the request to the last byte, nanoseconds, and how
	// many of them took as long.
	Took  []int64 `cbor:"6,keyasint,omitempty"`
	Times []int64 `cbor:"7,keyasint,omitempty"`
	// Memory is what the receiver's process had in the end.
	Memory Memory `cbor:"8,keyasint"`
	Work   *Work  `cbor:"9,keyasint,omitempty"` // where it was to be counted
	// Datagrams is how many were asked for, of UDP, and Lost how many of them did not come
	// in time.
	Datagrams int64 `cbor:"10,keyasint,omitempty"`
	Lost      int64 `cbor:"11,keyasint,omitempty"`
}

// Work is what a process did meanwhile that can be counted.
type Work struct {
	Crossings   int64 `cbor:"1,keyasint"` // calls into C
	Allocations int64 `cbor:"2,keyasint"`
	SystemCalls int64 `cbor:"3,keyasint"` // -1: not known
}

// Memory is what a process has, bytes.
type Memory struct {
	Anonymous int64 `cbor:"1,keyasint"`
	Pinned    int64 `cbor:"2,keyasint"`
	Peak      int64 `cbor:"3,keyasint"`
}

// CPU is time that processors spent, nanoseconds.
type CPU struct {
	User   int64 `cbor:"1,keyasint"` // in the process
	System int64 `cbor:"2,keyasint"` // in the kernel for it (getrusage(2))
	Host   int64 `cbor:"3,keyasint"` // of the whole host that was not idle (/proc/stat)
	// SoftIRQ is the part of that which served software interrupts.
	SoftIRQ int64 `cbor:"4,keyasint"`
}

func (c *CPU) check() error {
	if c.User < 0 || c.System < 0 || c.Host < 0 || c.SoftIRQ < 0 {
		return malformed("negative time of processors")
	}
	return nil
}

// What a measurement may ask of a receiver.
const (
	MaxMeasure  = 600e9   // nanoseconds of warm-up, and of what counts
	MaxInterval = 1e9     // nanoseconds between requests
	maxTook     = 1 << 15 // different times
)

func (*Measure) kind() Kind   { return kindMeasure }
func (*Measuring) kind() Kind { return kindMeasuring }
func (*Measured) kind() Kind  { return kindMeasured }

func (m *Measure) check() error {
	if m.Size < 1 || m.Size > MaxExtent || m.Depth < 1 || m.Depth > 1024 || m.Extents < uint32(m.Depth) || int64(m.Extents)*int64(m.Size) > MaxSize {
		return malformed("a measurement of %d extents of %d bytes, %d in flight", m.Extents, m.Size, m.Depth)
	}
	if m.Warmup < 0 || m.Warmup > MaxMeasure || m.Nanoseconds < 1 || m.Nanoseconds > MaxMeasure {
		return malformed("a measurement of %d and %d ns", m.Warmup, m.Nanoseconds)
	}
	if m.Interval < 0 || m.Interval > MaxInterval {
		return malformed("requests that are due every %d ns", m.Interval)
	}
	return texts(m.Transport, m.Op)
}

func (m *Measuring) check() error { return texts(m.Detail) }

func (m *Measured) check() error {
	if len(m.Took) != len(m.Times) || len(m.Took) > maxTook {
		return malformed("%d times of %d", len(m.Times), len(m.Took))
	}
	for i := range m.Took {
		if m.Took[i] < 0 || m.Times[i] < 0 {
			return malformed("negative times")
		}
	}
	if m.Lost < 0 || m.Lost > m.Datagrams {
		return malformed("%d of %d datagrams lost", m.Lost, m.Datagrams)
	}
	if m.Extents < 0 || m.Nanoseconds < 0 || m.Memory.Anonymous < 0 || m.Memory.Pinned < 0 || m.Memory.Peak < 0 {
		return malformed("a negative measurement")
	}
	if w := m.Work; w != nil && (w.Crossings < 0 || w.Allocations < 0 || w.SystemCalls < -1) {
		return malformed("negative work")
	}
	if err := m.CPU.check(); err != nil {
		return err
	}
	return texts(m.Reason)
}
