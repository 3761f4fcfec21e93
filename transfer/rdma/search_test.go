package rdma

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// quiet is the scout of a search whose attempts need none.
type quiet struct{ seen []uint32 }

func (quiet) Offer(context.Context) (*wire.Offer, error) { return nil, nil }
func (quiet) Probe(context.Context, *wire.ProbePath) (*wire.PathAnswer, error) {
	return nil, nil
}
func (q quiet) Over(ctx context.Context, _ uint32) ([]uint32, error) { return q.seen, ctx.Err() }

// fate is what becomes of the probe of a pair.
type fate struct {
	after time.Duration // it answers then; 0: never
	hangs time.Duration // in the kernel, whatever becomes of the context
	err   error
	mtu   ibverbs.MTU // what has passed when it is given up
}

// searchAmong runs a search over pairs of those addresses. fates are by "a-b"; a pair that
// is not among them never answers.
func searchAmong(t *testing.T, mine, theirs string, every bool, fates map[string]fate, seen ...uint32) (s *search, took time.Duration) {
	t.Helper()
	s = &search{all: pairs(hosts(t, mine), offers(hosts(t, theirs)), nil, nil), fabric: new(Fabric), scout: quiet{seen}, every: every}
	s.attempt = func(ctx context.Context, p *pair, _ uint32) outcome {
		if ctx.Err() != nil {
			t.Errorf("%s is tried after the end", railWords([]*pair{p}))
		}
		f := fates[railWords([]*pair{p})]
		o := outcome{p: p, mtu: 5, took: f.after, answered: true}
		if f.hangs > 0 {
			time.Sleep(f.hangs)
			return outcome{p: p, err: errors.New("hung")}
		}
		var answer <-chan time.Time
		if f.after > 0 {
			answer = time.After(f.after)
		}
		select {
		case <-answer:
			o.err = f.err
		case <-ctx.Done():
			o.err, o.mtu, o.silent = ctx.Err(), f.mtu, time.Second
		}
		if o.err != nil && f.mtu == 0 {
			o.mtu = 0
		}
		return o
	}
	began := time.Now()
	s.run(t.Context())
	return s, time.Since(began)
}

const ms = time.Millisecond

func TestSearch(t *testing.T) {
	dead := errors.New("refused")
	four := func(host string, n int) string {
		var list []string
		for i := range 4 {
			list = append(list, fmt.Sprintf("%s%d=10.0.%d.%d/24", host, i, i, n))
		}
		return strings.Join(list, " ")
	}
	for _, c := range []struct {
		name         string
		mine, theirs string
		fates        map[string]fate
		want         string
		tried        int
		least, most  time.Duration
	}{
		{"one answers at once", "a=10.0.0.1/24", "b=10.0.0.2/24", map[string]fate{"a-b": {after: ms}}, "a-b", 1, ms, ms},
		{"nothing answers", "a=10.0.0.1/24", "b=10.0.0.2/24", nil, "", 1, tryLimit, tryLimit + grace},
		{"four rails, sixteen pairs of ports", four("a", 1), four("b", 2),
			map[string]fate{"a0-b0": {after: ms}, "a1-b1": {after: ms}, "a2-b2": {after: ms}, "a3-b3": {after: 2 * ms}}, "a0-b0 a1-b1 a2-b2 a3-b3", 4, 2 * ms, 2 * ms},
		{"one of four is dead: the others don't wait long", four("a", 1), four("b", 2),
			map[string]fate{"a0-b0": {after: ms}, "a1-b1": {after: ms}, "a3-b3": {after: ms}}, "a0-b0 a1-b1 a3-b3", 4, enough, enough + grace},
		{"refused at once: the next best is tried at once", "a=10.0.0.1/24", "b=10.0.0.2/24 b2=10.0.0.3/24",
			map[string]fate{"a-b": {after: ms, err: dead}, "a-b2": {after: ms}}, "a-b2", 2, 2 * ms, 2 * ms},
		{"silent: the next best is tried after a while", "a=10.0.0.1/24", "b=10.0.0.2/24 b2=10.0.0.3/24",
			map[string]fate{"a-b2": {after: ms}}, "a-b2", 2, enough, enough + grace},
		{"one that hangs in the kernel is not waited for", "a=10.0.0.1/24", "b=10.0.0.2/24",
			map[string]fate{"a-b": {hangs: time.Minute}}, "", 1, tryLimit + grace, tryLimit + grace},
		{"nor where another answers", "a=10.0.0.1/24 a2=10.0.1.1/24", "b=10.0.0.2/24 b2=10.0.1.2/24",
			map[string]fate{"a-b": {hangs: time.Minute}, "a2-b2": {after: ms}}, "a2-b2", 2, enough, enough + grace},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, took := searchAmong(t, c.mine, c.theirs, false, c.fates)
			if got := railWords(match(s.all, proven)); got != c.want {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
			if took < c.least || took > c.most || len(s.tried) != c.tried {
				t.Errorf("%s: %d tried in %v, want %d in %v to %v", c.name, len(s.tried), took, c.tried, c.least, c.most)
			}
			time.Sleep(2 * time.Minute) // nothing that was begun stays
		})
	}
}

