package ibverbs

import "fmt"

// None stands for 0 in those of the [ConnectParams] whose zero value means a default.
const None uint8 = 255

// ConnectParams are the parameters of a connection. The zero value of each means
// the default that its comment gives.
type ConnectParams struct {
	Path
	MTU            MTU   // path MTU; default the lower of both ports'
	Timeout        uint8 // acknowledgement time-out, 4.096 µs × 2^n, 1 to 31; default 14 (67 ms)
	Retries        uint8 // after time-outs, up to 7; default 6: soft-RoCE takes 7 as "for ever"
	RNRRetries     uint8 // after "receiver not ready", up to 6; default 6. 7 would be for ever
	MinRNRTimer    uint8 // coded delay that a receiver asks for (IBTA 9.7.5.2.8), 1 to 31; default 12 (0.64 ms)
	MaxReads       uint8 // outstanding READs and atomics as initiator; default 1
	MaxReadsServed uint8 // the same as responder, at least the peer's MaxReads; default 1
}

// setDefaults replaces zeroes by defaults, and None by zeroes.
func (p *ConnectParams) setDefaults(local, remote *Endpoint) {
	def := func(v *uint8, d uint8) {
		switch *v {
		case 0:
			*v = d
		case None:
			*v = 0
		}
	}
	p.Path.setDefaults()
	def((*uint8)(&p.MTU), uint8(min(local.MTU, remote.MTU)))
	def(&p.Timeout, 14)
	def(&p.Retries, 6)
	def(&p.RNRRetries, 6)
	def(&p.MinRNRTimer, 12)
	def(&p.MaxReads, 1)
	def(&p.MaxReadsServed, 1)
}

// check finds what no device would accept, or what would wait for ever.
func (p *ConnectParams) check(typ QPType, local, remote *Endpoint, port *PortAttr, dev *DeviceAttr) error {
	if err := p.Path.check(local, remote, port.LinkLayer); err != nil {
		return err
	}
	within := func(name string, v uint8, least, most int) error {
		if int(v) < least || int(v) > most {
			return &ParamError{name, fmt.Sprint(v), fmt.Sprintf("must be %d to %d", least, most)}
		}
		return nil
	}
	switch lower := min(local.MTU, remote.MTU); {
	case p.MTU.Bytes() == 0:
		return &ParamError{"path MTU", fmt.Sprintf("code %d", p.MTU), "must be 1 to 5 (256 to 4096 bytes)"}
	case p.MTU > lower:
		return &ParamError{"path MTU", fmt.Sprint(p.MTU.Bytes()), fmt.Sprintf("the local port carries %d, the peer's %d", local.MTU.Bytes(), remote.MTU.Bytes())}
	case remote.QPN >= 1<<24 || remote.PSN >= 1<<24:
		return &ParamError{"remote queue pair", fmt.Sprintf("%#x, PSN %#x", remote.QPN, remote.PSN), "have 24 bits"}
	case typ == QPTypeUC:
		return nil
	}
	for _, c := range []struct {
		name        string
		v           uint8
		least, most int
	}{
		{"acknowledgement time-out", p.Timeout, 1, 31},
		{"retries", p.Retries, 0, 7},
		{"RNR retries", p.RNRRetries, 0, 6},
		{"minimum RNR timer", p.MinRNRTimer, 1, 31},
		{"outstanding reads", p.MaxReads, 0, dev.MaxQPInitRd},
		{"outstanding reads served", p.MaxReadsServed, 0, dev.MaxQPRead},
	} {
		if err := within(c.name, c.v, c.least, c.most); err != nil {
			return err
		}
	}
	return nil
}
