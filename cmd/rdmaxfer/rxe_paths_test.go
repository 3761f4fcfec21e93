//go:build rxe

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// pathsEvent is the event of that name, as far as these tests look at it.
type pathsEvent struct {
	Rows []struct {
		Here, There struct {
			Device, Address string
		}
		State, Reason string
		MTU           int     `json:"mtu_bytes"`
		Seconds       float64 `json:"seconds"`
	} `json:"rows"`
	Reason  string                            `json:"reason"`
	Seconds float64                           `json:"seconds"`
	Refused []struct{ Device, Reason string } `json:"refused_here"`
}

// awaitPaths waits until the program says what it has found.
func (p *proc) awaitPaths() (e pathsEvent) {
	p.t.Helper()
	b, err := json.Marshal(p.await("paths"))
	if err != nil {
		p.t.Fatal(err)
	}
	if err := json.Unmarshal(b, &e); err != nil {
		p.t.Fatal(err)
	}
	return e
}

// chosen are the rails, as "rxe_b 10.0.0.2 to rxe_a 10.0.0.1, 4096", in order.
func (e *pathsEvent) chosen() string {
	var list []string
	for _, r := range e.Rows {
		if r.State == "chosen" {
			list = append(list, fmt.Sprintf("%s %s to %s %s, %d", r.Here.Device, r.Here.Address, r.There.Device, r.There.Address, r.MTU))
		}
	}
	slices.Sort(list)
	return strings.Join(list, "; ")
}

// says reports whether a row in that state has the words in its reason.
func (e *pathsEvent) says(state string, words ...string) bool {
	for _, r := range e.Rows {
		has := r.State == state
		for _, w := range words {
			has = has && strings.Contains(r.Reason, w)
		}
		if has {
			return true
		}
	}
	return false
}

const (
	firstRail  = "rxe_b 10.0.0.2 to rxe_a 10.0.0.1, 4096"
	secondRail = "rxe_b2 10.0.1.2 to rxe_a2 10.0.1.1, 4096"
)

