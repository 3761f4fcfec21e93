package transfer

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// eachTakes is what an answer costs on every path.
func eachTakes(d time.Duration) map[string]time.Duration {
	return map[string]time.Duration{"one": d, "two": d, TransportTCP: d}
}

// TestLiftedWhenRDMAComes: a session that began on TCP goes on looking, and is lifted when
// there is a path; unless there never will be.
func TestLiftedWhenRDMAComes(t *testing.T) {
	for _, c := range []struct {
		name   string
		why    error
		lifted bool
	}{
		{"a cable that was not plugged in", errors.New("rxe_a port 1 is DOWN"), true},
		{"no library", fmt.Errorf("no libibverbs%w", ErrFinal), false},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := rails(t, 1, 120, eachTakes(100*time.Millisecond), nil) // more over TCP would be done before
			began := time.Now()
			looked := 0
			e.lane.lacks = func() error {
				if looked++; time.Since(began) < 3*time.Second {
					return c.why
				}
				return nil
			}
			s, r, carried := e.runWhole(t)
			want := TransportTCP
			if c.lifted {
				want = TransportRDMA
			}
			for _, end := range []*end{s, r} {
				if p := end.Plan; p.Transport != want || c.lifted && !strings.Contains(p.Reason, "back on rdma after: rxe_a port 1 is DOWN") {
					t.Errorf("%s: %+v", c.name, p)
				}
				if end.plans[0].Transport != TransportTCP {
					t.Errorf("%s: began with %+v", c.name, end.plans[0])
				}
			}
			if carried[TransportTCP] == 0 || (carried["one"] > 0) != c.lifted {
				t.Errorf("%s: carried %v", c.name, carried)
			}
			if !c.lifted && looked != 1 {
				t.Errorf("%s: looked for paths %d times", c.name, looked)
			}
		})
	}
}

// TestNewRailIsTaken: a path that comes in the middle carries lanes too, unless the user
// said how many there shall be.
func TestNewRailIsTaken(t *testing.T) {
	for _, lanes := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			e := rails(t, lanes, 120, eachTakes(500*time.Millisecond), nil)
			began := time.Now()
			e.lane.paths = []string{"one"}
			e.lane.lacks = func() error { // called with the lock held
				if time.Since(began) > 20*time.Second {
					e.lane.paths = []string{"one", "two"}
				}
				return nil
			}
			_, r, carried := e.runWhole(t)
			if (carried["two"] > 0) != (lanes == 0) || r.Plan.Reason != "" {
				t.Errorf("--lanes %d: carried %v, %+v", lanes, carried, r.Plan)
			}
		})
	}
}

// TestGoneRailIsLeft: a lane that breaks on a path which is not found any more is opened
// on another.
func TestGoneRailIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		broken := 0
		e := rails(t, 2, 120, eachTakes(100*time.Millisecond), func(a *memAnswer) error {
			mu.Lock()
			defer mu.Unlock()
			if a.path == "two" && a.nth > 3 {
				broken++
				return errPulled
			}
			return nil
		})
		e.lane.lacks = func() error {
			mu.Lock()
			defer mu.Unlock()
			if broken > 0 {
				e.lane.paths = []string{"one"}
			}
			return nil
		}
		_, r, carried := e.runWhole(t)
		if broken > 2 || r.Plan.Transport != TransportRDMA || carried["one"] == 0 {
			t.Errorf("lanes broke %d times; %+v, carried %v", broken, r.Plan, carried)
		}
	})
}

// pathServer is a serving end that counts what it holds.
type pathServer struct {
	*memory
	mu    sync.Mutex
	ends  map[uint32]bool
	hold  chan struct{} // Probe waits for its end
	asked int
}

func (p *pathServer) Offer(h *wire.Hello) { h.RDMA = &wire.Offer{} }

func (p *pathServer) Reoffer() *wire.Offer {
	<-p.hold
	p.asked++
	return &wire.Offer{Reason: "none"}
}

func (p *pathServer) Probe(m *wire.ProbePath) *wire.PathAnswer {
	<-p.hold
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends[m.ID] = true
	return &wire.PathAnswer{ID: m.ID, QP: &wire.QueuePair{MTU: 1}}
}

func (p *pathServer) EndProbes(below uint32) (seen []uint32) {
	<-p.hold
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.ends {
		if id < below {
			delete(p.ends, id)
			seen = append(seen, id)
		}
	}
	return seen
}

