package rdma

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// hosts makes candidates of words like "mlx0=10.0.0.1/24", or "ib0=fe80::1", which is
// InfiniBand. Behind the address may come ",100G" (the rate), ",far" (on a NUMA node
// where the program does not run), ",none" (no network device), ",v1" (RoCE v1), and
// ",pkey:7fff" (a partition).
func hosts(t *testing.T, words string) (list []Candidate) {
	t.Helper()
	for i, w := range strings.Fields(words) {
		device, rest, _ := strings.Cut(w, "=")
		parts := strings.Split(rest, ",")
		c := Candidate{Candidate: wire.Candidate{Number: uint16(i), Device: device, Port: 1, GIDIndex: uint8(i), MTU: 5, GIDType: uint8(ibverbs.GIDTypeRoCEv2), Netdev: "eth-" + device, Node: -1}}
		if p, err := netip.ParsePrefix(parts[0]); err == nil {
			c.Ethernet, c.GID, c.Subnet = true, p.Addr().As16(), p.Masked()
		} else {
			c.GID = netip.MustParseAddr(parts[0]).As16()
		}
		for _, p := range parts[1:] {
			switch {
			case p == "far":
				c.Far = true
			case p == "none":
				c.Netdev = ""
			case p == "v1":
				c.GIDType = uint8(ibverbs.GIDTypeRoCEv1)
			case strings.HasPrefix(p, "pkey:"):
				c.PKeys = append(c.PKeys, map[string]uint16{"pkey:ffff": 0xffff, "pkey:7fff": 0x7fff, "pkey:8001": 0x8001, "pkey:1": 1}[p])
			case strings.HasSuffix(p, "G"):
				c.Mbps = map[string]uint32{"25G": 25000, "50G": 50000, "100G": 100000, "400G": 400000}[p]
			default:
				t.Fatalf("what is %q?", p)
			}
		}
		list = append(list, c)
	}
	return list
}

func offers(list []Candidate) (theirs []wire.Candidate) {
	for i := range list {
		theirs = append(theirs, list[i].Candidate)
	}
	return theirs
}

// railWords is how these tests write rails.
func railWords(rails []*pair) string {
	var got []string
	for _, r := range rails {
		got = append(got, r.mine.Device+"-"+r.theirs.Device)
	}
	return strings.Join(got, " ")
}

