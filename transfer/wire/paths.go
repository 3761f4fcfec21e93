package wire

import (
	"cmp"
	"math"
)

// Messages of this file are about how two hosts reach each other over RDMA: what each
// has to offer, which pairs of it answered when they were tried, and what was chosen.

// Bounds on them.
const (
	MaxCandidates = 256 // RDMA addresses of one host
	MaxProbes     = 64  // queue pairs of probes at once
	MaxRails      = 64  // pairs of ports that a user chose
	maxRefused    = 256 // ports that a host can't offer
	maxRows       = 256 // of a report
	maxPKeys      = 16  // of one port
	maxDevice     = 64  // bytes of a device's name, or of its network device's
)

// Candidate is one address over which a host's RDMA can be reached.
type Candidate struct {
	// Number names it among all that its host has offered in this session.
	Number   uint16   `cbor:"1,keyasint"`
	Device   string   `cbor:"2,keyasint"`
	Port     uint8    `cbor:"3,keyasint"`
	GIDIndex uint8    `cbor:"4,keyasint"`
	GID      [16]byte `cbor:"5,keyasint"`
	GIDType  uint8    `cbor:"6,keyasint,omitempty"` // as in ibverbs.GIDType
	LID      uint16   `cbor:"7,keyasint,omitempty"`
	MTU      uint8    `cbor:"8,keyasint"` // coded, as in ibverbs.MTU
	Ethernet bool     `cbor:"9,keyasint,omitempty"`
	Netdev   string   `cbor:"10,keyasint,omitempty"` // empty: none that its host can see
	Mbps     uint32   `cbor:"11,keyasint,omitempty"` // Mbit/s of the link; 0: nobody knows
	Node     int16    `cbor:"12,keyasint"`           // NUMA node of the device; -1: nobody knows
	Far      bool     `cbor:"13,keyasint,omitempty"` // the program may not run on that node
	PKeys    []uint16 `cbor:"14,keyasint,omitempty"` // the port's partitions; empty: the default one
}

// Refusal says why a port is not among the candidates, and the mend.
type Refusal struct {
	Device string `cbor:"1,keyasint"`
	Port   uint8  `cbor:"2,keyasint,omitempty"` // 0: the whole device
	Reason string `cbor:"3,keyasint"`
}

// Rail is a pair of devices that a user chose: "mlx5_0", or with a port "mlx5_0/2".
type Rail struct {
	Here  string `cbor:"1,keyasint"` // of the host that says so
	There string `cbor:"2,keyasint"`
}

// Fabric is what a host's user wants of the network. What is nil was left open.
type Fabric struct {
	ServiceLevel *uint8  `cbor:"1,keyasint,omitempty"`
	TrafficClass *uint8  `cbor:"2,keyasint,omitempty"`
	PKey         *uint16 `cbor:"3,keyasint,omitempty"`
	MTU          *uint8  `cbor:"4,keyasint,omitempty"` // coded: no larger than that
	Timeout      *uint8  `cbor:"5,keyasint,omitempty"` // coded, as in ibverbs.ConnectParams
	Retries      *uint8  `cbor:"6,keyasint,omitempty"`
}

// Or fills in what was left open with what the other host's user wants. Of both MTUs the
// smaller one counts.
func (f Fabric) Or(other *Fabric) Fabric {
	f.ServiceLevel = cmp.Or(f.ServiceLevel, other.ServiceLevel)
	f.TrafficClass = cmp.Or(f.TrafficClass, other.TrafficClass)
	f.PKey = cmp.Or(f.PKey, other.PKey)
	f.Timeout = cmp.Or(f.Timeout, other.Timeout)
	f.Retries = cmp.Or(f.Retries, other.Retries)
	if other.MTU != nil && (f.MTU == nil || *other.MTU < *f.MTU) {
		f.MTU = other.MTU
	}
	return f
}

// Offer is where a host's RDMA can be reached: in Hello, and as a message when it was
// asked for again.
type Offer struct {
	Candidates []Candidate `cbor:"1,keyasint,omitempty"`
	Refused    []Refusal   `cbor:"2,keyasint,omitempty"`
	Reason     string      `cbor:"3,keyasint,omitempty"` // why there are no candidates
	Final      bool        `cbor:"4,keyasint,omitempty"` // there will be none as long as the program runs
	Fabric     Fabric      `cbor:"5,keyasint"`
	Rails      []Rail      `cbor:"6,keyasint,omitempty"` // lanes run on these alone
}

// AskOffer asks the sender what it has to offer now.
type AskOffer struct{}

// ProbePath asks the sender for one end of a short-lived queue pair. The receiver sends
// a few messages over it: their acknowledgements prove the path.
type ProbePath struct {
	ID        uint32    `cbor:"1,keyasint"` // rises in a session
	Candidate uint16    `cbor:"2,keyasint"` // Number of the sender's
	QP        QueuePair `cbor:"3,keyasint"`
	PKey      uint16    `cbor:"4,keyasint,omitempty"` // to use; 0: the port's first
	Fabric    Fabric    `cbor:"5,keyasint"`           // of the receiver's user
}

// PathAnswer says that the sender's end is ready, or why not.
type PathAnswer struct {
	ID     uint32     `cbor:"1,keyasint"`
	QP     *QueuePair `cbor:"2,keyasint,omitempty"`
	Reason string     `cbor:"3,keyasint,omitempty"` // set: there is no such end
}

// ProbesOver ends the probes whose IDs are below that. The sender answers with ProbesSeen.
type ProbesOver struct {
	Below uint32 `cbor:"1,keyasint"`
}

