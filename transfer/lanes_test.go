package transfer

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lukechampine.com/blake3"
)

var errPulled = errors.New("a cable was pulled")

// rails sets up an engine of several lanes over RDMA's paths "one" and "two". each
// is what an answer on a path costs, by the bubble's clock.
func rails(t *testing.T, lanes, extents int, each map[string]time.Duration, meddle func(*memAnswer) error) *engine {
	e := newEngine(t, func(a *memAnswer) error {
		time.Sleep(each[a.path])
		if meddle != nil {
			return meddle(a)
		}
		return nil
	}, [2]string{"f", random(extents * mib)})
	e.lane.paths = []string{"one", "two"}
	e.Lanes = lanes
	return e
}

// runWhole runs a transfer that must land whole, each byte once, and gives how much
// each path carried.
func (e *engine) runWhole(t *testing.T) (s, r *end, carried map[string]int64) {
	t.Helper()
	st, err := os.Stat(e.Source.walk.roots[0])
	if err != nil {
		t.Fatal(err)
	}
	size := st.Size()
	s, r = e.run(t, t.Context(), t.Context())
	for _, end := range []*end{s, r} {
		if end.err != nil || end.Bytes != size {
			t.Errorf("%d bytes of %d, %v", end.Bytes, size, end.err)
		}
		carried = make(map[string]int64)
		var sum int64
		for _, l := range end.Result.Lanes {
			carried[l.Detail] += l.Bytes
			sum += l.Bytes
		}
		if sum != size || e.Receiver.Progress.Moved.Load() != size {
			t.Errorf("the lanes carried %d bytes of %d, and %d were counted", sum, size, e.Receiver.Progress.Moved.Load())
		}
	}
	return s, r, carried
}

var even = map[string]time.Duration{"one": 10 * time.Millisecond, "two": 10 * time.Millisecond, TransportTCP: 10 * time.Millisecond}

func TestLanesAreSpreadOverThePaths(t *testing.T) {
	for _, c := range []struct{ asked, want, paths int }{{0, 2, 2}, {1, 1, 1}, {2, 2, 2}, {5, 5, 2}} {
		synctest.Test(t, func(t *testing.T) {
			// More than five lanes hold at once, so that each gets some, whoever is first.
			e := rails(t, c.asked, 6*DefaultDepth, even, nil)
			s, r, carried := e.runWhole(t)
			for _, end := range []*end{s, r} {
				if p := end.Plan; p.Lanes != c.want || p.Reason != "" || len(strings.Split(p.Detail, ", ")) != c.paths {
					t.Errorf("--lanes %d: %+v", c.asked, p)
				}
			}
			if len(carried) != c.paths || len(r.Result.Lanes) != c.want {
				t.Errorf("--lanes %d: carried %v by %d lanes", c.asked, carried, len(r.Result.Lanes))
			}
		})
	}
}

// TestPathsThatAreWorthSeveralLanes get them, where nobody says how many, and what can't be had
// of those is not missed; nor is it asked for again soon.
func TestPathsThatAreWorthSeveralLanes(t *testing.T) {
	for _, c := range []struct {
		asked, refused int // lanes of path "one", from the second on
		want           map[string]int
	}{
		{0, 0, map[string]int{"one": 2, "two": 1}},
		{0, 1, map[string]int{"one": 1, "two": 1}},
		{6, 0, map[string]int{"one": 4, "two": 2}},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := rails(t, c.asked, 8*DefaultDepth, even, nil)
			e.lane.paths = []string{"one", "one", "two"}
			var opened atomic.Int32
			e.lane.refuse = func(path string) error {
				if path == "one" {
					if n := int(opened.Add(1)); n > 1 && n <= 1+c.refused {
						return errPulled
					}
				}
				return nil
			}
			_, r, _ := e.runWhole(t)
			got := make(map[string]int)
			for _, l := range r.Result.Lanes {
				got[l.Detail]++
			}
			if !maps.Equal(got, c.want) || r.Plan.Reason != "" {
				t.Errorf("%+v: lanes %v, %q", c, got, r.Plan.Reason)
			}
		})
	}
}

