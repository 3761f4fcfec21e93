//go:build rxe

package main

import (
	"strings"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/compare"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// What these tests do to the link is known, and the report must show it to within 5 %.
// They are for a machine whose clock counts instructions (testbed/vm --deterministic): by
// time, an emulated machine that shares its processors with others shows nothing that
// small. There a millisecond of delay is one, and round trips without it are the same
// in every round.

// tolerance is how far from the truth a report may be.
const tolerance = 0.05

// truths measures so many methods: every op, one method of TCP, and the fifth is datagrams.
func (tt *transferTest) truths(methods int, args ...string) *compare.Report {
	tt.t.Helper()
	r := tt.recv("--discard")
	list := map[int]string{4: "rdma,copy", 5: "rdma,copy,udp"}[methods]
	tt.compare(append([]string{"--methods", list}, args...)...).want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	report := tt.report()
	if !report.Complete || len(report.Skipped) > 0 || len(report.Cells) != methods {
		tt.t.Fatalf("%+v", report)
	}
	return report
}

func within(t *testing.T, what string, got, want float64) {
	t.Helper()
	if got < want*(1-tolerance) || got > want*(1+tolerance) {
		t.Errorf("%s: %v, and the truth is %v", what, got, want)
	}
}

// TestKnownTruthDelay: a request and its answer are late once each. With read the answer
// says where the bytes are: a second round trip fetches them.
func TestKnownTruthDelay(t *testing.T) {
	tt := newTransfer(t)
	load := []string{"--sizes", "64", "--duration", "100ms"}
	before := tt.truths(5, load...)
	fault(t, "delay 1ms", "netem-off")
	after := tt.truths(5, load...)
	for i, c := range after.Cells {
		want := 2e-3
		if c.Method == "read" {
			want = 4e-3
		}
		within(t, c.Transport+" "+c.Method+" takes longer by", c.Trip.Median-before.Cells[i].Trip.Median, want)
	}
}

// TestKnownTruthRate: 160 Mbit/s are 20 MB/s, of which headers take some 2 %.
func TestKnownTruthRate(t *testing.T) {
	tt := newTransfer(t)
	load := []string{"--sizes", "64K", "--duration", "300ms"}
	before := tt.truths(5, load...)
	fault(t, "rate 160mbit", "netem-off")
	after := tt.truths(5, load...)
	for i, c := range after.Cells {
		within(t, c.Transport+" "+c.Method, c.Rate.Median, 20e6)
		if free := before.Cells[i].Rate.Median; free < 40e6 {
			t.Errorf("%s %s: %v bytes a second without a limit: not the limit was measured", c.Transport, c.Method, free)
		}
	}
}

// slowed limits what host b sends over one transport, RoCE v2 or the rest, to 40 Mbit/s.
func slowed(t *testing.T, rdma bool, f func()) {
	t.Helper()
	band := map[bool]string{true: "1:1", false: "1:2"}
	on(t, "b", "tc", "qdisc", "add", "dev", "v_b", "root", "handle", "1:", "prio", "bands", "2", "priomap",
		"1", "1", "1", "1", "1", "1", "1", "1", "1", "1", "1", "1", "1", "1", "1", "1")
	defer on(t, "b", "tc", "qdisc", "del", "dev", "v_b", "root")
	on(t, "b", "tc", "filter", "add", "dev", "v_b", "parent", "1:", "protocol", "ip", "u32", "match", "ip", "protocol", "17", "0xff", "match", "ip", "dport", "4791", "0xffff", "flowid", band[true])
	on(t, "b", "tc", "qdisc", "add", "dev", "v_b", "parent", band[rdma], "netem", "limit", "1000000", "rate", "40mbit")
	f()
}

// TestKnownTruthWinner: whichever transport is slowed, the sentence has the other as the
// winner; and a run is the same as another of the same.
func TestKnownTruthWinner(t *testing.T) {
	run(t, "modprobe", "-a", "sch_prio", "sch_netem", "cls_u32")
	tt := newTransfer(t)
	load := []string{"--sizes", "64K", "--duration", "100ms", "--rounds", "6"}
	slowed(t, true, func() {
		if v := tt.truths(4, load...).Verdict; !strings.HasPrefix(v, "At 64K tcp copy moves more than rdma ") {
			t.Errorf("RDMA was slowed: %s", v)
		}
	})
	slowed(t, false, func() {
		v := tt.truths(4, load...).Verdict
		if !strings.HasPrefix(v, "At 64K rdma ") || !strings.Contains(v, " moves more than tcp copy: ") {
			t.Errorf("TCP was slowed: %s", v)
		}
		r := tt.recv("--discard")
		tt.compare(append([]string{"--methods", "rdma,copy", "--baseline", tt.reportPath()}, load...)...).want(transfer.CodeOK, "0 better, 8 same, 0 worse")
		r.want(transfer.CodeOK)
	})
}
