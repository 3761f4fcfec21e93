package transfer

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestStreamsThatPay: of lanes that a path holds up each by itself there are eight in the end;
// those that share what there is are one again, however often that is tried. What its user says holds.
func TestStreamsThatPay(t *testing.T) {
	const (
		each = 50 * time.Millisecond
		size = 800 * mib // the third time that it is tried is over then
	)
	for name, c := range map[string]struct {
		asked, want int
		shared      bool
		rails, cpus int // of RDMA; 0: it is TCP
	}{
		"each by itself":      {want: 8},
		"together":            {want: 1, shared: true},
		"as many as asked":    {want: 2, asked: 2},
		"one, since asked so": {want: 1, asked: 1},
		"RDMA, one rail":      {want: 8, rails: 1, cpus: 64},
		"RDMA, few CPUs":      {want: 3, rails: 1, cpus: 3},
		"RDMA, no CPU more":   {want: 2, rails: 2, cpus: 1},
		"RDMA, two rails":     {want: 8, rails: 2, cpus: 64},
		"RDMA, shared":        {want: 1, rails: 1, cpus: 64, shared: true},
		"RDMA, two shared":    {want: 2, rails: 2, cpus: 64, shared: true},
		"RDMA, as asked":      {want: 2, rails: 1, cpus: 64, asked: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := make(chan struct{}, 1)
				e := newEngine(t, func(*memAnswer) error {
					if c.shared {
						path <- struct{}{}
						defer func() { <-path }()
					}
					time.Sleep(each)
					return nil
				}, [2]string{"f", ""})
				resize(t, e, size)
				e.Sender.Transport, e.Verify, e.Lanes = TransportTCP, VerifyNone, c.asked
				e.Sink = Discard{}
				if c.rails > 0 {
					e.Sender.Transport = TransportRDMA
					e.lane.paths, e.cpus, e.lane.deaf = []string{"one", "two"}[:c.rails], c.cpus, true
				}
				s, r := e.run(t, t.Context(), t.Context())
				// Those of the try before may have something in flight still.
				if tried := (streamsMore - 1) * c.want; c.shared && c.rails > 0 && e.lane.most > c.want+2*tried {
					t.Errorf("the sender has heard of none of the ends: it had %d lanes at once", e.lane.most)
				}
				for _, end := range []*end{s, r} {
					if end.err != nil || end.Bytes != size || end.Plan.Lanes != c.want {
						t.Errorf("%d bytes by %d lanes, want %d; %v", end.Bytes, end.Plan.Lanes, c.want, end.err)
					}
					for _, p := range end.plans {
						if c.shared && p.Lanes > c.want {
							t.Errorf("lanes that were tried alone are told of: %+v", p)
						}
					}
				}
			})
		})
	}
}

// TestStreamsThatTakeTurns: where a lane writes most of the time, others would wait for the file, but
// not where each has another one.
func TestStreamsThatTakeTurns(t *testing.T) {
	for name, c := range map[string]struct {
		writing      time.Duration // of each 50 ms
		files, lanes int
	}{
		"something else for a third":         {35 * time.Millisecond, 1, streamsMore},
		"something else for a fifth":         {40 * time.Millisecond, 1, 1},
		"one that lanes are not in together": {40 * time.Millisecond, 5, streamsMore},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const size = 320 * mib
				names := [][2]string{{"a", ""}, {"b", ""}, {"c", ""}, {"d", ""}, {"e", ""}}
				e := newEngine(t, slowly, names[:c.files]...)
				roots := e.Source.walk.roots
				for _, path := range roots {
					f, err := os.OpenFile(path, os.O_WRONLY, 0)
					if err == nil {
						err = errors.Join(Allocate(int(f.Fd()), 0, size/int64(c.files)), f.Close()) // what has holes lands by Land
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				e.Source.Close()
				var err error
				if e.Source, err = OpenSource(roots, SourceOptions{}); err != nil {
					t.Fatal(err)
				}
				e.Sender.Transport, e.Verify = TransportTCP, VerifyNone
				var placed atomic.Int64
				tcp := e.Receiver.TCP.(*memory)
				tcp.writing = c.writing
				tcp.place = func(_ context.Context, _ string, file *os.File, x Extent, p []byte) error {
					placed.Add(int64(x.Len))
					_, err := file.WriteAt(p, x.Off)
					return err
				}
				s, r := e.run(t, t.Context(), t.Context())
				if err := errors.Join(s.err, r.err); err != nil || placed.Load() != size || r.Plan.Lanes != c.lanes {
					t.Errorf("%d bytes by %d lanes, want %d; %v", placed.Load(), r.Plan.Lanes, c.lanes, err)
				}
			})
		})
	}
}