// TestPaths breaks the network between two hosts in many ways: the best path is chosen
// all the same, the bytes arrive over it, and the words name the true cause.
func TestPaths(t *testing.T) {
	twoRails(t)
	faults := "../../testbed/faults"
	restore := func(broke []string) {
		switch broke[0] {
		case "cut-rdma", "frames":
			run(t, faults, "heal")
		default:
			run(t, softroce, "down") // and what was done to it
			run(t, softroce, "pair", "--rails", "2")
		}
	}
	for _, c := range []struct {
		name   string
		breaks [][]string // each as host and command, or as a verb of faults
		addr   string     // of the receiver; 10.0.0.1 if empty
		args   []string
		chosen string
		words  []string // of a row in a state, the first
	}{
		{name: "all is well", chosen: firstRail + "; " + secondRail},
		{name: "the first rail is cut", breaks: [][]string{{"cut-rdma", "--rail", "1"}},
			chosen: secondRail, words: []string{"failed", "no acknowledgement", "UDP port 4791", "10.0.0.1"}},
		{name: "the second rail is cut on the way there", breaks: [][]string{{"cut-rdma", "--rail", "2", "--from", "a"}},
			chosen: firstRail, words: []string{"failed", "no acknowledgement", "UDP port 4791", "10.0.1.2"}},
		{name: "the second rail is cut on the way back", breaks: [][]string{{"cut-rdma", "--rail", "2", "--from", "b"}},
			chosen: firstRail, words: []string{"failed", "its acknowledgements do not reach the receiver", "10.0.1.1"}},
		{name: "one end of the second rail has a smaller MTU", breaks: [][]string{{"b", "ip", "link", "set", "v_b2", "mtu", "1500"}},
			chosen: firstRail + "; rxe_b2 10.0.1.2 to rxe_a2 10.0.1.1, 1024", words: []string{"chosen", "the sender's port has an MTU of 1024 and the other one of 4096"}},
		{name: "a switch without jumbo frames", breaks: [][]string{{"frames", "2500", "--rail", "2"}},
			chosen: firstRail + "; rxe_b2 10.0.1.2 to rxe_a2 10.0.1.1, 2048", words: []string{"chosen", "packets of 2048 bytes pass and larger ones do not"}},
		{name: "IPv6 alone on one end of the second rail", breaks: [][]string{{"b", "ip", "-4", "addr", "flush", "dev", "v_b2"}},
			chosen: firstRail + "; rxe_b2 fd00:ab::2 to rxe_a2 fd00:ab::1, 4096"},
		{name: "other families on one end than on the other", breaks: [][]string{
			{"b", "ip", "-4", "addr", "flush", "dev", "v_b2"}, {"a", "ip", "-6", "addr", "flush", "dev", "v_a2"}},
			chosen: firstRail, words: []string{"untried", "address families differ", "ip addr add"}},
		{name: "the second device has no address", breaks: [][]string{{"b", "ip", "addr", "flush", "dev", "v_b2"}},
			chosen: firstRail, words: []string{"refused", "rxe_b2", "give its network device an address", "ip addr add ADDRESS dev v_b2"}},
		{name: "link-local addresses alone", breaks: [][]string{
			{"b", "ip", "addr", "flush", "dev", "v_b2", "scope", "global"}, {"b", "ip", "addr", "flush", "dev", "v_b", "scope", "global"}},
			addr: "link-local", chosen: "link-local"},
		{name: "the second link is down", breaks: [][]string{{"link-down", "b", "--rail", "2"}},
			chosen: firstRail, words: []string{"refused", "rxe_b2", "port 1 is DOWN", "ip link set dev v_b2 up"}},
		{name: "the control connection is on a third network", breaks: [][]string{
			{"", "ip", "link", "add", "m_a", "netns", "a", "type", "veth", "peer", "name", "m_b", "netns", "b"},
			{"a", "ip", "addr", "add", "192.168.7.1/24", "dev", "m_a"}, {"b", "ip", "addr", "add", "192.168.7.2/24", "dev", "m_b"},
			{"a", "ip", "link", "set", "m_a", "up"}, {"b", "ip", "link", "set", "m_b", "up"}},
			addr: "192.168.7.1", chosen: firstRail + "; " + secondRail},
		{name: "nothing passes", breaks: [][]string{{"cut-rdma"}}, words: []string{"failed", "UDP port 4791"}},
		{name: "a device chosen by hand", args: []string{"--device", "rxe_b2"}, chosen: secondRail,
			words: []string{"refused", "rxe_b", "not among the devices that were chosen"}},
		{name: "a rail chosen by hand", args: []string{"--rail", "rxe_b2=rxe_a2"}, chosen: secondRail},
		{name: "a rail of nothing", args: []string{"--rail", "rxe_b2=rxe_c"}, words: []string{"untried", "no rail that was chosen"}},
		{name: "a GID chosen by hand", args: []string{"--gid-index", "2"},
			chosen: "rxe_b fd00:aa::2 to rxe_a fd00:aa::1, 4096; rxe_b2 fd00:ab::2 to rxe_a2 fd00:ab::1, 4096"},
		{name: "a kind of GID that there is not", args: []string{"--gid-type", "rocev1"}, words: []string{"refused", "rxe_b", "no GID of RoCE v1"}},
		{name: "smaller packets by hand", args: []string{"--mtu", "1024"},
			chosen: strings.ReplaceAll(firstRail+"; "+secondRail, "4096", "1024")},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, b := range c.breaks {
				switch b[0] {
				case "a", "b":
					on(t, b[0], b[1:]...)
				case "":
					run(t, b[1:]...)
				default:
					run(t, append([]string{faults}, b...)...)
				}
			}
			if c.breaks != nil {
				defer restore(c.breaks[0])
			}
			tt := newTransfer(t)
			r := twoHosts[0].start(t, "recv", "--json", "--once", "--listen", "[::]:0", "--key-file", tt.key, "--discard")
			_, port, _ := strings.Cut(r.await("listening")["address"].(string), "]:")
			addr := cmp.Or(c.addr, "10.0.0.1")
			want := c.chosen
			if addr == "link-local" {
				addr = "[" + linkLocal(t, "a", "v_a") + "%v_b]"
				want = fmt.Sprintf("rxe_b %s to rxe_a %s, 4096; rxe_b2 %s to rxe_a2 %s, 4096",
					linkLocal(t, "b", "v_b"), linkLocal(t, "a", "v_a"), linkLocal(t, "b", "v_b2"), linkLocal(t, "a", "v_a2"))
			}
			s := twoHosts[1].start(t, append(append([]string{"send", "--json", "--key-file", tt.key, "--verify", "none", "--limit", "2M"}, c.args...),
				tt.sparse("src", 64<<30), addr+":"+port)...)
			e := s.awaitRails(want)
			if len(c.words) > 0 && c.words[0] == "refused" {
				if !slices.ContainsFunc(e.Refused, func(r struct{ Device, Reason string }) bool {
					return r.Device == c.words[1] && strings.Contains(r.Reason, c.words[2])
				}) {
					t.Errorf("%q is not among what was refused: %+v", c.words[1:], e.Refused)
				}
			} else if len(c.words) > 0 && !e.says(c.words[0], c.words[1:]...) {
				t.Errorf("no row that is %q: %+v", c.words, e)
			}
			if want == "" {
				s.planOf("tcp", 1)
			} else {
				s.planOf("rdma", aRail*float64(1+strings.Count(want, ";")))
			}
			s.signal(syscall.SIGTERM)
			s.want(143)
			r.want(transfer.CodeConnect)
		})
	}
}

