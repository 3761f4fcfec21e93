package compare

import (
	"bytes"
	"strings"
	"testing"
)

// cellOf has so many rounds, of about one rate.
func cellOf(method string, size, rounds int, rate float64) Cell {
	transport, name, _ := strings.Cut(method, " ")
	c := Cell{Transport: transport, Method: name, Size: size, Rounds: rounds, Rate: Interval{rate, rate * 0.99, rate * 1.01}}
	for i := range rounds {
		c.Rates = append(c.Rates, rate*[]float64{1, 1.01, 0.99}[i%3])
	}
	return c
}

// A sentence about sizes is true at every one of them: it names no method that is not the
// best at each, and no size that was not measured.
func TestVerdictIsTrueAtEverySize(t *testing.T) {
	const k, m = 1024, 1 << 20
	for name, c := range map[string]struct {
		cells []Cell
		want  string
	}{
		"one pair of methods": {
			[]Cell{cellOf("rdma send", 4*k, 6, 1), cellOf("tcp copy", 4*k, 6, 2), cellOf("rdma send", m, 6, 1), cellOf("tcp copy", m, 6, 3)},
			"At every size tcp copy moves more than rdma send: 3.00 times (3.00 to 3.00) at 1M. At 1M ",
		},
		"another loser": {
			[]Cell{
				cellOf("rdma write", 4*k, 6, 2), cellOf("tcp copy", 4*k, 6, 2),
				cellOf("rdma read", 64*k, 6, 1), cellOf("rdma send", 64*k, 6, 0.5), cellOf("tcp sendfile", 64*k, 6, 2),
				cellOf("rdma read", m, 6, 0.5), cellOf("rdma send", m, 6, 1), cellOf("tcp sendfile", m, 6, 6),
			},
			"At 4K neither is shown to move more (rdma / tcp 1.00, 1.00 to 1.00 at 4K); from 64K on tcp's best method moves more than rdma's: tcp sendfile 6.00 times (6.00 to 6.00) what rdma send does at 1M. At 1M ",
		},
		"another winner": {
			[]Cell{
				cellOf("rdma write", 4*k, 6, 3), cellOf("rdma read", 4*k, 6, 2), cellOf("tcp copy", 4*k, 6, 1),
				cellOf("rdma write", m, 6, 3), cellOf("rdma read", m, 6, 4), cellOf("tcp copy", m, 6, 1),
			},
			"At every size rdma's best method moves more than tcp's: rdma read 4.00 times (4.00 to 4.00) what tcp copy does at 1M. At 1M ",
		},
		"a size between that one lacks": {
			[]Cell{cellOf("rdma read", 4*k, 6, 2), cellOf("tcp copy", 4*k, 6, 1), cellOf("tcp copy", 64*k, 6, 1), cellOf("rdma read", m, 6, 2), cellOf("tcp copy", m, 6, 1)},
			"At 4K rdma read moves more than tcp copy: 2.00 times (2.00 to 2.00); at 1M rdma read moves more than tcp copy: 2.00 times (2.00 to 2.00). At 1M ",
		},
		"the largest size that one lacks": {
			[]Cell{cellOf("rdma read", 4*k, 6, 2), cellOf("tcp copy", 4*k, 6, 1), cellOf("rdma read", 64*k, 6, 2), cellOf("tcp copy", 64*k, 6, 1), cellOf("tcp copy", m, 6, 1)},
			"Up to 64K rdma read moves more than tcp copy: 2.00 times (2.00 to 2.00) at 64K. At 64K ",
		},
		"no size that both have": {
			[]Cell{cellOf("rdma read", 4*k, 6, 2), cellOf("tcp copy", m, 6, 1)},
			"RDMA and TCP were not measured at one size.",
		},
		"few rounds at one of them": {
			[]Cell{cellOf("rdma read", 4*k, 6, 1), cellOf("tcp copy", 4*k, 6, 1), cellOf("rdma read", m, 2, 2), cellOf("tcp copy", m, 6, 1)},
			"At 4K neither is shown to move more (rdma / tcp 1.00, 1.00 to 1.00 at 4K); at 1M nothing is shown by fewer than 6 rounds (rdma / tcp 2.00, 2.00 to 2.00 at 1M). At 1M ",
		},
	} {
		r := &Report{Complete: true, Rounds: 6, Cells: c.cells}
		if got := r.verdict(); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q\nwant %q", name, got, c.want)
		}
	}
}

// Two lucky rounds of what broke off don't make it the best, nor show what a peer does; they
// are marked where they are shown.
func TestFewRoundsShowNothing(t *testing.T) {
	peer := PeerCell{Program: "ib_read", Beside: "rdma read", Size: 4096, Rounds: 2, Rates: []float64{1, 1}, Rate: &Interval{1, 1, 1}, RateRatio: &Interval{2, 2, 2}, CPU: &CPUs{}}
	other := peer
	other.Program, other.Rounds, other.Rates = "ib_send", 9, make([]float64, 9)
	r := &Report{Complete: true, Rounds: 9, Cells: []Cell{cellOf("rdma write", 4096, 2, 9), cellOf("rdma read", 4096, 9, 3), cellOf("tcp copy", 4096, 9, 2)}, Peers: []PeerCell{peer, other}}
	r.Verdict = r.verdict()
	for _, want := range []string{
		"At 4K rdma read moves more than tcp copy: 1.50 times",
		"At 4K fewer than 6 rounds show nothing beside ib_read.",
		"At 4K rdma read moves 2.00 times (2.00 to 2.00) what ib_send does.",
	} {
		if !strings.Contains(r.Verdict, want) {
			t.Errorf("%q lacks %q", r.Verdict, want)
		}
	}
	if !r.Best(r.Cells[1]) || r.Best(r.Cells[0]) {
		t.Error("the page has another method than the verdict's as the best")
	}
	var text, page bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	const short = "* not of all 9 rounds: rdma write at 4K of 2, ib_read at 4K of 2. Of fewer than 6 the interval is from the least to the most, and not of 95 %."
	for name, said := range map[string]string{"text": text.String(), "page": page.String()} {
		if !strings.Contains(said, short) || !strings.Contains(said, "rdma write*") || !strings.Contains(said, "ib_read*") || strings.Contains(said, "rdma read*") || strings.Contains(said, "ib_send*") {
			t.Errorf("%s: %s", name, said)
		}
	}
}
