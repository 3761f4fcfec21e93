package compare

import (
	"bytes"
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// truth is a meter that knows how fast each method is: bytes a second, by name.
type truth struct {
	rates map[string]float64
	trip  time.Duration
	asked []time.Duration // intervals of the open loops
	n     int             // loads so far
	dies  int             // at this load; 0: never
	ended error           // then
}

var errGone = errors.New("the peer is gone")

func (m *truth) Ended() error { return m.ended }

func (m *truth) Measure(_ context.Context, l transfer.Load) (*transfer.Measurement, error) {
	if m.n++; m.n == m.dies {
		m.ended = errGone
		return nil, errGone
	}
	if l.Interval > 0 {
		m.asked = append(m.asked, l.Interval)
	}
	name := l.Op
	switch l.Transport {
	case transfer.TransportTCP:
		name = "copy"
	case transfer.TransportUDP:
		name = "datagram"
	}
	rate := m.rates[name]
	if rate == 0 {
		return nil, errors.New("no RDMA device")
	}
	// A little noise, the same in every run.
	rate *= 1 + 0.01*float64(m.n%3)
	h := transfer.NewLatency()
	if err := h.RecordValues(int64(m.trip), 100); err != nil {
		return nil, err
	}
	n := int64(rate * l.Duration.Seconds() / float64(l.Size))
	var datagrams, lost int64
	if name == "datagram" {
		datagrams, lost = 1000, int64(l.Size>>16) // of the larger ones some are lost
	}
	return &transfer.Measurement{Datagrams: datagrams, Lost: lost, Local: "here", Remote: "rxe_a", Extents: n, Bytes: n * int64(l.Size), Elapsed: l.Duration, LocalTime: l.Duration, Latency: h,
		LocalMemory: transfer.Memory{Anonymous: 1, Pinned: int64(m.n), Peak: 3}, OtherMemory: transfer.Memory{Anonymous: 4, Pinned: 5, Peak: 6},
		LocalCPU: transfer.CPU{User: l.Duration / 2}, Other: transfer.CPU{System: l.Duration}}, nil
}

func options() Options {
	return Options{
		Methods:  []Method{{Transport: "rdma", Name: "read"}, {Transport: "rdma", Name: "write"}, {Transport: "tcp", Name: "copy"}},
		Sizes:    []int{4096, 65536, 1 << 20},
		Depth:    16,
		Rounds:   6,
		Duration: time.Second,
	}
}

func TestTruthIsRecovered(t *testing.T) {
	for _, c := range []struct {
		rates map[string]float64
		want  string
	}{
		{map[string]float64{"read": 1e9, "write": 2e9, "copy": 1e9}, "At every size rdma write moves more than tcp copy: "},
		{map[string]float64{"read": 3e9, "write": 1e9, "copy": 1e9}, "At every size rdma read moves more than tcp copy: "},
		{map[string]float64{"read": 1e9, "write": 1e9, "copy": 4e9}, "At every size tcp copy moves more than rdma "},
		{map[string]float64{"copy": 1 << 30}, "RDMA was not measured (no RDMA device); at 1M tcp copy moves 1."},
	} {
		r, err := Run(t.Context(), &truth{rates: c.rates, trip: time.Millisecond}, options())
		if err != nil || !r.Complete || r.Rounds != 6 || !strings.HasPrefix(r.Verdict, c.want) {
			t.Errorf("%v: %+v, %v; want %q", c.rates, r, err, c.want)
			continue
		}
		for i := range r.Cells {
			cell := &r.Cells[i]
			want := c.rates[cell.Method]
			if m := cell.Rate.Median; m < 0.99*want || m > 1.03*want || cell.Rate.Low > m || cell.Rate.High < m {
				t.Errorf("%v: %s: %+v", c.rates, cell.name(), cell.Rate)
			}
			if trip := cell.Trip.Median; math.Abs(trip-1e-3) > 1e-5 {
				t.Errorf("a round trip of %v s, want 1 ms", trip)
			}
			if cpu := cell.CPU; math.Abs(cpu.Here.User*want/1e9-0.5) > 0.02 || math.Abs(cpu.There.System*want/1e9-1) > 0.04 {
				t.Errorf("%s at %v bytes a second: CPU %+v", cell.name(), want, cpu)
			}
		}
	}
}

// Datagrams have a row of their own, with what was lost of them, and the verdict stays
// about RDMA and TCP.
func TestDatagramsStandByThemselves(t *testing.T) {
	o := options()
	o.Methods = append(o.Methods, Method{Transport: "udp", Name: "datagram"})
	rates := map[string]float64{"read": 1e9, "write": 2e9, "copy": 1e9, "datagram": 9e9}
	r, err := Run(t.Context(), &truth{rates: rates, trip: time.Millisecond}, o)
	if err != nil || len(r.Cells) != 12 || !strings.HasPrefix(r.Verdict, "At every size rdma write moves more than tcp copy: ") {
		t.Fatalf("%+v, %v", r, err)
	}
	for i := range r.Cells {
		c := &r.Cells[i]
		want := (*Datagrams)(nil)
		if c.Transport == "udp" {
			want = &Datagrams{18000, int64(18 * (c.Size >> 16))} // six rounds of three loads
		}
		if (want == nil) != (c.Datagrams == nil) || want != nil && *want != *c.Datagrams {
			t.Errorf("%s at %d: %+v, want %+v", c.name(), c.Size, c.Datagrams, want)
		}
	}
	var text, csv bytes.Buffer
	if err := errors.Join(r.WriteText(&text), r.WriteCSV(&csv)); err != nil {
		t.Fatal(err)
	}
	if want := "udp datagram at 64K: 18 of 18000 datagrams did not come in time (0.1 %)"; !strings.Contains(text.String(), want) || strings.Contains(text.String(), "datagram at 4K: ") {
		t.Errorf("%s\nwant %s", text.String(), want)
	}
	if !strings.Contains(csv.String(), ",18000,288,6\n") || !strings.Contains(csv.String(), "rxe_a,,,6\n") {
		t.Errorf("%s", csv.String())
	}

	delete(rates, "copy")
	for _, op := range []string{"read", "write"} {
		delete(rates, op)
	}
	if r, err = Run(t.Context(), &truth{rates: rates, trip: time.Millisecond}, o); err != nil || !strings.HasPrefix(r.Verdict, "Neither RDMA nor TCP was measured; at 1M udp datagram moves 8.") {
		t.Errorf("%+v, %v", r, err)
	}
	if lines := r.Losses(); len(lines) != 2 {
		t.Errorf("%v", lines)
	}
	o.Sizes = o.Sizes[:1]
	if r, err = Run(t.Context(), &truth{rates: rates, trip: time.Millisecond}, o); err != nil || len(r.Losses()) != 1 || r.Losses()[0] != "udp: none of 18000 datagrams was lost" {
		t.Errorf("%v, %v", r.Losses(), err)
	}
}

// With few rounds there is no 95 % interval, which is said; what has one reason is said once.
func TestFewRoundsAndOneReason(t *testing.T) {
	for rounds, want := range map[int]string{1: "1 round of 1 s", 5: "5 rounds of 1 s", 6: "6 rounds of 1 s"} {
		o := options()
		o.Rounds = rounds
		r, err := Run(t.Context(), &truth{rates: map[string]float64{"copy": 1e9}, trip: time.Millisecond}, o)
		if err != nil || r.Counted() != want || (r.Few() == "") != (rounds == 6) {
			t.Errorf("%d rounds: %q, %q, %v", rounds, r.Counted(), r.Few(), err)
		}
		if got := r.Reasons(); len(got) != 1 || got[0] != "rdma read, rdma write were skipped: no RDMA device" {
			t.Errorf("%q", got)
		}
	}
}

// fakePeers are two programs: one with bandwidth and round trips, and one that fails.
func fakePeers(rate float64, trip time.Duration) []Peer {
	return []Peer{
		{
			Name: "ib_write", Beside: "rdma write", Normalised: "doubled",
			Rate: func(_ context.Context, l PeerLoad) (*PeerSample, error) {
				return &PeerSample{Version: "6.06", Rate: rate, Bytes: 1e9, Here: transfer.CPU{User: time.Second}}, nil
			},
			Trip: func(_ context.Context, l PeerLoad) (*PeerSample, error) {
				h := transfer.NewLatency()
				return &PeerSample{Version: "6.06", Trip: trip.Seconds(), Trips: h}, h.RecordValues(int64(trip), 1000)
			},
		},
		{
			Name: "iperf3", Beside: "tcp", Normalised: "divided",
			Rate: func(_ context.Context, l PeerLoad) (*PeerSample, error) {
				return nil, errors.New("iperf3 is not installed")
			},
		},
	}
}

// Peers' figures stand beside those of the method that they are set beside; what was done
// to them is said of those that have some.
func TestPeersStandBesideOurs(t *testing.T) {
	o := options()
	var expected []float64
	o.Peers = fakePeers(4e9, 500*time.Microsecond)
	rate := o.Peers[0].Rate
	o.Peers[0].Rate = func(ctx context.Context, l PeerLoad) (*PeerSample, error) {
		expected = append(expected, l.Expect*float64(l.Size))
		return rate(ctx, l)
	}
	r, err := Run(t.Context(), &truth{rates: map[string]float64{"read": 1e9, "write": 2e9, "copy": 1e9}, trip: time.Millisecond}, o)
	if err != nil || len(r.Peers) != 3 || len(r.Normalised) != 1 || len(r.Skipped) != 1 || r.Skipped[0].Method != "iperf3" {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, c := range r.Peers {
		if c.Program != "ib_write" || c.Beside != "rdma write" || c.Version != "6.06" || c.Rate.Median != 4e9 || len(c.Rates) != 6 || c.CPU.Here.User != 1 {
			t.Errorf("%+v", c)
		}
		if ratio := c.RateRatio.Median; math.Abs(ratio-0.5) > 0.01 {
			t.Errorf("our rate is %v of its, want half", ratio)
		}
		if ratio := c.TripRatio.Median; math.Abs(ratio-2) > 0.01 || c.Alone.Count != 6000 || math.Abs(c.Alone.at(99)-0.0005) > 1e-6 {
			t.Errorf("our round trip is %v of its, want twice; %+v", ratio, c.Alone)
		}
	}
	// The first round goes by our own method, the others by what the peer did.
	if first, then := expected[0], expected[len(expected)-1]; math.Abs(first/2e9-1) > 0.03 || then != 4e9 {
		t.Errorf("expected %v, then %v", first, then)
	}
	if want := "At 1M rdma write moves 0.50 times (0.50 to 0.50) what ib_write does."; !strings.Contains(r.Verdict, want) {
		t.Errorf("%q lacks %q", r.Verdict, want)
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	table, rest, _ := strings.Cut(text.String(), "\n\n")
	second, _, _ := strings.Cut(rest, "\n\n")
	for line := range strings.Lines(table + "\n" + second + "\n") {
		if n := utf8.RuneCountInString(line) - 1; n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if !strings.Contains(table, "ib_write  3814.7") || !strings.Contains(text.String(), "ib_write: doubled") {
		t.Errorf("%s", text.String())
	}
}

// bench has those peers alone that do the same, and of them the one figure.
func TestBenchHasItsPeers(t *testing.T) {
	m := &truth{rates: map[string]float64{"write": 1e9}, trip: time.Millisecond}
	write := Method{Transport: "rdma", Name: "write"}
	for depth, want := range map[int][2]bool{16: {true, false}, 1: {false, true}} {
		s, err := Bench(t.Context(), m, write, 4096, depth, time.Second, fakePeers(4e9, time.Millisecond))
		if err != nil || len(s.Peers) != 1 || (s.Peers[0].Rate != nil) != want[0] || (s.Peers[0].Trip != nil) != want[1] || len(s.Skipped) != 0 {
			t.Errorf("%d in flight: %+v, %v", depth, s, err)
		}
	}
	s, err := Bench(t.Context(), &truth{rates: map[string]float64{"read": 1e9}, trip: 1}, Method{Transport: "rdma", Name: "read"}, 4096, 16, time.Second, fakePeers(1, 1))
	if err != nil || len(s.Peers) != 0 || len(s.Skipped) != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// An open loop asks for half of what one request after the other reached in the first
// round, in every round; memory is the most of any.
func TestOpenLoopAndMemory(t *testing.T) {
	m := &truth{rates: map[string]float64{"copy": 1e9}, trip: time.Millisecond}
	o := options()
	o.Methods, o.Sizes = o.Methods[2:], []int{4096}
	r, err := Run(t.Context(), m, o)
	if err != nil || len(r.Cells) != 1 || len(m.asked) != o.Rounds {
		t.Fatalf("%+v, %v; %v", r, err, m.asked)
	}
	for _, d := range m.asked {
		if math.Abs(d.Seconds()-2e-3) > 1e-5 || d != m.asked[0] {
			t.Errorf("due every %v, want twice a round trip", m.asked)
		}
	}
	c := r.Cells[0]
	if c.Open == nil || math.Abs(c.Open.PerSecond-500) > 1 || c.Open.Trips.Count != 600 || c.Alone.Count != 600 {
		t.Errorf("%+v", c.Open)
	}
	if c.Memory.Here != (Memory{1, 16, 3}) || c.Memory.There != (Memory{4, 5, 6}) {
		t.Errorf("%+v", c.Memory)
	}
}

// The words have each span once.
func TestVerdictSpansSizes(t *testing.T) {
	cell := func(transport string, size int, rate float64) Cell {
		return Cell{Transport: transport, Method: "m", Size: size, Rates: []float64{rate, rate * 1.01, rate * 0.99, rate, rate, rate}, Rate: Interval{rate, rate * 0.99, rate * 1.01}}
	}
	r := &Report{Complete: true, Cells: []Cell{
		cell("rdma", 1024, 1), cell("tcp", 1024, 2),
		cell("rdma", 4096, 1), cell("tcp", 4096, 3),
		cell("rdma", 65536, 4), cell("tcp", 65536, 4),
		cell("rdma", 1<<20, 5), cell("tcp", 1<<20, 4),
	}}
	want := "Up to 4K tcp m moves more than rdma m: 3.00 times (3.00 to 3.00) at 4K; " +
		"at 64K neither is shown to move more (rdma / tcp 1.00, 1.00 to 1.00 at 64K); " +
		"at 1M rdma m moves more than tcp m: 1.25 times (1.25 to 1.25). At 1M "
	if got := r.verdict(); !strings.HasPrefix(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestBrokenOffIsNotComplete(t *testing.T) {
	// In the second round, after one of its loads.
	r, err := Run(t.Context(), &truth{rates: map[string]float64{"read": 1e9, "write": 1e9, "copy": 1e9}, trip: 1, dies: 29}, options())
	if !errors.Is(err, errGone) || r.Complete || r.Rounds != 1 || len(r.Cells) != 9 || !strings.HasPrefix(r.Verdict, "Not complete.") {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = Run(t.Context(), &truth{dies: 1}, options())
	if err == nil || r.Complete || r.Rounds != 0 || len(r.Cells) != 0 || r.Verdict != "Not complete. Nothing was measured." {
		t.Errorf("%+v, %v", r, err)
	}
}

// Ten times at least are longer than a percentile that is told.
func TestPercentilesThatTheTimesCarry(t *testing.T) {
	for n, want := range map[int64]int{0: 0, 1: 1, 99: 1, 100: 2, 999: 2, 1000: 3, 9999: 3, 10000: 4, 1000000: 6} {
		h := transfer.NewLatency()
		if n > 0 {
			if err := h.RecordValues(1000, n); err != nil {
				t.Fatal(err)
			}
		}
		if d := distribution(h); d.Count != n || len(d.Percentiles) != want {
			t.Errorf("%d times: %+v, want %d percentiles", n, d, want)
		}
	}
}

func TestSinceABaseline(t *testing.T) {
	rates := map[string]float64{"read": 1e9, "write": 1e9, "copy": 1e9}
	run := func(rates map[string]float64) *Report {
		t.Helper()
		r, err := Run(t.Context(), &truth{rates: rates, trip: 1}, options())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	before := run(rates)
	var file bytes.Buffer
	if err := before.WriteJSON(&file); err != nil {
		t.Fatal(err)
	}
	before, err := ReadJSON(file.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		write float64
		word  string
		worse int
	}{{1e9, "same", 0}, {0.95e9, "same", 0}, {0.8e9, "worse", 3}, {1.3e9, "better", 0}, {0, "worse", 3}} {
		changes, lacking := run(map[string]float64{"read": 1e9, "write": c.write, "copy": 1e9}).Since(before, options().Sizes)
		for _, change := range changes {
			want := "same"
			if change.Cell.Method == "write" && change.Figure != "round trip" {
				want = c.word
			}
			if change.Word != want {
				t.Errorf("write at %v: %s is %s, want %s", c.write, change.Cell.name(), change.Word, want)
			}
		}
		if worse, err := WriteChanges(&bytes.Buffer{}, changes, lacking); err != nil || worse != c.worse {
			t.Errorf("write at %v: %d worse, %v; want %d", c.write, worse, err, c.worse)
		}
		if lacking != 0 {
			t.Errorf("write at %v: %d lacking", c.write, lacking)
		}
	}
	// Round trips count too, and the longer one is the worse; what few rounds have is not told.
	slow, err := Run(t.Context(), &truth{rates: rates, trip: 2}, options())
	if err != nil {
		t.Fatal(err)
	}
	var words bytes.Buffer
	changes, lacking := slow.Since(before, options().Sizes)
	if worse, err := WriteChanges(&words, changes, lacking); err != nil || worse != 9 || !strings.Contains(words.String(), "worse: rdma read at 4K, round trip 0.002 µs instead of 0.001 µs (2.00 times)\n") {
		t.Errorf("%d worse, %v: %s", worse, err, words.String())
	}
	if changes, _ = before.Since(slow, options().Sizes); changes[0].Word != "same" || changes[1].Word != "better" {
		t.Errorf("%+v", changes[:2])
	}
	o := options()
	o.Rounds = 3
	few, err := Run(t.Context(), &truth{rates: rates, trip: 2}, o)
	if err != nil {
		t.Fatal(err)
	}
	words.Reset()
	changes, lacking = few.Since(before, options().Sizes)
	if worse, err := WriteChanges(&words, changes, lacking); err != nil || worse != 0 || !strings.HasPrefix(words.String(), "18 can't be told from chance: that takes 4 rounds") {
		t.Errorf("%d worse, %v: %s", worse, err, words.String())
	}
	if want := "At every size nothing is shown by fewer than 6 rounds (rdma / tcp 1."; !strings.HasPrefix(few.Verdict, want) {
		t.Errorf("%q, want %q", few.Verdict, want)
	}
	for _, bad := range []string{"", "{}", `{"schema": 2}`, "[]"} {
		if _, err := ReadJSON([]byte(bad)); err == nil {
			t.Errorf("%q is a report", bad)
		}
	}
}

func TestTableFitsATerminal(t *testing.T) {
	r, err := Run(t.Context(), &truth{rates: map[string]float64{"read": 12.3e9, "write": 99.9e9, "copy": 1e9}, trip: 123456789}, options())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	table, _, _ := strings.Cut(out.String(), "\n\n")
	lines := strings.Split(table, "\n")
	if len(lines) != 10 {
		t.Errorf("%d lines, want 10", len(lines))
	}
	for _, line := range lines {
		if n := len([]rune(line)); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	out.Reset()
	if err := r.WriteCSV(&out); err != nil || strings.Count(out.String(), "\n") != 10 || !strings.Contains(out.String(), "\nrdma,write,4096,") {
		t.Errorf("%v: %s", err, out.String())
	}
	out.Reset()
	for _, kind := range LatencyKinds {
		out.Reset()
		if err := r.Cells[0].WriteLatency(&out, kind); err != nil || !strings.Contains(out.String(), "Percentile") || !strings.Contains(out.String(), "Total count    =          600") {
			t.Errorf("%s: %v: %s", kind, err, out.String())
		}
	}
}

// What a program of its host moved is no hardware's figure, whatever it is called.
func TestSoftDevicesAreCalledSoft(t *testing.T) {
	for details, want := range map[string]bool{"rxe_a gid=1": true, "roce0(software) gid=1": true, "mlx5_0 gid=3": false} {
		if soft(details) != want {
			t.Errorf("%s: %v", details, !want)
		}
	}
}

// Who is told to stop while a program of somebody else's runs has not been told that it can't be
// measured.
func TestInterruptedPeerIsNoSkippedOne(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m := &truth{rates: map[string]float64{"write": 1e9}, trip: time.Millisecond}
	disk := Peer{Name: "fio read", Beside: "disk", Rate: func(context.Context, PeerLoad) (*PeerSample, error) {
		cancel()
		return nil, ctx.Err()
	}}
	r, err := Run(ctx, m, Options{Methods: []Method{{Transport: "rdma", Name: "write"}}, Sizes: []int{4096}, Depth: 16, Rounds: 2, Duration: time.Second, Peers: []Peer{disk}})
	if !errors.Is(err, context.Canceled) || r.Complete || len(r.Skipped) > 0 {
		t.Errorf("%v, complete %v, skipped %v", err, r.Complete, r.Skipped)
	}
}
