package peertool

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/compare"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// loadOf is bench's, settled, as a peer has it.
func loadOf(change func(*compare.VerbsOptions)) compare.PeerLoad {
	o := &compare.VerbsOptions{Op: "send", Size: 65536, Duration: time.Second}
	change(o)
	o.Settle()
	return compare.PeerLoad{Size: o.Size, Depth: o.Depth, Duration: o.Duration, Expect: 1000, As: o}
}

// What stands beside ours is the same load: each setting of bench is repeated, or refused with
// what the program has of its own.
func TestLoadsThatAreNotRepeated(t *testing.T) {
	for name, c := range map[string]struct {
		change          func(*compare.VerbsOptions)
		qperf, perftest string // what each says; empty: it runs
	}{
		"as it is":     {func(*compare.VerbsOptions) {}, "--depth 1024", ""},
		"depth":        {func(o *compare.VerbsOptions) { o.Depth = 1024 }, "", ""},
		"small":        {func(o *compare.VerbsOptions) { o.Depth, o.Size = 1024, 64 }, "--signal 1", ""},
		"small, each":  {func(o *compare.VerbsOptions) { o.Depth, o.Size, o.Signal = 1024, 64, 1 }, "", ""},
		"datagrams":    {func(o *compare.VerbsOptions) { o.Depth, o.Op = 1024, "ud" }, "no datagrams", ""},
		"both":         {func(o *compare.VerbsOptions) { o.Depth, o.Both = 1024, true }, "one way", ""},
		"queue pairs":  {func(o *compare.VerbsOptions) { o.Depth, o.QPs = 1024, 2 }, "--qps 1", ""},
		"chain":        {func(o *compare.VerbsOptions) { o.Depth, o.Chain, o.Signal = 1024, 16, 1 }, "--chain 1", ""},
		"inline":       {func(o *compare.VerbsOptions) { o.Depth, o.Inline = 1024, 64 }, "--inline 0", ""},
		"events":       {func(o *compare.VerbsOptions) { o.Depth, o.Events = 1024, true }, "", ""},
		"spin":         {func(o *compare.VerbsOptions) { o.Depth, o.Events, o.Spin = 1024, true, time.Microsecond }, "--spin 0", "--spin 0"},
		"working set":  {func(o *compare.VerbsOptions) { o.Depth, o.Buffers = 1024, 64 }, "--buffers 1", "--buffers 1"},
		"MTU":          {func(o *compare.VerbsOptions) { o.Depth, o.MTU = 1024, 1024 }, "path MTU", ""},
		"count":        {func(o *compare.VerbsOptions) { o.Depth, o.Iterations = 1024, 5 }, "--duration", ""},
		"small count":  {func(o *compare.VerbsOptions) { o.Depth, o.Iterations = 1024, 4 }, "--duration", "5 messages at least"},
		"latency":      {func(o *compare.VerbsOptions) { o.Latency = true }, "", ""},
		"of events":    {func(o *compare.VerbsOptions) { o.Latency, o.Events = true, true }, "", ""},
		"large count":  {func(o *compare.VerbsOptions) { o.Latency, o.Iterations = true, 100_000 }, "--duration", ""},
		"larger count": {func(o *compare.VerbsOptions) { o.Latency, o.Iterations = true, 100_001 }, "--duration", "100000 messages at the most"},
	} {
		l := loadOf(c.change)
		alone := 0
		if l.As.Latency {
			alone = 1
		}
		for program, err := range map[string]error{"qperf": qperfRefuses(l), "perftest": perftestRefuses(l, alone)} {
			want := map[string]string{"qperf": c.qperf, "perftest": c.perftest}[program]
			if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "it can't repeat this: "+program)) {
				t.Errorf("%s, %s: %v, want %q", name, program, err, want)
			}
		}
	}
	// Of lanes there are no such settings: what is different is told of all figures.
	l := compare.PeerLoad{Size: 4096, Depth: 16}
	if err := qperfRefuses(l); err != nil {
		t.Error(err)
	}
	if err := perftestRefuses(l, 0); err != nil {
		t.Error(err)
	}
}

// A peer refuses before it asks the receiver for anything: here there is none.
func TestPeersRefuseFirst(t *testing.T) {
	refused := 0
	for _, p := range Peers(nil) {
		if !strings.HasPrefix(p.Beside, transfer.TransportRDMA) {
			continue
		}
		for _, latency := range []bool{false, true} {
			measure := p.Rate
			if latency {
				measure = p.Trip
			}
			_, err := measure(t.Context(), loadOf(func(o *compare.VerbsOptions) { o.Latency, o.Buffers = latency, 2 }))
			if err == nil || !strings.Contains(err.Error(), "--buffers 1") {
				t.Errorf("%s: %v", p.Name, err)
			}
			refused++
		}
	}
	if refused != 8 {
		t.Errorf("%d refused", refused)
	}
}

// qperf polls where bench does, and waits on events where that does, or a lane is measured.
func TestQperfPollsAsBenchDoes(t *testing.T) {
	gid := netip.MustParseAddr("::ffff:10.0.0.1").As16()
	at := transfer.ToolAt{Addr: netip.MustParseAddrPort("192.0.2.1:99"), Local: &wire.Candidate{Ethernet: true}, GID: gid}
	lane := compare.PeerLoad{Size: 64, Duration: time.Second}
	for want, l := range map[string]compare.PeerLoad{
		"10.0.0.1 -lp 99 -t 1 -uu -m 64 -cm1 rc_lat":         lane,
		"10.0.0.1 -lp 99 -t 1 -uu -m 65536 -cm1 -cp1 rc_lat": loadOf(func(*compare.VerbsOptions) {}),
		"10.0.0.1 -lp 99 -t 1 -uu -m 65536 -cm1 rc_lat":      loadOf(func(o *compare.VerbsOptions) { o.Events = true }),
	} {
		if got := strings.Join(qperfArgs(at, l, "rc_lat"), " "); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	at.Local = nil
	if got := strings.Join(qperfArgs(at, lane, "tcp_bw"), " "); got != "192.0.2.1 -lp 99 -t 1 -uu -m 64 tcp_bw" {
		t.Errorf("%q", got)
	}
	n := uint8(3)
	for _, f := range []wire.Fabric{{MTU: &n}, {ServiceLevel: &n}, {TrafficClass: &n}} {
		if !wanted(&f) {
			t.Errorf("%+v", f)
		}
	}
	if wanted(&wire.Fabric{Timeout: &n}) {
		t.Error("a time-out is in no figure")
	}
}

// perftest sends as many messages as bench was told to, and no other number.
func TestPerftestCountsAsBenchDoes(t *testing.T) {
	for _, c := range []struct {
		change func(*compare.VerbsOptions)
		want   int
	}{
		{func(o *compare.VerbsOptions) { o.Iterations = 9 }, 9},
		{func(o *compare.VerbsOptions) { o.Iterations = 200 }, 200}, // fewer than twice the depth
		{func(o *compare.VerbsOptions) { o.Iterations, o.QPs = 300, 3 }, 100},
		{func(o *compare.VerbsOptions) { o.Iterations, o.Chain = 100, 16 }, 112}, // whole lists
		{func(*compare.VerbsOptions) {}, 1000},
	} {
		if got := iterations(loadOf(c.change), 0); got != c.want {
			t.Errorf("%d messages, want %d", got, c.want)
		}
	}
}
