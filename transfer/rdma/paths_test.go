package rdma

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// hosts makes candidates of words like "mlx0=10.0.0.1/24", or "ib0=fe80::1", which is
// InfiniBand.
func hosts(words string) (list []Candidate) {
	for i, w := range strings.Fields(words) {
		device, addr, _ := strings.Cut(w, "=")
		c := Candidate{Device: device, Port: 1, GIDIndex: uint8(i)}
		if p, err := netip.ParsePrefix(addr); err == nil {
			c.Ethernet, c.GID, c.Subnet = true, ibverbs.GID(p.Addr().As16()), p.Masked()
		} else {
			c.GID = ibverbs.GID(netip.MustParseAddr(addr).As16())
		}
		list = append(list, c)
	}
	return list
}

func TestChoose(t *testing.T) {
	for _, c := range []struct{ name, mine, theirs, want string }{
		{"one", "a=10.0.0.1/24", "b=10.0.0.2/24", "a-b"},
		{"two rails", "a=10.0.0.1/24 a2=10.0.1.1/24", "b=10.0.0.2/24 b2=10.0.1.2/24", "a-b a2-b2"},
		{"in another order", "a=10.0.0.1/24 a2=10.0.1.1/24", "b2=10.0.1.2/24 b=10.0.0.2/24", "a-b a2-b2"},
		{"both kinds of address on each", "a=10.0.0.1/24 a=fd00:aa::1/64 a2=10.0.1.1/24 a2=fd00:ab::1/64",
			"b=10.0.0.2/24 b=fd00:aa::2/64 b2=10.0.1.2/24 b2=fd00:ab::2/64", "a-b a2-b2"},
		{"IPv6 alone in common", "a=10.0.0.1/24 a=fd00:aa::1/64", "b=fd00:aa::2/64", "a-b"},
		{"one subnet for all", "a=10.0.0.1/24 a2=10.0.0.2/24", "b=10.0.0.3/24 b2=10.0.0.4/24", "a2-b a-b2"},
		{"the sender has one", "a=10.0.0.1/24 a2=10.0.1.1/24", "b=10.0.1.2/24", "a2-b"},
		{"neighbours, and such that don't meet", "a=10.0.0.1/24 a2=192.168.7.1/24", "b=172.16.0.1/24 b2=10.0.0.2/24", "a-b2"},
		{"behind routers", "a=10.1.1.1/31 a2=10.1.2.1/31", "b=10.2.1.1/31 b2=10.2.2.1/31", "a-b a2-b2"},
		{"the same host", "a=10.0.0.1/24", "a=10.0.0.1/24", "a-a"},
		{"InfiniBand", "i=fe80::1 i2=fe80::2", "j=fe80::3 j2=fe80::4", "i2-j i-j2"},
		{"InfiniBand and Ethernet", "i=fe80::1 a=10.0.0.1/24", "b=10.0.0.2/24 j=fe80::2", "i-j a-b"},
		{"nothing in common", "i=fe80::1", "b=10.0.0.2/24", ""},
	} {
		var theirs []wire.Candidate
		for _, h := range hosts(c.theirs) {
			theirs = append(theirs, h.wire())
		}
		rails, err := choose(hosts(c.mine), theirs)
		var got []string
		for _, r := range rails {
			got = append(got, r.mine.Device+"-"+r.theirs.Device)
			if theirs[r.remote].Device != r.theirs.Device {
				t.Errorf("%s: the sender is told to use %s", c.name, theirs[r.remote].Device)
			}
		}
		if s := strings.Join(got, " "); s != c.want || (err != nil) != (c.want == "") || err != nil && !errors.Is(err, ErrNoPath) {
			t.Errorf("%s: %q, %v; want %q", c.name, s, err, c.want)
		}
	}
}