// TestProbesAreBounded: a receiver may have so many probes at once, ends them, and may
// have as many again; each once.
func TestProbesAreBounded(t *testing.T) {
	probe := func(id uint32) wire.Message { return &wire.ProbePath{ID: id, QP: wire.QueuePair{MTU: 1}} }
	many := func(from, n uint32) (list []wire.Message) {
		for id := range n {
			list = append(list, probe(from+id))
		}
		return list
	}
	for _, c := range []struct {
		name string
		say  []wire.Message
		ok   bool
	}{
		{"as many as there may be", many(0, wire.MaxProbes), true},
		{"one more", many(0, wire.MaxProbes+1), false},
		{"one twice", []wire.Message{probe(1), probe(1)}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			server := &pathServer{ends: make(map[uint32]bool), hold: make(chan struct{})}
			bad := againstSenderOver(t, server)
			bad.say(welcome)
			bad.say(c.say...)
			synctest.Wait()
			close(server.hold)
			synctest.Wait()
			if c.ok {
				bad.say(&wire.ProbesOver{Below: wire.MaxProbes})
				if seen := await[*wire.ProbesSeen](bad.hostile); len(seen.IDs) != wire.MaxProbes {
					t.Errorf("%s: %d probes were seen", c.name, len(seen.IDs))
				}
				bad.say(many(0, 10)...) // they were on their way, and count for nothing
				for range 10 {
					await[*wire.PathAnswer](bad.hostile)
				}
				bad.say(many(wire.MaxProbes, wire.MaxProbes)...)
				for range wire.MaxProbes {
					await[*wire.PathAnswer](bad.hostile)
				}
			}
			end := bad.finish()
			if errors.Is(end.err, wire.ErrMalformed) == c.ok {
				t.Errorf("%s: %v", c.name, end.err)
			}
			if len(server.ends) > 0 {
				t.Errorf("%s: %d ends of probes are left", c.name, len(server.ends))
			}
		})
	}
}

// TestQuestionsAreJoined: a receiver that asks the same again and again, while what
// answers hangs, has one goroutine at the sender and not one a question.
func TestQuestionsAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &pathServer{ends: make(map[uint32]bool), hold: make(chan struct{})}
		bad := againstSenderOver(t, server)
		bad.say(welcome)
		before := runtime.NumGoroutine()
		for n := range uint32(500) {
			bad.say(&wire.AskOffer{}, &wire.ProbesOver{Below: n})
		}
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > 2 {
			t.Errorf("%d goroutines answer", n)
		}
		close(server.hold)
		for {
			if seen := await[*wire.ProbesSeen](bad.hostile); seen.Below == 499 {
				break
			}
		}
		bad.finish()
		if server.asked != 1 {
			t.Errorf("%d offers were made", server.asked)
		}
	})
}

// TestProbesThatHang: what an earlier search left hanging in the kernel is no fault of the
// next one's.
func TestProbesThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &pathServer{ends: make(map[uint32]bool), hold: make(chan struct{})}
		bad := againstSenderOver(t, server)
		bad.say(welcome)
		refused := 0
		for round := range uint32(4) {
			for id := range uint32(wire.MaxProbes) {
				bad.say(&wire.ProbePath{ID: round*wire.MaxProbes + id, QP: wire.QueuePair{MTU: 1}})
			}
			if round*wire.MaxProbes >= maxOpening {
				for range wire.MaxProbes {
					if a := await[*wire.PathAnswer](bad.hostile); strings.Contains(a.Reason, "hang") {
						refused++
					}
				}
			}
			bad.say(&wire.ProbesOver{Below: (round + 1) * wire.MaxProbes})
			synctest.Wait()
		}
		close(server.hold)
		if end := bad.finish(); errors.Is(end.err, wire.ErrMalformed) {
			t.Error(end.err)
		}
		if refused != 2*wire.MaxProbes {
			t.Errorf("%d probes were refused", refused)
		}
	})
}

// TestPathsSessionsTakeNothingElse: who asks for paths alone can't send entries, for which
// there is no destination.
func TestPathsSessionsTakeNothingElse(t *testing.T) {
	for _, m := range []wire.Message{entry(0, "a", 1), &wire.ManifestEnd{}, &wire.Landed{}, vouch(0), &wire.LaneAnswer{}, &wire.Measure{Size: 1, Depth: 1, Extents: 1, Nanoseconds: 1}} {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine(t, nil, [2]string{"a", "hello"})
			a, b := sessions(t)
			bad := newHostile(t, a)
			done := make(chan error, 1)
			go func() {
				e.Receiver.Observer = new(end)
				_, err := e.Receiver.Receive(t.Context(), b)
				done <- err
			}()
			h := hello(VerifyBLAKE3)
			h.PathsOnly = true
			bad.say(h, m)
			synctest.Wait()
			bad.s.Close()
			if err := <-done; !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("%T: %v", m, err)
			}
		})
	}
}