// resize gives the source's one file a size.
func resize(t *testing.T, e *engine, size int64) {
	t.Helper()
	path := e.Source.walk.roots[0]
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	src, err := OpenSource([]string{path}, SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e.Source.Close()
	e.Source = src
}

// slowly is how long each lane's answers take by themselves.
func slowly(*memAnswer) error {
	time.Sleep(50 * time.Millisecond)
	return nil
}

// streaming moves a large file over TCP alone, by as many lanes as pay and are not refused.
func streaming(t *testing.T, meddle func(*memAnswer) error, refuse func(string) error) *engine {
	t.Helper()
	e := newEngine(t, meddle, [2]string{"f", ""})
	resize(t, e, 320*mib)
	e.Sender.Transport, e.Verify = TransportTCP, VerifyNone
	e.Sink = Discard{}
	e.Receiver.TCP.(*memory).refuse = refuse
	return e
}

// TestStreamsThatCantBeHad: what there is goes on, and is not doubled again.
func TestStreamsThatCantBeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var opened atomic.Int32
		e := streaming(t, slowly, func(string) error {
			if opened.Add(1) > 2 {
				return errPulled
			}
			return nil
		})
		s, r := e.run(t, t.Context(), t.Context())
		for _, end := range []*end{s, r} {
			if end.err != nil || end.Bytes != 320*mib || end.Plan.Lanes != 2 {
				t.Errorf("%d bytes, %+v; %v", end.Bytes, end.Plan, end.err)
			}
		}
		if n := opened.Load(); n > 12 {
			t.Errorf("%d tries", n)
		}
	})
}

// TestStreamsThatWereTried are not missed: what is told is why it is TCP.
func TestStreamsThatWereTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var opened atomic.Int32
		e := streaming(t, slowly, func(string) error {
			if opened.Add(1) == 3 {
				return errPulled
			}
			return nil
		})
		_, r := e.run(t, t.Context(), t.Context())
		if r.err != nil || opened.Load() < 3 {
			t.Errorf("%d lanes were tried: %v", opened.Load(), r.err)
		}
		for _, p := range r.plans {
			if p.Reason != "the sender was told to use tcp" {
				t.Errorf("%+v", p)
			}
		}
	})
}

// TestLaneBreaksWhileAnotherIsTried: that this one can't be had is no reason to give up, since
// it was asked for before.
func TestLaneBreaksWhileAnotherIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var opened, broken atomic.Int32
		began := time.Now()
		e := streaming(t, func(*memAnswer) error {
			time.Sleep(50 * time.Millisecond)
			if time.Since(began) > 2*time.Second && broken.CompareAndSwap(0, 1) {
				return errPulled
			}
			return nil
		}, func(string) error {
			if opened.Add(1) == 2 {
				time.Sleep(4 * time.Second)
				return errPulled
			}
			return nil
		})
		_, r := e.run(t, t.Context(), t.Context())
		if r.err != nil || broken.Load() != 1 || opened.Load() < 3 || r.Bytes != 320*mib {
			t.Errorf("%d bytes by %d lanes, of which %d broke: %v", r.Bytes, opened.Load(), broken.Load(), r.err)
		}
	})
}