func TestRails(t *testing.T) {
	for _, c := range []struct{ name, mine, theirs, want string }{
		{"one", "a=10.0.0.1/24", "b=10.0.0.2/24", "a-b"},
		{"two rails", "a=10.0.0.1/24 a2=10.0.1.1/24", "b=10.0.0.2/24 b2=10.0.1.2/24", "a-b a2-b2"},
		{"in another order", "a=10.0.0.1/24 a2=10.0.1.1/24", "b2=10.0.1.2/24 b=10.0.0.2/24", "a-b a2-b2"},
		{"both kinds of address on each", "a=10.0.0.1/24 a=fd00:aa::1/64 a2=10.0.1.1/24 a2=fd00:ab::1/64",
			"b=10.0.0.2/24 b=fd00:aa::2/64 b2=10.0.1.2/24 b2=fd00:ab::2/64", "a-b a2-b2"},
		{"IPv6 alone in common", "a=10.0.0.1/24 a=fd00:aa::1/64", "b=fd00:aa::2/64", "a-b"},
		{"one subnet for all: rail to rail", "a=10.0.0.1/24 a2=10.0.0.2/24", "b=10.0.0.3/24 b2=10.0.0.4/24", "a-b a2-b2"},
		{"the sender has one", "a=10.0.0.1/24 a2=10.0.1.1/24", "b=10.0.1.2/24", "a2-b"},
		{"neighbours, and such that don't meet", "a=10.0.0.1/24 a2=192.168.7.1/24", "b=172.16.0.1/24 b2=10.0.0.2/24", "a-b2"},
		{"behind routers", "a=10.1.1.1/31 a2=10.1.2.1/31", "b=10.2.1.1/31 b2=10.2.2.1/31", "a-b a2-b2"},
		{"behind routers, by prefix", "a=10.1.1.1/31 a2=10.9.2.1/31", "b=10.9.1.1/31 b2=10.1.2.1/31", "a-b2 a2-b"},
		{"the same host", "a=10.0.0.1/24 a2=10.0.0.2/24", "a=10.0.0.1/24 a2=10.0.0.2/24", "a-a a2-a2"},
		{"InfiniBand", "i=fe80::1 i2=fe80::2", "j=fe80::3 j2=fe80::4", "i-j i2-j2"},
		{"InfiniBand and Ethernet", "i=fe80::1 a=10.0.0.1/24", "b=10.0.0.2/24 j=fe80::2", "i-j a-b"},
		{"InfiniBand of another subnet", "i=fe80::1", "j=fec0::2", "i-j"},
		{"nothing in common", "i=fe80::1", "b=10.0.0.2/24", ""},
		{"the faster first", "a=10.0.0.1/24,25G a2=10.0.0.2/24,100G", "b=10.0.0.3/24,100G", "a2-b"},
		{"fast to fast", "a=10.0.0.1/24,50G a2=10.0.0.2/24,100G", "b=10.0.0.3/24,100G b2=10.0.0.4/24,50G", "a2-b a-b2"},
		{"what is a quarter as fast is for something else", "a=10.0.0.1/24,25G a2=10.0.0.2/24,100G", "b=10.0.0.3/24,100G b2=10.0.0.4/24,25G", "a2-b"},
		{"rails of their own switches beside a shared subnet", "m=10.9.0.1/24,100G a=10.1.1.1/31,400G a2=10.1.2.1/31,400G",
			"m=10.9.0.2/24,100G b=10.2.1.1/31,400G b2=10.2.2.1/31,400G", "a-b a2-b2"},
		{"a bond of two cards is one rail", "a=10.0.0.1/24 a2=10.0.0.1/24", "b=10.0.0.2/24 b2=10.0.0.2/24", "a-b"},
		{"an address of its own before a shared one", "a=10.0.0.1/24 a2=10.0.0.1/24 a3=10.0.0.5/24", "b=10.0.0.2/24", "a3-b"},
		{"the node where the program runs, before the rate", "a=10.0.0.1/24,100G,far a2=10.0.0.2/24,25G", "b=10.0.0.3/24,100G", "a2-b"},
		{"a subnet before the node and the rate", "a=10.0.0.1/24,25G,far a2=10.7.0.2/24,400G", "b=10.0.0.3/24,100G", "a-b"},
		{"link-local where there is nothing else", "a=fe80::1/64", "b=fe80::2/64", "a-b"},
		{"link-local after what is routed", "a=fe80::1/64 a2=10.7.0.1/24", "b=fe80::2/64 b2=10.8.0.1/24", "a2-b2"},
		{"a phantom last", "a=10.0.0.1/24,none a2=10.7.0.1/24", "b=10.0.0.2/24,none b2=10.9.0.1/24", "a2-b2"},
		{"a phantom alone", "a=10.0.0.1/24,none", "b=10.0.0.2/24", "a-b"},
		{"RoCE v1 to itself", "a=fe80::1/64,v1 a2=10.0.0.1/24", "b=fe80::2/64,v1", "a-b"},
		{"the port's subnet before an address that is in none", "a=172.16.9.9/32 a2=10.0.0.5/24", "b=10.0.0.6/24", "a2-b"},
		{"nor one of IPv6", "a=fd00::9/128 a2=10.0.0.5/24", "b=fd00::8/128 b=10.0.0.6/24", "a2-b"},
		{"one subnet for all, and a port is down", "m1=10.0.0.1/24 m2=10.0.0.2/24", "m0=10.0.0.3/24 m1=10.0.0.4/24 m2=10.0.0.5/24", "m1-m1 m2-m2"},
		{"IPv4 before IPv6", "a=fd00::1/64 a=10.0.0.1/24", "b=fd00::2/64 b=10.0.0.2/24", "a-b"},
	} {
		all := pairs(hosts(t, c.mine), offers(hosts(t, c.theirs)), nil, nil)
		rails := match(all, hopeful)
		if got := railWords(rails); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		for _, r := range rails {
			if offers(hosts(t, c.theirs))[r.theirs.Number].Device != r.theirs.Device {
				t.Errorf("%s: the sender is told to use %s", c.name, r.theirs.Device)
			}
		}
	}
	all := pairs(hosts(t, "a=fd00::1/64 a=10.0.0.1/24"), offers(hosts(t, "b=fd00::2/64 b=10.0.0.2/24")), nil, nil)
	if a := addrOf(all[0].theirs); !a.Is4() {
		t.Errorf("the best pair is of %v", a)
	}
}

// TestOtherRails: what has failed makes room for the next best.
func TestOtherRails(t *testing.T) {
	for _, c := range []struct{ name, mine, theirs, dead, want string }{
		{"one of two rails", "a=10.0.0.1/24 a2=10.0.1.1/24", "b=10.0.0.2/24 b2=10.0.1.2/24", "a-b", "a2-b2"},
		{"one of two in one subnet", "a=10.0.0.1/24 a2=10.0.0.2/24", "b=10.0.0.3/24 b2=10.0.0.4/24", "a-b", "a2-b2"},
		{"a port that is alone", "a=10.0.0.1/24", "b=10.0.0.3/24 b2=10.0.0.4/24", "a-b", "a-b2"},
		{"neighbours are dead: what a router reaches", "a=10.0.0.1/24 a2=10.7.0.1/24", "b=10.0.0.2/24 b2=10.8.0.1/24", "a-b", "a-b2 a2-b"},
		{"everything", "a=10.0.0.1/24", "b=10.0.0.2/24", "a-b", ""},
	} {
		all := pairs(hosts(t, c.mine), offers(hosts(t, c.theirs)), nil, nil)
		for _, p := range all {
			if p.mine.Device+"-"+p.theirs.Device == c.dead {
				p.state = failed
			}
		}
		got := strings.Fields(railWords(match(all, hopeful)))
		slices.Sort(got)
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %q, want %q", c.name, s, c.want)
		}
	}
}