func TestTCPTakesSeveralLanesWhenTold(t *testing.T) {
	for asked, want := range map[int]int{0: 1, 3: 3} {
		synctest.Test(t, func(t *testing.T) {
			e := rails(t, asked, streamsLeast, even, nil) // too few to find out whether more pay
			e.Sender.Transport = TransportTCP
			if _, r, _ := e.runWhole(t); r.Plan.Transport != TransportTCP || r.Plan.Lanes != want {
				t.Errorf("%+v", r.Plan)
			}
		})
	}
}

// TestSlowLaneTakesFewer, and does not hold up the end: what it has then is asked
// for again.
func TestSlowLaneTakesFewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		each := map[string]time.Duration{"one": 10 * time.Millisecond, "two": time.Second}
		_, r, carried := rails(t, 2, 64, each, nil).runWhole(t)
		if carried["two"]*8 > carried["one"] {
			t.Errorf("carried %v", carried)
		}
		if r.Elapsed > 5*time.Second { // sixteen that wait for the slow one take 16
			t.Errorf("it took %v", r.Elapsed)
		}
	})
}

// TestLaneOfHalfTheSpeed has its last extents taken over, too, though it is not silent.
func TestLaneOfHalfTheSpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		each := map[string]time.Duration{"one": 100 * time.Millisecond, "two": 200 * time.Millisecond}
		_, r, _ := rails(t, 2, 64, each, nil).runWhole(t)
		if r.Elapsed > 5*time.Second { // both together take 4.3 at the least
			t.Errorf("it took %v", r.Elapsed)
		}
	})
}

// TestHungLaneHoldsNothingUp, long before it counts as stalled.
func TestHungLaneHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, r, _ := rails(t, 2, 64, even, func(a *memAnswer) error {
			if a.path == "two" && a.nth >= 3 {
				return errLost
			}
			return nil
		}).runWhole(t)
		if r.Elapsed > 5*time.Second {
			t.Errorf("it took %v", r.Elapsed)
		}
	})
}

// TestExtentOfTwoLanesLandsOnce, and goes back when both have lost it.
func TestExtentOfTwoLanesLandsOnce(t *testing.T) {
	const answered, lost = true, false
	for _, c := range []struct {
		slow, quick bool // what becomes of it on each lane, the slow one first
		lands, back int
	}{
		{answered, answered, 1, 0},
		{answered, lost, 1, 0},
		{lost, answered, 1, 0},
		{lost, lost, 0, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := new(lanes)
			l.init(&pull{sched: newScheduler(mib)})
			slow, quick := &laneFeed{l: l, id: 1}, &laneFeed{l: l, id: 2}
			l.up[1], l.up[2] = slow, quick
			e := Extent{Len: mib}
			slow.take(e, nil)
			if _, ok := quick.TryNext(); ok {
				t.Error("asked for again at once")
			}
			time.Sleep(2*unknownTime + 1)
			if got, ok := quick.TryNext(); !ok || got != e {
				t.Errorf("took over %v, %v", got, ok)
			}
			if e, ok := (&laneFeed{l: l, id: 3}).TryNext(); ok {
				t.Errorf("a third lane took over %v", e)
			}
			lands, back := 0, 0
			for f, answered := range map[*laneFeed]bool{slow: c.slow, quick: c.quick} {
				if answered && f.untake(e) {
					lands++
				}
				back += len(f.rest())
			}
			if lands != c.lands || back != c.back {
				t.Errorf("%+v: landed %d times, went back %d times", c, lands, back)
			}
		})
	}
}