// awaitRails waits until the program has found these rails, and logs how long that took.
// On a host that is busy with other machines an emulated one may stall for longer than a
// probe waits: then they are found when they are looked for again.
func (p *proc) awaitRails(want string) pathsEvent {
	p.t.Helper()
	for looks := 1; ; looks++ {
		e := p.awaitPaths()
		if e.chosen() == want {
			p.t.Logf("found by look %d in %.3f s", looks, e.Seconds)
			return e
		}
		p.t.Logf("look %d, in %.3f s: %s\nwant: %s\n%+v", looks, e.Seconds, e.chosen(), want, e)
	}
}

// linkLocal is the link-local address of a network device of a host.
func linkLocal(t *testing.T, host, dev string) string {
	t.Helper()
	f := strings.Fields(on(t, host, "ip", "-6", "-o", "addr", "show", "dev", dev, "scope", "link"))
	if len(f) < 4 {
		t.Fatalf("%s has no link-local address: %v", dev, f)
	}
	addr, _, _ := strings.Cut(f[3], "/")
	return addr
}

// TestFourByFour: sixteen pairs of ports, of which only the four on one wire each meet,
// and one of those is cut.
func TestFourByFour(t *testing.T) {
	run(t, softroce, "pair", "--rails", "4")
	t.Cleanup(func() { run(t, softroce, "pair") })
	rail := func(n string) string {
		digit := cmp.Or(strings.Trim(n, "1"), "")
		return fmt.Sprintf("rxe_b%s 10.0.%d.2 to rxe_a%s 10.0.%d.1, 4096", digit, n[0]-'1', digit, n[0]-'1')
	}
	for _, cut := range []bool{false, true} {
		rails := []string{rail("1"), rail("2"), rail("3"), rail("4")}
		if cut {
			run(t, "../../testbed/faults", "cut-rdma", "--rail", "3")
			rails = slices.Delete(rails, 2, 3)
		}
		tt := newTransfer(t)
		r := tt.recv("--discard")
		s := tt.send("--transport", "rdma", "--verify", "none", "--limit", "4M", tt.sparse("src", 64<<30))
		t.Logf("cut: %v", cut)
		s.awaitRails(strings.Join(rails, "; "))
		s.planOf("rdma", aRail*float64(len(rails)))
		s.signal(syscall.SIGTERM)
		s.want(143)
		r.want(transfer.CodeConnect)
	}
}

// TestDoctorAndItsTable: what a person reads, and the exit status.
func TestDoctorAndItsTable(t *testing.T) {
	tt := newTransfer(t)
	tt.receiver = twoHosts[0].start(t, "recv", "--json", "--once", "--listen", "10.0.0.1:0", "--key-file", tt.key, "--discard")
	tt.addr = tt.receiver.await("listening")["address"].(string)
	doctor := func(code transfer.Code, words ...string) {
		t.Helper()
		p := twoHosts[1].start(t, "doctor", "--key-file", tt.key, tt.addr)
		p.want(code)
		for _, w := range words {
			if !strings.Contains(p.plain.String(), w) {
				t.Errorf("doctor does not say %q:\n%s", w, p.plain.String())
			}
		}
	}
	doctor(transfer.CodeOK, "libibverbs is there", "rxe_b/1 gid 1 10.0.0.2", "rxe_a/1 gid 1 10.0.0.1", "4096", "yes", "not needed")
	fault(t, "cut-rdma", "heal")
	doctor(transfer.CodeNoRDMA, "no acknowledgement", "UDP port 4791", "no lane over RDMA")
	// It was no transfer: the receiver, which serves one, is still there.
	tt.send("--transport", "tcp", tt.file("src", 1)).want(transfer.CodeOK)
	tt.receiver.want(transfer.CodeOK)
}

