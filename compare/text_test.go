package compare

import (
	"bytes"
	"context"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// The unit is that of the rounded figure.
func TestSecondsAreRoundedFirst(t *testing.T) {
	for s, want := range map[float64]string{
		0: "0 µs", 1e-9: "0.001 µs", 12.34e-6: "12.3 µs", 999.4e-6: "999 µs", 999.6e-6: "1 ms", 1e-3: "1 ms", 1.234e-3: "1.23 ms",
		0.9994: "999 ms", 0.9996: "1 s", 1: "1 s", 59.96: "60 s", 600: "600 s", math.NaN(): "-",
	} {
		if got := seconds(s); got != want {
			t.Errorf("%v s: %q, want %q", s, got, want)
		}
	}
}

// busy is a meter of hosts on which more runs than the two processes.
type busy struct{ truth }

func (m *busy) Measure(ctx context.Context, l transfer.Load) (*transfer.Measurement, error) {
	got, err := m.truth.Measure(ctx, l)
	if err == nil {
		got.LocalCPU.Host, got.Other.Host = 30*l.Duration, 40*l.Duration
		got.LocalMemory, got.OtherMemory = transfer.Memory{Pinned: 16 << 20, Peak: 123 << 20}, transfer.Memory{Pinned: 16 << 20, Peak: 123 << 20}
	}
	return got, err
}

// What the kernel's threads took shows in the text and on the page, where it was measured: of
// soft-RoCE they do most of the work.
func TestWholeHostsAreShown(t *testing.T) {
	rates := map[string]float64{"read": 1e9, "write": 0.9e9, "copy": 2e9}
	for _, c := range []struct {
		name  string
		meter meter
		shown bool
	}{{"measured", &busy{truth{rates: rates, trip: 123456789}}, true}, {"not", &truth{rates: rates, trip: 123456789}, false}} {
		r, err := Run(t.Context(), c.meter, options())
		if err != nil {
			t.Fatal(err)
		}
		var text, page bytes.Buffer
		if err := r.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		if err := r.WriteHTML(&page); err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(text.String(), "\n\n")
		table, _, _ := strings.Cut(rest, "\n\n")
		lines := strings.Split(table, "\n")
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); n > 100 {
				t.Errorf("%d columns: %s", n, line)
			}
		}
		here, there, words := "29.70", "39.60", "(the whole hosts, with all that ran there, 29.71 here and 39.61 there, and 14.85 and 19.81)"
		if !c.shown {
			here, there = "-", "-"
		}
		if f := strings.Fields(lines[2]); len(lines) != 2+9 || strings.Join(f[:3], " ") != "4K rdma read" || f[len(f)-6] != here || f[len(f)-5] != there {
			t.Errorf("%s: %s", c.name, table)
		}
		if strings.Contains(r.Verdict, words) != c.shown {
			t.Errorf("%s: %s", c.name, r.Verdict)
		}
		if got := r.Cards(); len(got) != map[bool]int{true: 4, false: 3}[c.shown] || c.shown && got[3] != (Card{"CPU of each whole host at 1M, s/GB", "29.71, 39.61", "14.85, 19.81"}) {
			t.Errorf("%s: %+v", c.name, got)
		}
		if strings.Contains(page.String(), "<td>29.70</td>") != c.shown {
			t.Errorf("%s: not so on the page", c.name)
		}
	}
}

// Peers that break off midway are told with the rounds that they have.
func TestVerbsPeersOfFewRounds(t *testing.T) {
	n := 0
	peers := fakePeers(1e6, time.Millisecond)[:1]
	rate := peers[0].Rate
	peers[0].Rate = func(ctx context.Context, l PeerLoad) (*PeerSample, error) {
		if n++; n > 2 {
			return nil, errGone
		}
		return rate(ctx, l)
	}
	r, err := BenchVerbs(t.Context(), new(verbsTruth), nil, VerbsOptions{Op: "write", Size: 64, Duration: time.Second, Rounds: 4, Peers: peers})
	if err != nil || len(r.Peers) != 1 || r.Peers[0].Rounds != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	var words bytes.Buffer
	if err := r.WriteText(&words); err != nil || !strings.Contains(words.String(), "), 2 rounds alone\n") {
		t.Errorf("%s, %v", words.String(), err)
	}
}
