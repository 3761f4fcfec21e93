package rdma

import (
	"reflect"
	"testing"
	"testing/fstest"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

func ptr[T any](v T) *T { return &v }

// TestFollow: what this end's user said counts, else the other end's, and of both MTUs the
// smaller.
func TestFollow(t *testing.T) {
	mine := Fabric{Fabric: wire.Fabric{ServiceLevel: ptr(uint8(0)), Retries: ptr(uint8(3)), MTU: ptr(uint8(4))}, FlowLabel: ptr(uint32(9))}
	peer := wire.Fabric{ServiceLevel: ptr(uint8(5)), TrafficClass: ptr(uint8(104)), PKey: ptr(uint16(0x8001)), Timeout: ptr(uint8(18)), MTU: ptr(uint8(3))}
	got := mine.follow(&peer)
	if *got.ServiceLevel != 0 || *got.TrafficClass != 104 || *got.PKey != 0x8001 || *got.Timeout != 18 || *got.Retries != 3 || got.mtu() != 3 || *got.FlowLabel != 9 {
		t.Errorf("%+v", got)
	}
	if mine.TrafficClass != nil || mine.mtu() != 4 {
		t.Errorf("it is not what it was: %+v", mine)
	}
	if got := mine.follow(&wire.Fabric{MTU: ptr(uint8(5))}); got.mtu() != 4 || got.lower(5) != 4 || got.lower(3) != 3 {
		t.Errorf("MTU code %d of 4 and 5", got.mtu())
	}
	for most, want := range map[ibverbs.MTU][2]ibverbs.MTU{2: {2, 2}, 5: {4, 5}} {
		a, b := mine.within(most), Fabric{}.within(most)
		if a.mtu() != want[0] || b.mtu() != want[1] {
			t.Errorf("within MTU code %d: %d, %d; want %d", most, a.mtu(), b.mtu(), want)
		}
	}
	if got := (Fabric{}).follow(&wire.Fabric{}); got != (Fabric{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

// TestParams: flags before the system's settings, those before nothing.
func TestParams(t *testing.T) {
	sys := fstest.MapFS{
		"sys/class/infiniband/mlx5_0/tc/1/traffic_class":                  {Data: []byte("Global tclass=106\n")},
		"sys/kernel/config/rdma_cm/bnxt_re0/ports/1/default_roce_tos":     {Data: []byte("104\n")},
		"sys/kernel/config/rdma_cm/bnxt_re0/ports/2/default_roce_tos":     {Data: []byte("nonsense\n")},
		"sys/kernel/config/rdma_cm/mlx5_0/ports/1/default_roce_tos":       {Data: []byte("1\n")},
		"sys/class/infiniband/mlx5_1/tc/1/traffic_class":                  {Data: []byte("\n")},
		"sys/kernel/config/rdma_cm/mlx5_1/ports/1/default_roce_tos":       {Data: []byte("0x68\n")},
		"sys/class/infiniband/mlx5_ib/tc/1/traffic_class":                 {Data: []byte("Global tclass=106\n")},
		"sys/kernel/config/rdma_cm/mlx5_ib/ports/1/default_roce_mode":     {Data: []byte("RoCE v2\n")},
		"sys/class/infiniband/mlx5_2/tc/1/traffic_class/not/a/file/at/it": {Data: []byte("1")},
	}
	for _, c := range []struct {
		device   string
		port     uint8
		ethernet bool
		fabric   Fabric
		class    uint8
	}{
		{"mlx5_0", 1, true, Fabric{}, 106},
		{"bnxt_re0", 1, true, Fabric{}, 104},
		{"bnxt_re0", 2, true, Fabric{}, 0},
		{"mlx5_1", 1, true, Fabric{}, 0x68},
		{"mlx5_2", 1, true, Fabric{}, 0},
		{"mlx5_0", 1, true, Fabric{Fabric: wire.Fabric{TrafficClass: ptr(uint8(0))}}, 0},
		{"mlx5_ib", 1, false, Fabric{}, 0},
	} {
		p := c.fabric.params(&wire.Candidate{Device: c.device, Port: c.port, Ethernet: c.ethernet}, 7, sys)
		if p.TrafficClass != c.class {
			t.Errorf("%s port %d: traffic class %d, want %d", c.device, c.port, p.TrafficClass, c.class)
		}
	}
	f := Fabric{Fabric: wire.Fabric{ServiceLevel: ptr(uint8(3)), Timeout: ptr(uint8(20)), Retries: ptr(uint8(0))}, FlowLabel: ptr(uint32(9))}
	p := f.params(&wire.Candidate{}, 7, sys)
	if p.ServiceLevel != 3 || p.Timeout != 20 || p.Retries != ibverbs.None || p.FlowLabel != 9 {
		t.Errorf("%+v", p)
	}
	if p = new(Fabric).params(&wire.Candidate{}, 7, sys); p.Timeout != ackTimeout || p.Retries != 0 {
		t.Errorf("by default: %+v", p)
	}
}

// TestFlowLabels: lanes of one host have labels of their own, which are valid.
func TestFlowLabels(t *testing.T) {
	seen := make(map[uint32]bool)
	for qpn := uint32(0x100); qpn < 0x140; qpn++ {
		l := flowLabel(qpn)
		if l == 0 || l > 0xfffff {
			t.Errorf("label %#x", l)
		}
		seen[l] = true
	}
	if len(seen) < 60 {
		t.Errorf("%d labels for 64 queue pairs", len(seen))
	}
}

// TestQueuePairsAreTold with all that the other end needs to reach them.
func TestQueuePairsAreTold(t *testing.T) {
	e := ibverbs.Endpoint{QPN: 1, PSN: 2, GID: ibverbs.GID{3}, LID: 4, MTU: 5, NeedsGRH: true}
	for i, v := 0, reflect.ValueOf(e); i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("this test has no %s", v.Type().Field(i).Name)
		}
	}
	q := queuePair(e, new(Fabric))
	if got := endpointOf(&q); got != e {
		t.Errorf("%+v, want %+v", got, e)
	}
}