// TestDeviceAppears in the middle: what began on TCP because the sender had no device is
// lifted to RDMA, and a second rail is taken when it comes.
func TestDeviceAppears(t *testing.T) {
	twoRails(t)
	faults := "../../testbed/faults"
	run(t, faults, "remove-device", "b")
	tt := newTransfer(t)
	src := tt.sparse("src", 64<<30)
	r := tt.recv("--discard", "--no-sync")
	s := tt.send("--limit", "20M", "--verify", "none", src)
	if e := s.planOf("tcp", 1); !strings.Contains(e["reason"].(string), "no usable RDMA address") {
		t.Errorf("plan: %v", e)
	}
	run(t, faults, "restore-device", "b", "--rail", "1")
	if e := s.planOf("rdma", 1); !strings.Contains(e["reason"].(string), "back on rdma after") {
		t.Errorf("plan: %v", e)
	}
	run(t, faults, "restore-device", "b", "--rail", "2")
	s.planOf("rdma", bothRails)
	s.signal(15)
	s.want(143)
	r.want(transfer.CodeConnect)
}

// TestTrafficClass: packets of both hosts are marked as the sender's user says, as the
// kernel's classifier sees them.
func TestTrafficClass(t *testing.T) {
	marked := func(host string) (n int) {
		dev := "v_" + host
		for line := range strings.Lines(on(t, host, "tc", "-s", "filter", "show", "dev", dev, "ingress")) {
			var bytes int
			if _, err := fmt.Sscanf(strings.TrimSpace(line), "Sent %d bytes %d pkt", &bytes, &n); err == nil && n > 0 {
				return n
			}
		}
		return 0
	}
	for _, host := range []string{"a", "b"} {
		on(t, host, "tc", "qdisc", "replace", "dev", "v_"+host, "clsact")
		on(t, host, "tc", "filter", "replace", "dev", "v_"+host, "ingress", "protocol", "ip", "pref", "1", "u32",
			"match", "ip", "protocol", "17", "0xff", "match", "ip", "dsfield", "0x68", "0xff", "action", "pass")
	}
	t.Cleanup(func() { run(t, "../../testbed/faults", "heal") })
	for _, c := range []struct {
		args []string
		want bool
	}{{nil, false}, {[]string{"--traffic-class", "af31"}, true}} {
		before := [2]int{marked("a"), marked("b")}
		tt := newTransfer(t)
		r := tt.recv("--discard")
		tt.send(append(append([]string{"--transport", "rdma", "--verify", "none"}, c.args...), tt.file("src", 8*mib))...).want(transfer.CodeOK)
		r.want(transfer.CodeOK)
		for i, host := range []string{"a", "b"} {
			if n := marked(host) - before[i]; (n >= 16) != c.want {
				t.Errorf("%v: %d packets that reached host %s are marked", c.args, n, host)
			}
		}
	}
}

// TestUnequalRails share by speed.
func TestUnequalRails(t *testing.T) {
	twoRails(t)
	run(t, "../../testbed/faults", "rate", "40mbit", "--rail", "1")
	run(t, "../../testbed/faults", "rate", "160mbit", "--rail", "2")
	t.Cleanup(func() { run(t, "../../testbed/faults", "netem-off") })
	tt := newTransfer(t)
	r := tt.recv("--discard")
	sum := tt.send("--transport", "rdma", "--verify", "none", tt.file("src", 96*mib)).want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	bytes := make(map[string]float64)
	for _, l := range sum["each_lane"].([]any) {
		l := l.(map[string]any)
		device, _, _ := strings.Cut(l["detail"].(string), " ")
		bytes[device] += l["bytes"].(float64)
	}
	if slow, fast := bytes["rxe_b"], bytes["rxe_b2"]; slow == 0 || fast < 2*slow {
		t.Errorf("the rails carried %v", bytes)
	}
}