// TestStreamsWaitForALaneThatEnded: no other is ended in its stead, before it is known why.
func TestStreamsWaitForALaneThatEnded(t *testing.T) {
	a, b := new(laneFeed), new(laneFeed)
	k := &keeper{l: new(lanes), tcp: &group{up: []*laneFeed{a, b}, want: 2}, streaming: time.NewTimer(time.Hour)}
	k.tcp.streams = streams{waited: true, since: time.Now().Add(-time.Second), then: seen{extents: -2 * streamsLeast}, rate: 1e12}
	a.gone.Store(true)
	if k.stream(); b.retired.Load() || len(k.tcp.up) != 2 || k.tcp.streams.over() {
		t.Errorf("%d lanes, the other one retired: %v", len(k.tcp.up), b.retired.Load())
	}
}

func TestStreamsLook(t *testing.T) {
	type look struct {
		after time.Duration
		rate  float64 // of what landed since, extents a second
		want  int
		again time.Duration
	}
	// Looks at which less than half a processor is idle: it is a little more at all others.
	busy := map[string][2]int{"no CPU to spare": {0, 8}, "a gain that takes all CPU": {4, 99}}
	writing := map[string][2]int{"no turn at the file to spare": {0, 8}, "a gain that takes the file": {4, 99}}
	during := func(looks [2]int, i int, percent, otherwise time.Duration) time.Duration {
		if i >= looks[0] && i < looks[1] {
			return percent
		}
		return otherwise
	}
	// A round for each of streamsRounds: the fewer are measured, and then the more, once they had
	// four times as long as an extent takes.
	round := func(i int, rate float64, more int, moreRate float64, left int, again time.Duration) []look {
		r := streamsRounds[i]
		return []look{{r.span, rate, more, 4 * time.Second}, {4 * time.Second, rate, more, r.span}, {r.span, moreRate, left, again}}
	}
	const second = time.Second
	begin := []look{{streamsAfter, 2000, 1, 8*second - streamsAfter}, {8*second - streamsAfter, 2000, 1, streamsRounds[0].span}}
	again := func(i, lanes int) look { return look{streamsRounds[i].after, 2000, lanes, streamsRounds[i].span} }
	nothingToSpare := slices.Concat(begin, []look{{streamsRounds[0].span, 2000, 1, streamsRounds[1].after}, again(1, 1),
		{streamsRounds[1].span, 2000, 1, streamsRounds[2].after}, again(2, 1), {streamsRounds[2].span, 2000, 1, streamsRounds[2].after}},
		[]look{again(2, 1)}, round(2, 2000, 4, 7000, 8, 4*second))
	takesAll := slices.Concat(begin, round(0, 2000, 4, 7000, 4, streamsRounds[1].after), []look{again(1, 4)},
		[]look{{streamsRounds[1].span, 7000, 4, streamsRounds[2].after}})
	for name, looks := range map[string][]look{
		"a gain, and later another": slices.Concat(begin, round(0, 2000, 4, 7000, 8, 4*second),
			[]look{{4 * second, 2000, 8, streamsRounds[0].span}, {streamsRounds[0].span, 7500, 4, streamsRounds[1].after}},
			[]look{again(1, 4)}, round(1, 7000, 8, 8100, 8, 0), []look{{time.Hour, 900, 8, 0}}),
		"never a gain": slices.Concat(begin, round(0, 2000, 4, 2200, 1, streamsRounds[1].after),
			[]look{again(1, 1)}, round(1, 2000, 4, 2200, 1, streamsRounds[2].after),
			[]look{again(2, 1)}, round(2, 2000, 4, 2200, 1, 0), []look{{time.Hour, 900, 1, 0}}),
		"a pause is no measurement": slices.Concat(begin, []look{{9 * second, 0, 1, 500 * time.Millisecond}, {time.Hour, 0, 1, 500 * time.Millisecond},
			{second / 2, 2000, 1, streamsRounds[0].span}}, round(0, 2000, 4, 7000, 8, 4*second)),
		"no CPU to spare":              nothingToSpare,
		"no turn at the file to spare": nothingToSpare,
		"a gain that takes all CPU":    takesAll,
		"a gain that takes the file":   takesAll,
		"too little to go by": {
			{streamsAfter, 300, 1, 8*second - streamsAfter}, {8*second - streamsAfter, 300, 1, streamsRounds[0].span},
			{streamsRounds[0].span, 300, 1, streamsRounds[0].span}, {streamsRounds[0].span, 300, 4, 4 * second},
		},
	} {
		var s streams
		now, lanes, landed, see := time.Unix(1, 0), 1, 0.0, seen{}
		if want, again := s.look(now, 1, AutoLanes, seen{}, 0); want != 1 || again != streamsRounds[0].span {
			t.Errorf("%s: %d lanes, again in %v, before anything has come", name, want, again)
		}
		for i, l := range looks {
			now = now.Add(l.after)
			landed += l.rate * l.after.Seconds()
			see.extents, see.bytes = int64(landed), int64(landed)*mib
			see.idle += during(busy[name], i, 45, 55) * l.after / 100
			see.writing += during(writing[name], i, 76, 74) * l.after * time.Duration(lanes) / 100
			want, again := s.look(now, lanes, AutoLanes, see, second)
			if want != l.want || again != l.again {
				t.Errorf("%s, %d: %d lanes, again in %v; want %+v", name, i, want, again, l)
			}
			lanes = want
		}
	}
}

