package ibverbs

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
)

func gid(s string) GID { return GID(netip.MustParseAddr(s).As16()) }

// TestAddressVector: what the link layer asks for, on ports that rxe can't be.
func TestAddressVector(t *testing.T) {
	for name, c := range map[string]struct {
		port          PortAttr
		local, remote Endpoint
		path          Path
		global        bool
		dlid          uint16
	}{
		"RoCE":                      {PortAttr{LinkLayer: LinkEthernet}, Endpoint{GID: gid("10.0.0.1")}, Endpoint{GID: gid("10.0.0.2"), LID: 9}, Path{}, true, 0},
		"InfiniBand, one subnet":    {PortAttr{LinkLayer: LinkInfiniBand}, Endpoint{GID: gid("fe80::1"), LID: 1}, Endpoint{GID: gid("fe80::2"), LID: 2}, Path{}, false, 2},
		"InfiniBand, asked for":     {PortAttr{LinkLayer: LinkInfiniBand}, Endpoint{GID: gid("fe80::1"), LID: 1}, Endpoint{GID: gid("fe80::2"), LID: 2}, Path{GRH: true}, true, 2},
		"InfiniBand, other subnet":  {PortAttr{LinkLayer: LinkInfiniBand}, Endpoint{GID: gid("fe80::1"), LID: 1}, Endpoint{GID: gid("fec0::2"), LID: 2}, Path{}, true, 2},
		"InfiniBand, virtual ports": {PortAttr{LinkLayer: LinkInfiniBand, NeedsGRH: true}, Endpoint{GID: gid("fe80::1"), LID: 1}, Endpoint{GID: gid("fe80::2"), LID: 1}, Path{}, true, 1},
		"InfiniBand, peer's ports":  {PortAttr{LinkLayer: LinkInfiniBand}, Endpoint{GID: gid("fe80::1"), LID: 1}, Endpoint{GID: gid("fe80::2"), LID: 2, NeedsGRH: true}, Path{}, true, 2},
		"InfiniBand, by LID alone":  {PortAttr{LinkLayer: LinkInfiniBand}, Endpoint{GID: gid("fe80::1"), LID: 1}, Endpoint{LID: 2}, Path{GRH: true}, false, 2},
		"link layer of old drivers": {PortAttr{LinkLayer: LinkUnspecified}, Endpoint{GID: gid("fe80::1"), LID: 1}, Endpoint{GID: gid("fe80::2"), LID: 2}, Path{}, false, 2},
	} {
		v := addressVector(1, 3, &c.port, &c.local, &c.remote, &c.path)
		if v.global != c.global || v.dlid != c.dlid || v.gidIndex != 3 || v.global && v.dgid != c.remote.GID {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// TestParamErrors: each parameter that can't be right is named, with its value.
func TestParamErrors(t *testing.T) {
	dev := DeviceAttr{MaxQPInitRd: 16, MaxQPRead: 16}
	ethernet := PortAttr{LinkLayer: LinkEthernet}
	local := Endpoint{GID: gid("10.0.0.1"), MTU: 3}
	remote := Endpoint{GID: gid("10.0.0.2"), MTU: 5, QPN: 17}
	for want, c := range map[string]struct {
		params ConnectParams
		remote func(*Endpoint)
		port   *PortAttr
	}{
		"path MTU 4096: the local port carries 1024, the peer's 4096": {params: ConnectParams{MTU: 5}},
		"path MTU code 6":                                                      {params: ConnectParams{MTU: 6}},
		"path MTU code 0":                                                      {remote: func(e *Endpoint) { e.MTU = 0 }},
		"service level 16: must be 0 to 15":                                    {params: ConnectParams{Path: Path{ServiceLevel: 16}}},
		"flow label 0x100000: has 20 bits":                                     {params: ConnectParams{Path: Path{FlowLabel: 1 << 20}}},
		"acknowledgement time-out 32: must be 1 to 31":                         {params: ConnectParams{Timeout: 32}},
		"acknowledgement time-out 0: must be 1 to 31":                          {params: ConnectParams{Timeout: None}},
		"retries 8: must be 0 to 7":                                            {params: ConnectParams{Retries: 8}},
		"RNR retries 7: must be 0 to 6":                                        {params: ConnectParams{RNRRetries: 7}},
		"minimum RNR timer 40: must be 1 to 31":                                {params: ConnectParams{MinRNRTimer: 40}},
		"outstanding reads 17: must be 0 to 16":                                {params: ConnectParams{MaxReads: 17}},
		"outstanding reads served 99: must be 0 to 16":                         {params: ConnectParams{MaxReadsServed: 99}},
		"remote GID fd00::2: is not of the family of the local 10.0.0.1":       {remote: func(e *Endpoint) { e.GID = gid("fd00::2") }},
		"remote GID 169.254.0.1: and the local 10.0.0.1: one of them is link-": {remote: func(e *Endpoint) { e.GID = gid("169.254.0.1") }},
		"remote GID ::: RoCE needs one":                                        {remote: func(e *Endpoint) { e.GID = GID{} }},
		"remote LID 0: an InfiniBand port has one":                             {port: &PortAttr{LinkLayer: LinkInfiniBand}},
		"remote queue pair 0x1000000":                                          {remote: func(e *Endpoint) { e.QPN = 1 << 24 }},
	} {
		to, port := remote, &ethernet
		if c.remote != nil {
			c.remote(&to)
		}
		if c.port != nil {
			port = c.port
		}
		c.params.setDefaults(&local, &to)
		err := c.params.check(QPTypeRC, &local, &to, port, &dev)
		var param *ParamError
		if !errors.As(err, &param) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	var p ConnectParams
	p.setDefaults(&local, &remote)
	if err := p.check(QPTypeRC, &local, &remote, &ethernet, &dev); err != nil || p.MTU != 3 || p.Timeout != 14 || p.Retries != 6 || p.HopLimit != 64 {
		t.Errorf("the defaults %+v: %v", p, err)
	}
	p = ConnectParams{Retries: None, RNRRetries: None, MaxReads: None}
	p.setDefaults(&local, &remote)
	if err := p.check(QPTypeRC, &local, &remote, &ethernet, &dev); err != nil || p.Retries != 0 || p.RNRRetries != 0 || p.MaxReads != 0 {
		t.Errorf("none of each %+v: %v", p, err)
	}
}

func TestParseGID(t *testing.T) {
	for in, want := range map[string]string{
		"0000:0000:0000:0000:0000:ffff:0a00:0001": "10.0.0.1",
		"fe80:0000:0000:0000:5054:00ff:fe12:3456": "fe80::5054:ff:fe12:3456",
		"fd00::1":         "fd00::1",
		"10.0.0.1":        "10.0.0.1",
		"::ffff:10.0.0.1": "10.0.0.1",
	} {
		g, err := ParseGID(in)
		if err != nil || g.Addr().String() != want {
			t.Errorf("%s: %v, %v", in, g.Addr(), err)
		}
	}
	for _, in := range []string{"", "fe80::1%eth0", "10.0.0", "fe80:::1", "0000:0000:0000:0000:0000:ffff:0a00:00010"} {
		if g, err := ParseGID(in); err == nil {
			t.Errorf("%q is %v", in, g)
		}
	}
}

func FuzzParseGID(f *testing.F) {
	f.Add("fe80::1")
	f.Add("0000:0000:0000:0000:0000:ffff:0a00:0001")
	f.Fuzz(func(t *testing.T, s string) {
		g, err := ParseGID(s)
		if err != nil {
			return
		}
		if again, err := ParseGID(g.String()); err != nil || again != g {
			t.Errorf("%q is %v, which is %v (%v)", s, g, again, err)
		}
	})
}

// TestGIDsFromSysfs: as the files of a two-port card and of a cloud device say.
func TestGIDsFromSysfs(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s + "\n")} }
	root := fstest.MapFS{
		"mlx5_0/ports/1/gids/0":            file("fe80:0000:0000:0000:5054:00ff:fe12:3456"),
		"mlx5_0/ports/1/gid_attrs/types/0": file("IB/RoCE v1"),
		"mlx5_0/ports/1/gid_attrs/ndevs/0": file("lo"),
		"mlx5_0/ports/1/gids/1":            file("0000:0000:0000:0000:0000:ffff:0a00:0001"),
		"mlx5_0/ports/1/gid_attrs/types/1": file("RoCE v2"),
		"mlx5_0/ports/1/gid_attrs/ndevs/1": file("lo"),
		"mlx5_0/ports/1/gids/2":            file("0000:0000:0000:0000:0000:0000:0000:0000"),
		"mlx5_0/ports/2/gids/0":            file("fe80:0000:0000:0000:0000:0000:0000:0009"),
		"mlx5_0/ports/2/gid_attrs/types/0": file("IB/RoCE v1"),
		"mlx5_0/ports/notes":               file("not a port"),
	}
	list, err := sysfsGIDs(root, "mlx5_0")
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	want := []GIDEntry{
		{GID: gid("fe80::5054:ff:fe12:3456"), Index: 0, Port: 1, Type: GIDTypeRoCEv1, Netdev: "lo"},
		{GID: gid("10.0.0.1"), Index: 1, Port: 1, Type: GIDTypeRoCEv2, Netdev: "lo"},
		{GID: gid("fe80::9"), Index: 0, Port: 2, Type: GIDTypeIB},
	}
	for i := range want {
		want[i].IfIndex = list[i].IfIndex // this host's
		if list[i] != want[i] {
			t.Errorf("%+v, want %+v", list[i], want[i])
		}
	}
	if _, err := sysfsGIDs(root, "mlx5_1"); err == nil {
		t.Error("a device that is not there has a table")
	}
}
