package rdma

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// recorded is a machine's description, and what must be made of it. Those under testdata
// are put together from what the owners of real machines showed in public (source).
type recorded struct {
	Source string `json:"source"`
	About  string `json:"about"`
	Host   Host   `json:"host"`
	// Candidates are in order, as "mlx5_0/1 gid=3 10.0.0.1", on InfiniBand "mlx5_0/1 lid=7".
	Candidates []string `json:"candidates"`
	// Refused are words that the reason of a port has: "mlx5_1/1" and, of a whole device,
	// "mlx5_1/0".
	Refused map[string]string `json:"refused"`
	// With has another machine's file, and the rails to it as "mlx5_0/1 to mlx5_4/1".
	With map[string][]string `json:"with"`
}

func machine(t *testing.T, file string) *recorded {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m := new(recorded)
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return m
}

func candidateWords(c *wire.Candidate) string {
	if !c.Ethernet {
		return fmt.Sprintf("%s/%d lid=%d", c.Device, c.Port, c.LID)
	}
	return fmt.Sprintf("%s/%d gid=%d %v", c.Device, c.Port, c.GIDIndex, addrOf(c))
}

// TestTwinsHaveNumbersOfTheirOwn: two network devices of a port have one address, and packets
// go out by one of them.
func TestTwinsHaveNumbersOfTheirOwn(t *testing.T) {
	m := machine(t, "testdata/machines/bond-under-vxlan.json")
	list, _ := m.Host.Candidates(new(Selection))
	var o offering
	names := make(map[string]bool)
	for range 2 { // what was offered before keeps its number
		for i := range list {
			if o.number(&list[i].Candidate); list[i].Number != uint16(i) {
				t.Errorf("%s is number %d, want %d", candidateWords(&list[i].Candidate), list[i].Number, i)
			}
			names[(&pair{mine: &list[0], theirs: &list[i].Candidate}).name()] = true
		}
	}
	if c, err := o.candidate(0); err != nil || c.GIDIndex != 5 {
		t.Errorf("number 0 has the GID %d, %v", c.GIDIndex, err)
	}
	if len(names) != len(list) {
		t.Errorf("%d paths are called %v", len(list), names)
	}
}

// TestAddressesOfEveryNetwork are among those few of a port that are offered.
func TestAddressesOfEveryNetwork(t *testing.T) {
	h := &Host{Netdevs: []string{"eth"}}
	p := Port{Device: "mlx5_0", Transport: "InfiniBand or RoCE", Port: 1, State: "ACTIVE", Link: linkEthernet, MTU: 4096, Netdev: "eth"}
	add := func(netdev, prefix string) {
		a := netip.MustParsePrefix(prefix)
		h.Addresses = append(h.Addresses, Address{netdev, a})
		p.GIDs = append(p.GIDs, GID{len(p.GIDs), netip.AddrFrom16(a.Addr().As16()), "RoCE v2", netdev})
	}
	for n := range 9 {
		add("eth", fmt.Sprintf("10.0.0.%d/24", n+1))
	}
	add("eth", "fd00::1/64")
	for n := range 3 {
		add(fmt.Sprintf("eth.%d", n), fmt.Sprintf("10.0.1%d.1/24", n))
	}
	h.Ports = []Port{p}
	list, _ := h.Candidates(new(Selection))
	seen := make(map[string]bool)
	for i := range list {
		seen[list[i].Netdev+" "+family(addrOf(&list[i].Candidate))] = true
	}
	for _, want := range []string{"eth IPv4", "eth IPv6", "eth.0 IPv4", "eth.1 IPv4", "eth.2 IPv4"} {
		if !seen[want] || len(list) != gidsAPort {
			t.Errorf("%d addresses, and of %s none: %v", len(list), want, seen)
		}
	}
}

// TestRecordedMachines judges real machines: which addresses of them are any good, and
// which rails there are between two of them.
func TestRecordedMachines(t *testing.T) {
	files, err := filepath.Glob("testdata/machines/*.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d machines, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			m := machine(t, file)
			if m.Source == "" || m.About == "" {
				t.Error("whose is it?")
			}
			list, refused := m.Host.Candidates(new(Selection))
			var got []string
			for i := range list {
				got = append(got, candidateWords(&list[i].Candidate))
			}
			if !slices.Equal(got, m.Candidates) {
				t.Errorf("candidates\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(m.Candidates, "\n"))
			}
			reasons := make(map[string]string)
			for _, r := range refused {
				reasons[fmt.Sprintf("%s/%d", r.Device, r.Port)] = r.Reason
			}
			if a, b := slices.Sorted(maps.Keys(reasons)), slices.Sorted(maps.Keys(m.Refused)); !slices.Equal(a, b) {
				t.Errorf("refused %v, want %v", reasons, b)
			}
			for port, words := range m.Refused {
				if !strings.Contains(reasons[port], words) {
					t.Errorf("%s is refused because it %q; want %q", port, reasons[port], words)
				}
			}
			for other, want := range m.With {
				theirs, _ := machine(t, filepath.Join("testdata/machines", other)).Host.Candidates(new(Selection))
				var rails []string
				for _, r := range match(pairs(list, offers(theirs), nil, nil), hopeful) {
					rails = append(rails, fmt.Sprintf("%s/%d to %s/%d", r.mine.Device, r.mine.Port, r.theirs.Device, r.theirs.Port))
				}
				if !slices.Equal(rails, want) {
					t.Errorf("rails to %s: %q, want %q", other, rails, want)
				}
			}
		})
	}
}