// TestRailThatComesBack carries lanes again, however many the other one has got meanwhile, or had
// before; and what all lanes are lost for at once is looked at again soon.
func TestRailThatComesBack(t *testing.T) {
	for _, c := range []struct {
		cpus  int
		both  bool // rails are cut
		heals time.Duration
		size  int64
	}{{1, false, 5 * time.Second, 2400 * mib}, {8, false, 5 * time.Second, 6400 * mib}, {8, true, time.Second, 3200 * mib}} {
		synctest.Test(t, func(t *testing.T) {
			var cut, healed atomic.Bool
			e := newEngine(t, func(a *memAnswer) error {
				time.Sleep(50 * time.Millisecond)
				if cut.Load() && !healed.Load() && (c.both && a.path == "one" || a.path == "two") {
					return errPulled
				}
				return nil
			}, [2]string{"f", ""})
			resize(t, e, c.size)
			e.Verify, e.Sink, e.cpus = VerifyNone, Discard{}, c.cpus
			e.lane.paths = []string{"one", "two"}
			e.lane.lacks = func() error { // it holds the lock of paths
				switch {
				case healed.Load() || !cut.Load():
					e.lane.paths = []string{"one", "two"}
				case c.both:
					return errPulled
				default:
					e.lane.paths = []string{"one"}
				}
				return nil
			}
			time.AfterFunc(15*time.Second, func() { cut.Store(true) }) // the third try is over then
			time.AfterFunc(15*time.Second+c.heals, func() { healed.Store(true) })
			s, r := e.run(t, t.Context(), t.Context())
			for _, end := range []*end{s, r} {
				if end.err != nil || end.Bytes != c.size || end.Plan.Transport != TransportRDMA || end.Plan.Detail != "one, two" {
					t.Errorf("%+v: %d bytes, %+v; %v", c, end.Bytes, end.Plan, end.err)
				}
			}
		})
	}
}

// TestSpareWhereNothingLands: there is no lock that lanes would wait for.
func TestSpareWhereNothingLands(t *testing.T) {
	discards := Receiver{Sink: Discard{}}
	if before := oneIdle(); discards.spare() < before {
		t.Error("a processor of it is taken to be busy")
	}
}