// TestRequiredRDMAEndsInTime: when all lanes are lost, and looking for a path hangs or says
// that there will be none, the transfer ends with its own status, and when it must.
func TestRequiredRDMAEndsInTime(t *testing.T) {
	for _, c := range []struct {
		name  string
		lacks func() error
		words string
	}{
		{"final", func() error { return fmt.Errorf("the library is gone%w", ErrFinal) }, "the library is gone"},
		{"passing", func() error { return errors.New("port 1 is DOWN") }, "port 1 is DOWN"},
		{"hangs", func() error { time.Sleep(time.Hour); return nil }, "a cable was pulled"},
	} {
		synctest.Test(t, func(t *testing.T) {
			broken := false
			e := rails(t, 1, 60, eachTakes(100*time.Millisecond), func(a *memAnswer) error {
				if a.nth > 3 {
					broken = true
					return errPulled
				}
				return nil
			})
			e.Sender.Transport = TransportRDMA
			e.lane.refuse = func(string) error {
				if broken {
					return errPulled
				}
				return nil
			}
			e.lane.lacks = func() error {
				if broken {
					return c.lacks()
				}
				return nil
			}
			began := time.Now()
			s, r := e.run(t, t.Context(), t.Context())
			took := time.Since(began)
			if c.name == "hangs" {
				took -= time.Hour // Receive waits for what it began
			}
			for _, end := range []*end{s, r} {
				wantCode(t, end.err, CodeNoRDMA, "RDMA is required and was lost")
			}
			wantCode(t, r.err, CodeNoRDMA, c.words)
			if took > mercy+5*time.Second {
				t.Errorf("%s: it took %v", c.name, took)
			}
		})
	}
}

// TestProbesOfWhatWasNotOffered: a sender that has no RDMA, or was told not to use it, is
// asked for none of it.
func TestProbesOfWhatWasNotOffered(t *testing.T) {
	for _, m := range []wire.Message{&wire.ProbePath{QP: wire.QueuePair{MTU: 1}}, &wire.ProbesOver{}, &wire.AskOffer{}} {
		synctest.Test(t, func(t *testing.T) {
			bad := againstSender(t, t.Context(), TransportTCP)
			bad.say(welcome, m)
			if end := bad.finish(); !errors.Is(end.err, wire.ErrMalformed) {
				t.Errorf("%T: %v", m, end.err)
			}
		})
	}
}

// TestAnswersThatNobodyWaitsFor: a sender may say what it likes about paths; who does not
// ask is not troubled.
func TestAnswersThatNobodyWaitsFor(t *testing.T) {
	c := newScout(nil)
	for range 3 {
		for _, m := range []wire.Message{&wire.PathAnswer{ID: 7}, &wire.Offer{}, &wire.ProbesSeen{IDs: []uint32{1}}} {
			if !c.hear(m) {
				t.Errorf("%T is not about paths", m)
			}
		}
	}
	if c.hear(&wire.Ping{}) {
		t.Error("Ping is about paths")
	}
}

func TestReportsAreOfBothSides(t *testing.T) {
	m := &wire.Paths{
		Rows:    []wire.PathRow{{Receiver: wire.Candidate{Device: "r"}, Sender: wire.Candidate{Device: "s"}, State: wire.PathChosen, MTU: 5, Reason: "x"}},
		Refused: []wire.Refusal{{Device: "r2"}},
	}
	offer := &wire.Offer{Refused: []wire.Refusal{{Device: "s2"}}}
	for receiver, want := range map[bool]string{true: "r s r2 s2", false: "s r s2 r2"} {
		r := newPathReport(m, offer, receiver)
		got := strings.Join([]string{r.Rows[0].Here.Device, r.Rows[0].There.Device, r.Here[0].Device, r.There[0].Device}, " ")
		if got != want || r.Rows[0].MTU != 4096 {
			t.Errorf("receiver %v: %s, %+v", receiver, got, r.Rows[0])
		}
	}
}

// TestAddressesAreFoundByNumber, of the newest offer: an earlier one may have had others.
func TestAddressesAreFoundByNumber(t *testing.T) {
	class := uint8(106)
	g := &guide{offer: &wire.Offer{Candidates: []wire.Candidate{{Number: 3, Device: "a"}, {Number: 5, Device: "b"}}, Fabric: wire.Fabric{TrafficClass: &class}}}
	for n, want := range map[uint16]string{3: "a", 5: "b", 0: "", 1: "", 6: ""} {
		c, f, err := g.candidate(n)
		if (want == "") != (err != nil) || err == nil && (c.Device != want || f.TrafficClass != &class) {
			t.Errorf("%d: %+v, %v", n, c, err)
		}
	}
	if _, _, err := new(guide).candidate(0); !errors.Is(err, wire.ErrMalformed) {
		t.Error(err)
	}
}
