//go:build rxe

package main

import (
	"runtime"
	"strings"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// twoRails gives the pair a second link with devices of its own.
func twoRails(t *testing.T) {
	t.Helper()
	run(t, softroce, "pair", "--rails", "2")
	t.Cleanup(func() { run(t, softroce, "pair") })
}

// slowRails makes transfers last: each rail carries no more than that.
func slowRails(t *testing.T, rate string) {
	t.Helper()
	run(t, "../../testbed/faults", "rate", rate)
	t.Cleanup(func() { run(t, "../../testbed/faults", "netem-off") })
}

// aRail is how many lanes there are on each rail, which is software, when nobody says how many;
// bothRails how many on two.
var (
	aRail     = float64(min(2, runtime.NumCPU()))
	bothRails = 2 * aRail
)

// planOf waits for a plan of that transport and number of lanes; 0 is any.
func (p *proc) planOf(transport string, lanes float64) map[string]any {
	p.t.Helper()
	for {
		if e := p.await("plan"); e["transport"] == transport && (lanes == 0 || e["lanes"] == lanes) {
			return e
		}
	}
}

// wantReceipt waits for the digest of the one file that was sent, and for the end.
func (p *proc) wantReceipt(t *testing.T, src string) (summary map[string]any) {
	t.Helper()
	if e, want := p.await("file"), b3sum(t, src); e["blake3"] != want {
		t.Errorf("%s: %v, want %s", p.name, e, want)
	}
	return p.want(transfer.CodeOK)
}

func TestTwoRailsAtOnce(t *testing.T) {
	twoRails(t)
	const size = 64 * mib
	devices := []string{"rxe_a", "rxe_a2"}
	tt := newTransfer(t)
	src := tt.file("src", size)
	for _, c := range []struct {
		args   []string
		lanes  float64
		second bool // rail
	}{
		{nil, bothRails, true},
		{[]string{"--lanes", "1"}, 1, false},
		{[]string{"--lanes", "4"}, 4, true},
	} {
		var before []int
		for _, d := range devices {
			before = append(before, packets(t, d, "rcvd_pkts"))
		}
		r := tt.recv("--discard")
		s := tt.send(append(append([]string{"--transport", "rdma"}, c.args...), src)...)
		sum := s.wantReceipt(t, src)
		r.want(transfer.CodeOK)
		if sum["lanes"] != c.lanes || len(sum["each_lane"].([]any)) != int(c.lanes) {
			t.Errorf("%v: %v", c.args, sum)
		}
		for i, d := range devices {
			n := packets(t, d, "rcvd_pkts") - before[i]
			if used := n > size/4096/8; used != (i == 0 || c.second) {
				t.Errorf("%v: %d packets crossed %s", c.args, n, d)
			}
		}
	}
}

// TestOneRailCut in the middle: the other finishes, and it stays RDMA.
func TestOneRailCut(t *testing.T) {
	twoRails(t)
	slowRails(t, "160mbit")
	for _, rail := range []string{"1", "2"} {
		tries := 3
		for cutOneRail(t, rail) != "rdma" {
			if tries--; tries == 0 {
				t.Fatalf("rail %s cut: the other one was lost each time", rail)
			}
		}
	}
}

// cutOneRail in the middle of a transfer and say what the rest of it went over. An
// emulated machine whose one CPU stalls for the second in which rxe spends its retries
// loses the rail that was not cut too; it hardly does so three times running.
func cutOneRail(t *testing.T, rail string) (transport any) {
	t.Helper()
	tt := newTransfer(t)
	src := tt.file("src", 128*mib)
	r := tt.recv()
	s := tt.send(src)
	s.planOf("rdma", bothRails)
	run(t, "../../testbed/faults", "cut-rdma", "--rail", rail)
	sum := s.wantReceipt(t, src)
	r.want(transfer.CodeOK)
	run(t, "../../testbed/faults", "heal")
	return sum["transport"]
}

// TestBothRailsCut in the middle: auto goes on over TCP, and is back on both rails
// when they are whole again. What is required fails.
func TestBothRailsCut(t *testing.T) {
	twoRails(t)
	slowRails(t, "80mbit")
	tt := newTransfer(t)
	src := tt.sparse("src", 512*mib)
	r := tt.recv("--discard")
	s := tt.send(src)
	s.planOf("rdma", bothRails)
	fault(t, "cut-rdma", "heal")
	if e := s.planOf("tcp", 1); !strings.Contains(e["reason"].(string), "rdma lane lost") {
		t.Errorf("plan: %v", e)
	}
	run(t, "../../testbed/faults", "heal")
	if e := s.planOf("rdma", bothRails); !strings.Contains(e["reason"].(string), "back on rdma after: rdma lane lost") {
		t.Errorf("plan: %v", e)
	}
	run(t, "../../testbed/faults", "netem-off")
	sum := s.wantReceipt(t, src)
	r.want(transfer.CodeOK)
	if sum["transport"] != "rdma" || sum["lanes"] != bothRails {
		t.Errorf("summary: %v", sum)
	}

	slowRails(t, "80mbit")
	r = tt.recv("--discard")
	s = tt.send("--transport", "rdma", src)
	s.planOf("rdma", bothRails)
	fault(t, "cut-rdma", "heal")
	s.want(transfer.CodeNoRDMA, "lost")
	r.want(transfer.CodeNoRDMA, "lost")
}