// ProbesSeen says which of the probes that are over the sender got something of.
type ProbesSeen struct {
	Below uint32   `cbor:"1,keyasint"` // as in ProbesOver
	IDs   []uint32 `cbor:"2,keyasint,omitempty"`
}

// PathState is what became of a pair of addresses.
type PathState uint8

// The states of a pair.
const (
	PathUntried PathState = iota // it was not needed, or can't work
	PathFailed                   // it was tried, and nothing came back
	PathSpare                    // it answered, and is not needed
	PathChosen                   // lanes run on it
	pathStateEnd
)

// PathRow is one pair of addresses in a report.
type PathRow struct {
	Receiver Candidate `cbor:"1,keyasint"`
	Sender   Candidate `cbor:"2,keyasint"`
	State    PathState `cbor:"3,keyasint"`
	MTU      uint8     `cbor:"4,keyasint,omitempty"` // coded: what passed
	Took     int64     `cbor:"5,keyasint,omitempty"` // nanoseconds from the first message to its acknowledgement
	Reason   string    `cbor:"6,keyasint,omitempty"`
}

// Paths tells the sender what the receiver found.
type Paths struct {
	Rows        []PathRow `cbor:"1,keyasint,omitempty"`
	Refused     []Refusal `cbor:"2,keyasint,omitempty"` // the receiver's ports that are no candidates
	Reason      string    `cbor:"3,keyasint,omitempty"` // why nothing was chosen
	Nanoseconds int64     `cbor:"4,keyasint"`           // that it took
}

func (*Offer) kind() Kind      { return kindOffer }
func (*AskOffer) kind() Kind   { return kindAskOffer }
func (*ProbePath) kind() Kind  { return kindProbePath }
func (*PathAnswer) kind() Kind { return kindPathAnswer }
func (*ProbesOver) kind() Kind { return kindProbesOver }
func (*ProbesSeen) kind() Kind { return kindProbesSeen }
func (*Paths) kind() Kind      { return kindPaths }

func (c *Candidate) check() error {
	if len(c.Device) > maxDevice || len(c.Netdev) > maxDevice || c.MTU < 1 || c.MTU > 5 || c.Port == 0 || c.GIDType > 2 || len(c.PKeys) > maxPKeys {
		return malformed("an RDMA address")
	}
	return texts(c.Device, c.Netdev)
}

func checkRefused(list []Refusal) error {
	if len(list) > maxRefused {
		return malformed("%d refused ports", len(list))
	}
	for i := range list {
		if len(list[i].Device) > maxDevice {
			return malformed("the name of a device")
		}
		if err := texts(list[i].Device, list[i].Reason); err != nil {
			return err
		}
	}
	return nil
}

func (f *Fabric) check() error {
	over := func(v *uint8, most uint8) bool { return v != nil && *v > most }
	if over(f.ServiceLevel, 15) || over(f.MTU, 5) || f.MTU != nil && *f.MTU == 0 || over(f.Timeout, 31) || over(f.Retries, 7) {
		return malformed("parameters of the fabric")
	}
	return nil
}

func (m *Offer) check() error {
	if m == nil {
		return nil
	}
	if len(m.Candidates) > MaxCandidates || len(m.Rails) > MaxRails {
		return malformed("%d RDMA addresses, %d rails", len(m.Candidates), len(m.Rails))
	}
	for i := range m.Candidates {
		if err := m.Candidates[i].check(); err != nil {
			return err
		}
	}
	for _, r := range m.Rails {
		if len(r.Here) > maxDevice || len(r.There) > maxDevice {
			return malformed("a rail")
		}
		if err := texts(r.Here, r.There); err != nil {
			return err
		}
	}
	if err := checkRefused(m.Refused); err != nil {
		return err
	}
	if err := m.Fabric.check(); err != nil {
		return err
	}
	return texts(m.Reason)
}

func (*AskOffer) check() error { return nil }

func (m *ProbePath) check() error {
	if m.ID == math.MaxUint32 { // no number would end it
		return malformed("the number of a probe")
	}
	if err := m.QP.check(); err != nil {
		return err
	}
	return m.Fabric.check()
}

func (m *PathAnswer) check() error {
	if (m.QP == nil) == (m.Reason == "") {
		return malformed("an end of a probe that is neither there nor refused")
	}
	if m.QP != nil {
		if err := m.QP.check(); err != nil {
			return err
		}
	}
	return texts(m.Reason)
}

func (*ProbesOver) check() error { return nil }

func (m *ProbesSeen) check() error {
	if len(m.IDs) > MaxProbes {
		return malformed("%d probes", len(m.IDs))
	}
	return nil
}

func (m *Paths) check() error {
	if len(m.Rows) > maxRows || m.Nanoseconds < 0 {
		return malformed("a report of %d pairs", len(m.Rows))
	}
	for i := range m.Rows {
		r := &m.Rows[i]
		if r.State >= pathStateEnd || r.MTU > 5 || r.Took < 0 {
			return malformed("a pair of addresses")
		}
		for _, c := range []*Candidate{&r.Receiver, &r.Sender} {
			if err := c.check(); err != nil {
				return err
			}
		}
		if err := texts(r.Reason); err != nil {
			return err
		}
	}
	if err := checkRefused(m.Refused); err != nil {
		return err
	}
	return texts(m.Reason)
}

func (q *QueuePair) check() error {
	if q.MTU < 1 || q.MTU > 5 || q.QPN > 0xffffff || q.PSN > 0xffffff {
		return malformed("a queue pair's parameters")
	}
	return nil
}