// TestLaneThatCannotBeOpenedIsNamed, and the others go on.
func TestLaneThatCannotBeOpenedIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rails(t, 2, 40, even, nil)
		e.lane.refuse = func(path string) error {
			if path == "two" {
				return errPulled
			}
			return nil
		}
		s, r, _ := e.runWhole(t)
		for _, end := range []*end{s, r} {
			if p := end.Plan; p.Transport != TransportRDMA || p.Lanes != 1 || !strings.Contains(p.Reason, "1 of 2 rdma lanes can't be opened: a cable was pulled") {
				t.Errorf("%+v", p)
			}
		}
	})
}

// outage breaks RDMA's lanes on some paths from the nth answer on, and keeps them
// from coming up until it has lasted for a while.
type outage struct {
	paths string
	nth   int
	lasts time.Duration

	mu    sync.Mutex
	began time.Time
	over  bool
}

func (o *outage) meddle(a *memAnswer) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !strings.Contains(o.paths, a.path) || o.over || a.nth < o.nth && o.began.IsZero() {
		return nil
	}
	if o.began.IsZero() {
		o.began = time.Now()
	}
	return errPulled
}

func (o *outage) refuse(path string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over = o.over || !o.began.IsZero() && time.Since(o.began) > o.lasts; o.over || o.began.IsZero() || !strings.Contains(o.paths, path) {
		return nil
	}
	return errPulled
}

func TestLostLaneIsOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outage{paths: "two", nth: 3, lasts: 3 * time.Second}
		each := map[string]time.Duration{"one": 400 * time.Millisecond, "two": 400 * time.Millisecond}
		e := rails(t, 2, 40, each, o.meddle)
		e.lane.refuse = o.refuse
		_, r, carried := e.runWhole(t)
		var seen []string
		for _, p := range r.plans {
			seen = append(seen, fmt.Sprint(p.Lanes))
		}
		if got := strings.Join(seen, " "); got != "1 2 1 2" || !strings.Contains(r.Plan.Reason, "lane lost") || carried["two"] < 5*mib {
			t.Errorf("lanes %s; %+v; carried %v", got, r.Plan, carried)
		}
	})
}

// TestIdleRailIsTakenAtOnce by the only lane, when its own rail is lost.
func TestIdleRailIsTakenAtOnce(t *testing.T) {
	for _, transport := range []string{TransportAuto, TransportRDMA} {
		synctest.Test(t, func(t *testing.T) {
			o := &outage{paths: "one", nth: 3, lasts: time.Hour}
			e := rails(t, 1, 40, even, o.meddle)
			e.lane.refuse = o.refuse
			e.Sender.Transport = transport
			_, r, carried := e.runWhole(t)
			if carried["one"] != 3*mib || r.Elapsed > firstRetry {
				t.Errorf("%v; carried %v", r.Elapsed, carried)
			}
			if transport == TransportRDMA && carried["two"] != 37*mib {
				t.Errorf("carried %v", carried)
			}
		})
	}
}

// TestBackOnRDMA: all its lanes are lost, TCP goes on, by one and by three that are tried, and
// none of them takes more when RDMA answers again.
func TestBackOnRDMA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outage{paths: "one two", nth: 3, lasts: 25 * time.Second}
		each := map[string]time.Duration{"one": 500 * time.Millisecond, "two": 500 * time.Millisecond, TransportTCP: 600 * time.Millisecond}
		late := 0 // answers of TCP
		e := rails(t, 0, 160, each, func(a *memAnswer) error {
			if a.path != TransportTCP {
				return o.meddle(a)
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.over {
				late++
			}
			return nil
		})
		e.lane.refuse = o.refuse
		s, r, carried := e.runWhole(t)
		for _, end := range []*end{s, r} {
			var seen []string
			for _, p := range end.plans {
				seen = append(seen, fmt.Sprint(p.Transport, p.Lanes))
			}
			if got := strings.Join(seen, " "); got != "rdma1 rdma2 rdma1 tcp1 rdma1 rdma2" {
				t.Errorf("plans: %s", got)
			}
			if p := end.Plan; !strings.HasPrefix(p.Reason, "back on rdma after: rdma lane lost: ") {
				t.Errorf("%+v", p)
			}
		}
		tcp := 0
		for _, l := range r.Result.Lanes {
			if l.Transport == TransportTCP {
				tcp++
			}
		}
		if late > 4*DefaultDepth || tcp != 4 {
			t.Errorf("%d lanes of TCP answered %d requests after RDMA was back; carried %v", tcp, late, carried)
		}
	})
}

