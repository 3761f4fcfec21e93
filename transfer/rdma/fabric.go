package rdma

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Fabric is what this host's user wants of the network. What is nil was left open: the
// other end's wish counts then, and after it the system's or this package's default.
type Fabric struct {
	wire.Fabric         // what the other end is told
	FlowLabel   *uint32 // 20 bits; nil for one of its own for each queue pair
}

// follow fills in what was left open with what the other end's user said.
func (f Fabric) follow(peer *wire.Fabric) Fabric {
	f.Fabric = f.Or(peer)
	return f
}

// lower is an MTU that this fabric has room for.
func (f *Fabric) lower(m ibverbs.MTU) ibverbs.MTU {
	if most := f.mtu(); most != 0 && most < m {
		return most
	}
	return m
}

// mtu is the largest that is wanted, 0 for any.
func (f *Fabric) mtu() ibverbs.MTU {
	if f.MTU == nil {
		return 0
	}
	return ibverbs.MTU(*f.MTU)
}

// within is the fabric with packets up to an MTU.
func (f Fabric) within(m ibverbs.MTU) Fabric {
	most := uint8(f.lower(m))
	f.MTU = &most
	return f
}

// ackTimeout is the queue pair's acknowledgement time-out, 4.096 µs × 2^15 = 134 ms.
// At the usual 67 ms (14) soft-RoCE on a busy emulated host sends again what was only
// late (hw_counters/completer_retry_err). The longer it is, the later is it noticed
// that a path is dead: 4 to 7 s with the 6 retries that are ibverbs' default.
const ackTimeout = 15

// params are the parameters of a connection of the queue pair qpn over a candidate.
func (f *Fabric) params(c *wire.Candidate, qpn uint32, sys fs.FS) ibverbs.ConnectParams {
	p := f.asked()
	if f.Timeout == nil {
		p.Timeout = ackTimeout
	}
	if f.TrafficClass == nil && c.Ethernet {
		p.TrafficClass = systemTrafficClass(sys, c.Device, int(c.Port))
	}
	if f.FlowLabel == nil {
		p.FlowLabel = flowLabel(qpn)
	}
	return p
}

// asked is what users asked for of a connection, but for its MTU, and nothing of this package's defaults:
// where it is compared with other programs, those have theirs.
func (f *Fabric) asked() (p ibverbs.ConnectParams) {
	deref := func(to, v *uint8) {
		if v != nil {
			*to = *v
		}
	}
	deref(&p.ServiceLevel, f.ServiceLevel)
	deref(&p.TrafficClass, f.TrafficClass)
	deref(&p.Timeout, f.Timeout)
	if f.Retries != nil {
		if p.Retries = *f.Retries; p.Retries == 0 {
			p.Retries = ibverbs.None
		}
	}
	if f.FlowLabel != nil {
		p.FlowLabel = *f.FlowLabel
	}
	return p
}

// flowLabel is one that hardly two queue pairs of a host share: equal-cost paths, and
// the queues of the cards, are chosen by it (IPv6), or by the UDP source port that the
// kernel makes of it (IPv4; rdma_flow_label_to_udp_sport in include/rdma/ib_verbs.h).
func flowLabel(qpn uint32) uint32 { return (qpn*2654435761)>>12 | 1 }

// systemTrafficClass is what the administrator has configured for RoCE: for the
// connection manager (Documentation/ABI/testing/configfs-rdma_cm, default_roce_tos), or
// for all of a Mellanox card ("Global tclass=N" in its traffic_class). sys is the file
// system's root.
func systemTrafficClass(sys fs.FS, device string, port int) uint8 {
	for _, path := range []string{
		fmt.Sprintf("sys/class/infiniband/%s/tc/%d/traffic_class", device, port),
		fmt.Sprintf("sys/kernel/config/rdma_cm/%s/ports/%d/default_roce_tos", device, port),
	} {
		b, err := fs.ReadFile(sys, path)
		if err != nil {
			continue
		}
		for word := range strings.FieldsSeq(string(b)) {
			word = strings.TrimPrefix(word, "tclass=")
			if n, err := strconv.ParseUint(word, 0, 8); err == nil {
				return uint8(n)
			}
		}
	}
	return 0
}