// TestWhyNot: each pair that can't work says so, with the mend.
func TestWhyNot(t *testing.T) {
	pkey := uint16(0x8001)
	for _, c := range []struct {
		mine, theirs string
		want         *uint16
		words        []string
	}{
		{"a=10.0.0.1/24", "b=fd00::2/64", nil, []string{"address families differ", "the receiver's port has IPv4, the sender's IPv6", "ip addr add"}},
		{"a=fe80::1/64", "b=fd00::2/64", nil, []string{"link-local", "ip addr add"}},
		{"i=fe80::1", "b=10.0.0.2/24", nil, []string{"Ethernet and the other InfiniBand"}},
		{"a=10.0.0.1/24,v1", "b=10.0.0.2/24", nil, []string{"RoCE v1 and the other RoCE v2", "--gid-type"}},
		{"i=fe80::1,pkey:7fff", "j=fe80::2,pkey:7fff", nil, []string{"limited members", "partitions.conf"}},
		{"i=fe80::1,pkey:ffff", "j=fe80::2,pkey:8001", nil, []string{"no partition together", "0xffff", "0x8001"}},
		{"i=fe80::1,pkey:ffff", "j=fe80::2,pkey:ffff", &pkey, []string{"not both in the partition 0x8001", "--pkey"}},
	} {
		all := pairs(hosts(t, c.mine), offers(hosts(t, c.theirs)), nil, c.want)
		if rails := match(all, hopeful); len(rails) > 0 {
			t.Errorf("%s to %s: a rail", c.mine, c.theirs)
		}
		for _, w := range c.words {
			if err := noRail(all, 0); !strings.Contains(err.Error(), w) {
				t.Errorf("%s to %s: %v does not say %q", c.mine, c.theirs, err, w)
			}
		}
	}
}

func TestPKeysAgreed(t *testing.T) {
	one := uint16(1)
	for _, c := range []struct {
		mine, theirs   []uint16
		want           *uint16
		gotMine, other uint16
	}{
		{nil, nil, nil, 0, 0},
		{[]uint16{0x7fff}, []uint16{0xffff}, nil, 0x7fff, 0xffff},
		{[]uint16{0x7fff, 0x8001}, []uint16{0x7fff, 0x0001}, nil, 0x8001, 0x0001},
		{[]uint16{0xffff, 0x8001}, []uint16{0xffff, 0x8001}, &one, 0x8001, 0x8001},
	} {
		m, o, why := agreePKeys(c.mine, c.theirs, c.want)
		if m != c.gotMine || o != c.other || why != "" {
			t.Errorf("%#x and %#x: %#x, %#x, %q", c.mine, c.theirs, m, o, why)
		}
	}
}

// TestChosenRails: --rail leaves those pairs alone, by device or by port.
func TestChosenRails(t *testing.T) {
	mine, theirs := hosts(t, "a=10.0.0.1/24 a2=10.0.0.2/24"), offers(hosts(t, "b=10.0.0.3/24 b2=10.0.0.4/24"))
	for _, c := range []struct {
		rails, other []wire.Rail
		want         string
	}{
		{[]wire.Rail{{Here: "a", There: "b2"}}, nil, "a-b2"},
		{nil, []wire.Rail{{Here: "a", There: "b2"}}, "a-b2"},
		{[]wire.Rail{{Here: "a/1", There: "b2/1"}, {Here: "a2", There: "b"}}, nil, "a-b2 a2-b"},
		{[]wire.Rail{{Here: "a/1", There: "b2/1"}, {Here: "a2", There: "b"}}, []wire.Rail{{Here: "a2", There: "b"}}, "a2-b"},
		{[]wire.Rail{{Here: "a", There: "b"}}, []wire.Rail{{Here: "a2", There: "b2"}}, ""},
		{[]wire.Rail{{Here: "a/2", There: "b"}}, nil, ""},
	} {
		if got := railWords(match(pairs(mine, theirs, [][]wire.Rail{c.rails, c.other}, nil), hopeful)); got != c.want {
			t.Errorf("%v: %q, want %q", c.rails, got, c.want)
		}
	}
}