// TestSearchIsBounded: of more pairs than may be tried none is chosen that was not, and
// it is said that not all were.
func TestSearchIsBounded(t *testing.T) {
	var mine, theirs []string
	for i := range 10 {
		mine, theirs = append(mine, fmt.Sprintf("a%d=10.0.0.%d/24", i, i+1)), append(theirs, fmt.Sprintf("b%d=10.0.0.%d/24", i, i+101))
	}
	synctest.Test(t, func(t *testing.T) {
		s, _ := searchAmong(t, strings.Join(mine, " "), strings.Join(theirs, " "), true, nil)
		if rails := match(s.all, proven); len(rails) > 0 || len(s.tried) != wire.MaxProbes {
			t.Errorf("%d were tried; chosen: %s", len(s.tried), railWords(rails))
		}
		if err := noRail(s.all, len(s.tried)); !strings.Contains(err.Error(), "64 of 100 pairs were tried") || !strings.Contains(err.Error(), "no acknowledgement") {
			t.Error(err)
		}
		if list := rows(s.all, nil); len(list) != 100 || list[0].State != wire.PathFailed {
			t.Errorf("%d rows, the first %+v", len(list), list[0])
		}
	})
}

// TestWhatIsSaidOfProbes: the true cause, and an MTU only where it is one.
func TestWhatIsSaidOfProbes(t *testing.T) {
	for _, c := range []struct {
		name  string
		o     outcome
		seen  bool
		state progress
		mtu   ibverbs.MTU
		words string
	}{
		{"all passes", outcome{mtu: 5}, false, alive, 5, ""},
		{"short ones pass, long ones are silent for long", outcome{mtu: 3, silent: time.Second, err: context.Canceled}, false, alive, 3, "packets of 1024 bytes pass and larger ones do not"},
		{"the last is only late", outcome{mtu: 3, silent: 10 * ms, err: context.Canceled}, false, alive, 0, ""},
		{"nothing comes back", outcome{answered: true, err: context.Canceled}, false, failed, 0, "no acknowledgement (is UDP port 4791 open between 10.0.0.1 and 10.0.0.2?)"},
		{"the way back is shut", outcome{answered: true, err: context.Canceled}, true, failed, 0, "acknowledgements do not reach the receiver (10.0.0.1)"},
		{"refused", outcome{err: errors.New("the sender: no such partition")}, false, failed, 0, "no such partition"},
	} {
		s := &search{fabric: new(Fabric), all: pairs(hosts(t, "a=10.0.0.1/24"), offers(hosts(t, "b=10.0.0.2/24")), nil, nil)}
		p := s.all[0]
		s.tried = s.all
		if c.seen {
			s.scout = quiet{[]uint32{0}}
		} else {
			s.scout = quiet{}
		}
		o := c.o
		o.p = p
		s.note(&o)
		if p.state == failed {
			s.ask([]outcome{o})
		}
		if p.state != c.state || p.mtu != c.mtu || (c.words == "") != (p.reason == "") || !strings.Contains(p.reason, c.words) {
			t.Errorf("%s: state %d, MTU %d, %q", c.name, p.state, p.mtu, p.reason)
		}
	}
	// What is to blame where nothing comes back is not UDP's port everywhere.
	for ends, words := range map[[2]string]string{
		{"i=fe80::1", "j=fe80::2"}:               "LID 0 to LID 0: does the subnet manager route",
		{"a=fe80::1/64", "b=fe80::2/64"}:         "both link-local: are the ports on one Ethernet?",
		{"a=10.0.0.1/24,v1", "b=10.0.0.2/24,v1"}: "RoCE v1 is not routed",
		{"a=10.0.0.1/24", "b=10.9.0.2/24"}:       "of different subnets",
	} {
		s := &search{fabric: new(Fabric), all: pairs(hosts(t, ends[0]), offers(hosts(t, ends[1])), nil, nil)}
		s.note(&outcome{p: s.all[0], answered: true, err: context.Canceled})
		if r := s.all[0].reason; !strings.Contains(r, words) {
			t.Errorf("%v: %q", ends, r)
		}
	}
	// Reasons that could not be sent would take the whole report with them.
	s := &search{all: pairs(hosts(t, "a=10.0.0.1/24"), offers(hosts(t, "b=10.0.0.2/24")), nil, nil)}
	s.all[0].reason = errors.Join(errors.New("one"), errors.New(strings.Repeat("x", 2000))).Error()
	if _, err := wire.Append(nil, &wire.Paths{Rows: rows(s.all, nil)}); err != nil {
		t.Error(err)
	}
	// Ports whose MTUs differ: which, and the mend.
	s = &search{fabric: new(Fabric), all: pairs(hosts(t, "a=10.0.0.1/24"), offers(hosts(t, "b=10.0.0.2/24")), nil, nil)}
	s.all[0].theirs.MTU = 3
	s.note(&outcome{p: s.all[0], mtu: 3})
	if r := s.all[0].reason; !strings.Contains(r, "the sender's port has an MTU of 1024 and the other one of 4096") || !strings.Contains(r, "ip link set dev eth-b mtu") {
		t.Errorf("%q", r)
	}
}

// TestLanesStay: a path that carries lanes is kept, whatever else has come.
func TestLanesStay(t *testing.T) {
	all := pairs(hosts(t, "a=fd00::1/64 a=10.0.0.1/24"), offers(hosts(t, "b=fd00::2/64 b=10.0.0.2/24")), nil, nil)
	for _, p := range all {
		p.state = alive
		p.up = !addrOf(p.theirs).Is4()
	}
	if rails := match(all, proven); len(rails) != 1 || addrOf(rails[0].theirs).Is4() {
		t.Errorf("%d rails", len(rails))
	}
}