// TestRequiredRDMAIsOpenedAgain, when that helps, for a while.
func TestRequiredRDMAIsOpenedAgain(t *testing.T) {
	for lasts, code := range map[time.Duration]Code{4 * time.Second: CodeOK, time.Hour: CodeNoRDMA} {
		synctest.Test(t, func(t *testing.T) {
			o := &outage{paths: "one two", nth: 3, lasts: lasts}
			e := rails(t, 2, 64, even, o.meddle)
			e.lane.refuse = o.refuse
			e.Sender.Transport = TransportRDMA
			began := time.Now()
			s, r := e.run(t, t.Context(), t.Context())
			if CodeOf(s.err) != code || CodeOf(r.err) != code {
				t.Errorf("%v: %v, %v", lasts, s.err, r.err)
			}
			if took := time.Since(began); took > mercy+5*time.Second {
				t.Errorf("it took %v", took)
			}
			if code != CodeOK {
				wantCode(t, r.err, code, "lost", "a cable was pulled")
				wantFiles(t, e.dir, nil)
			}
		})
	}
}

// TestLanesOfAllFates plays many transfers whose lanes are slow, hang, break and
// don't come up, by a seed. Either all lands as it was, or both ends say why not
// with one code; nothing hangs, which the bubble would see.
func TestLanesOfAllFates(t *testing.T) {
	whole := 0
	const seeds = 60
	content := random(8 * mib)
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			dice := rand.New(rand.NewPCG(seed, 0))
			roll := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return dice.IntN(n)
			}
			stuck := make(map[uint32]bool)
			badness := 20 + roll(200) // one answer in so many is a misfortune
			meddle := func(a *memAnswer) error {
				time.Sleep(time.Duration(roll(100)) * time.Millisecond)
				misfortune := roll(badness)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case stuck[a.lane], misfortune == 0:
					stuck[a.lane] = true
					return errLost
				case misfortune == 1:
					return errPulled
				}
				return nil
			}
			var files [][2]string
			for i := range 1 + roll(6) {
				files = append(files, [2]string{fmt.Sprint(i), content[roll(mib):][:roll(7*mib)]})
			}
			e := newEngine(t, meddle, files...)
			e.Sink = Discard{}
			e.lane.paths, e.cpus = []string{"one", "two", "one", "three"}[:1+roll(4)], 1+roll(8)
			e.Lanes = roll(9)
			e.Sender.Transport = []string{TransportAuto, TransportAuto, TransportRDMA, TransportTCP}[roll(4)]
			e.lane.refuse = func(string) error {
				if roll(3) == 0 {
					return errPulled
				}
				return nil
			}
			s, r := e.run(t, t.Context(), t.Context())
			switch code := CodeOf(r.err); {
			case code != CodeOf(s.err) || code != CodeOK && code != CodeConnect && code != CodeNoRDMA:
				t.Errorf("seed %d: %v, %v", seed, s.err, r.err)
			case code == CodeOK:
				whole++
				if moved := e.Receiver.Progress.Moved.Load(); moved != r.Bytes {
					t.Errorf("seed %d: %d bytes landed of %d", seed, moved, r.Bytes)
				}
				for _, f := range r.files {
					var i int
					fmt.Sscan(f.Path, &i)
					if want := Digest(blake3.Sum256([]byte(files[i][1]))); f.Digest == nil || *f.Digest != want {
						t.Errorf("seed %d: %s is %x, want %x", seed, f.Path, f.Digest, want)
					}
				}
			}
		})
	}
	if whole < seeds/2 {
		t.Errorf("%d of %d transfers came through", whole, seeds)
	}
	t.Logf("%d of %d transfers came through", whole, seeds)
}
