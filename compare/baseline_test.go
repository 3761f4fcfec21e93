package compare

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// A method that was asked for and could not be measured, or not to the end, is worse than
// it was; one that nobody asked for is lacking.
func TestVanishedIsWorse(t *testing.T) {
	measure := func(o Options, fails func(transfer.Load, int) error) *Report {
		t.Helper()
		n := 0
		m := &fickle{truth: truth{rates: map[string]float64{"read": 1e9, "write": 1e9, "copy": 1e9}, trip: time.Millisecond}}
		m.fails = func(l transfer.Load) error { n++; return fails(l, n) }
		r, err := Run(t.Context(), m, o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	o := options()
	o.Sizes = o.Sizes[:2]
	before := measure(o, func(transfer.Load, int) error { return nil })
	of := func(r *Report) (worse, lacking int, words string) {
		t.Helper()
		var b bytes.Buffer
		changes, lacking := r.Since(before, o.Sizes)
		worse, err := WriteChanges(&b, changes, lacking)
		if err != nil {
			t.Fatal(err)
		}
		return worse, lacking, b.String()
	}
	gone := errors.New("no RDMA device")
	rdma := func(l transfer.Load) bool { return l.Transport == transfer.TransportRDMA }
	for name, c := range map[string]struct {
		fails          func(transfer.Load, int) error
		worse, lacking int
		words          string
	}{
		"all is well": {func(transfer.Load, int) error { return nil }, 0, 0, "against the baseline: 0 better, 12 same, 0 worse; 0 methods and sizes in one of them alone\n"},
		"RDMA vanished": {func(l transfer.Load, _ int) error {
			if rdma(l) {
				return gone
			}
			return nil
		}, 4, 0, "worse: rdma read at 4K, 963.2 MiB/s then, not measured: no RDMA device\n"},
		"at one size": {func(l transfer.Load, _ int) error {
			if l.Op == "read" && l.Size == 65536 {
				return gone
			}
			return nil
		}, 1, 0, "worse: rdma read at 64K, 963.2 MiB/s then, not measured: no RDMA device\n"},
		"RDMA broke off": {func(l transfer.Load, n int) error {
			if rdma(l) && n > 3*3*2 { // loads of three methods at two sizes: from the second round on
				return gone
			}
			return nil
		}, 4, 0, "worse: rdma write at 64K, 963.2 MiB/s then, not measured after round 1: no RDMA device\n"},
	} {
		worse, lacking, words := of(measure(o, c.fails))
		if worse != c.worse || lacking != c.lacking || !strings.Contains(words, c.words) {
			t.Errorf("%s: %d worse, %d lacking: %s", name, worse, lacking, words)
		}
	}
	o.Methods = o.Methods[2:]
	if worse, lacking, words := of(measure(o, func(transfer.Load, int) error { return nil })); worse != 0 || lacking != 4 {
		t.Errorf("%d worse, %d lacking: %s", worse, lacking, words)
	}
}

// What broke off in the baseline too is lost where it has fewer rounds now; a size that nobody
// asked for is not lost, even where the method failed at all that were.
func TestNoMoreLostThanBefore(t *testing.T) {
	broken := func(rounds int) *Report {
		return &Report{Rounds: 9, Cells: []Cell{cellOf("rdma read", 4096, rounds, 1)}, Skipped: []Skipped{{Method: "rdma read", Reason: "the lane broke"}}}
	}
	whole := &Report{Rounds: 9, Cells: []Cell{cellOf("rdma read", 4096, 9, 1), cellOf("rdma read", 65536, 9, 1)}}
	none := &Report{Rounds: 9, Cells: []Cell{}, Skipped: broken(1).Skipped}
	both := []int{4096, 65536}
	for name, c := range map[string]struct {
		before, now  *Report
		sizes        []int
		worse, lacks int
	}{
		"broken off later":       {broken(5), broken(8), both[:1], 0, 0},
		"after as many":          {broken(5), broken(5), both[:1], 0, 0},
		"earlier":                {broken(5), broken(4), both[:1], 1, 0},
		"at once":                {broken(5), none, both[:1], 1, 0},
		"whole before":           {whole, broken(8), both[:1], 1, 1},
		"failed where asked for": {whole, none, both[:1], 1, 1},
		"failed at both":         {whole, none, both, 2, 0},
		"asked for another":      {broken(5), none, both[1:], 0, 1},
	} {
		var words bytes.Buffer
		changes, lacking := c.now.Since(c.before, c.sizes)
		worse, err := WriteChanges(&words, changes, lacking)
		if err != nil || worse != c.worse || lacking != c.lacks {
			t.Errorf("%s: %d worse, %d lacking, %v: %s", name, worse, lacking, err, words.String())
		}
	}
}

// A comparison that could not find anything worse is refused before it is made.
func TestBaselineThatTellsNothing(t *testing.T) {
	before := &Report{Cells: []Cell{cellOf("rdma read", 4096, 9, 1), cellOf("rdma write", 4096, 3, 1)}}
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"the same":      {func(*Options) {}, ""},
		"few rounds":    {func(o *Options) { o.Rounds = 3 }, "fewer than 4 rounds"},
		"other sizes":   {func(o *Options) { o.Sizes = []int{65536} }, "none of the methods and sizes"},
		"other methods": {func(o *Options) { o.Methods = o.Methods[2:] }, "none of the methods and sizes"},
		"few then":      {func(o *Options) { o.Methods = o.Methods[1:] }, "it has fewer than 4 rounds of what is asked for"},
	} {
		o := options()
		c.change(&o)
		err := o.Against(before)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// What else is different is said: the time, and soft-RoCE beside hardware, of what there is.
func TestUnlikeRuns(t *testing.T) {
	rdma, tcp := []Cell{cellOf("rdma read", 4096, 9, 1)}, []Cell{cellOf("tcp copy", 4096, 9, 1)}
	for _, c := range []struct {
		before, now Report
		want        string
	}{
		{Report{Duration: 1, Soft: true, Cells: rdma}, Report{Duration: 1, Soft: true, Cells: rdma}, ""},
		{Report{Duration: 1, Soft: true, Cells: rdma}, Report{Duration: 0.5, Cells: rdma}, "a measurement took 1 s then, and 0.5 s now; RDMA was soft-RoCE then, and is hardware now"},
		{Report{Cells: rdma}, Report{Soft: true, Cells: rdma}, "RDMA was hardware then, and is soft-RoCE now"},
		{Report{Soft: true, Cells: rdma}, Report{Cells: tcp}, ""},
	} {
		if got := strings.Join(c.now.Unlike(&c.before), "; "); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
