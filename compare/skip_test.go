package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// fickle is a meter of which some loads fail.
type fickle struct {
	truth
	fails func(transfer.Load) error
	asked map[string]int // by op and size
}

func (m *fickle) Measure(ctx context.Context, l transfer.Load) (*transfer.Measurement, error) {
	if m.asked == nil {
		m.asked = make(map[string]int)
	}
	m.asked[fmt.Sprint(l.Op, " ", Size(l.Size))]++
	if err := m.fails(l); err != nil {
		return nil, err
	}
	return m.truth.Measure(ctx, l)
}

// What fails at one size is skipped there: where it has worked before, or says that it is
// the size. What has never worked is not tried at each.
func TestSkippedAtOneSize(t *testing.T) {
	o := options()
	var tried []int
	o.Peers = []Peer{
		{Name: "fio read", Beside: "disk", Rate: func(_ context.Context, l PeerLoad) (*PeerSample, error) {
			tried = append(tried, l.Size)
			if l.Size == 4096 {
				return nil, &SizeError{errors.New("a multiple of 64K")}
			}
			return &PeerSample{Rate: 1e9, Bytes: 1e9}, nil
		}},
		{Name: "iperf3", Beside: "tcp", Rate: func(context.Context, PeerLoad) (*PeerSample, error) { return nil, errors.New("not installed") }},
	}
	m := &fickle{truth: truth{rates: map[string]float64{"read": 1e9, "write": 1e9, "copy": 1e9}, trip: time.Millisecond}, fails: func(l transfer.Load) error {
		switch {
		case l.Op == "write":
			return errors.New("no way")
		case l.Op == "read" && l.Size > 65536:
			return errors.New("no room")
		}
		return nil
	}}
	r, err := Run(t.Context(), m, o)
	if err != nil {
		t.Fatal(err)
	}
	want := []Skipped{{"rdma read", 1 << 20, "no room"}, {"rdma write", 0, "no way"}, {"fio read", 4096, "a multiple of 64K"}, {"iperf3", 0, "not installed"}}
	if !slices.Equal(r.Skipped, want) {
		t.Errorf("%+v, want %+v", r.Skipped, want)
	}
	if len(r.Cells) != 5 || len(r.Peers) != 2 || r.Peers[0].Rounds != 6 || len(tried) != 1+2*6 {
		t.Errorf("%d cells, %+v; tried %v", len(r.Cells), r.Peers, tried)
	}
	if m.asked["write 4K"] != 1 || m.asked["write 64K"] != 0 || m.asked["read 1M"] != 1 {
		t.Errorf("%v", m.asked)
	}
	if lines := r.Reasons(); lines[0] != "rdma read at 1M was skipped: no room" {
		t.Errorf("%q", lines)
	}
	validate := schema(t, "compare")
	var report bytes.Buffer
	if err := r.WriteJSON(&report); err != nil {
		t.Fatal(err)
	}
	if err := validate(report.String()); err != nil {
		t.Error(err)
	}
}

// What breaks off in a later round has the rounds before, counted; one reason at every size
// is told once.
func TestBrokenOffMidway(t *testing.T) {
	rounds := 0
	m := &fickle{truth: truth{rates: map[string]float64{"read": 9e9, "write": 1e9, "copy": 2e9}, trip: time.Millisecond}, fails: func(l transfer.Load) error {
		if l.Op == "read" && rounds > 2 {
			return errors.New("the lane broke")
		}
		if l.Op == "read" && l.Size == 4096 && l.Interval > 0 { // the last of a round
			rounds++
		}
		return nil
	}}
	o := options()
	o.Sizes = o.Sizes[:1]
	o.Rounds = 9
	r, err := Run(t.Context(), m, o)
	if err != nil || !r.Complete || len(r.Cells) != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	for i, want := range []int{3, 9, 9} {
		if c := r.Cells[i]; c.Rounds != want || len(c.Rates) != want {
			t.Errorf("%s has %d rounds, %d rates; want %d", c.name(), c.Rounds, len(c.Rates), want)
		}
	}
	if !slices.Equal(r.Skipped, []Skipped{{Method: "rdma read", Reason: "the lane broke"}}) || r.best("rdma", 4096).Method != "write" {
		t.Errorf("%+v, the best is %s", r.Skipped, r.best("rdma", 4096).Method)
	}
	var csv bytes.Buffer
	if err := r.WriteCSV(&csv); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{",rounds", ",3", ",9", ",9"} { // as the table has a mark
		if lines := strings.Split(csv.String(), "\n"); !strings.HasSuffix(lines[i], want) {
			t.Errorf("%q does not end with %q", lines[i], want)
		}
	}
}

// What was so slow that nothing was timed is not left out without a word.
func TestUntimedIsSkipped(t *testing.T) {
	m := &untimed{truth{rates: map[string]float64{"read": 1e9, "copy": 1e9}, trip: time.Millisecond}}
	o := options()
	o.Methods, o.Sizes = []Method{o.Methods[0], o.Methods[2]}, []int{4096, 65536}
	r, err := Run(t.Context(), m, o)
	if err != nil || len(r.Cells) != 3 || !slices.Equal(r.Skipped, []Skipped{{"rdma read", 65536, errUntimed.Error()}}) {
		t.Errorf("%d cells, %+v, %v", len(r.Cells), r.Skipped, err)
	}
}

// untimed is a meter by which a read of 64 KiB is over when the time is.
type untimed struct{ truth }

func (m *untimed) Measure(ctx context.Context, l transfer.Load) (*transfer.Measurement, error) {
	got, err := m.truth.Measure(ctx, l)
	if err == nil && l.Op == "read" && l.Size == 65536 && l.Depth == 1 {
		got.Latency = transfer.NewLatency()
	}
	return got, err
}
