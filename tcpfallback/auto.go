package tcpfallback

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// How auto finds the fastest method: what is sent anyway goes by each in turn for a while.
// A connection has found its speed, and the receiver its own, when beforeTrials bytes
// have gone by the first of them: less than that is no transfer to measure at. Nor is what is over in
// trialsAfter, since trials of what is slower cost a fast transfer some 20 ms; and before that a receiver finds
// out how many lanes of a fast path pay, which would take for a gain of theirs that a slow method's trial has ended. A trial is trialSize
// bytes, of which the first trialSettles don't count: what the method before it sent is
// still under way. Each method has trialRounds, in turn, and the second of its rates counts,
// from the quickest on: whatever else the hosts do makes a method slow, and may do so in
// several of its trials; one trial may be quick because buffers on the way were empty. A method
// is out, from the second round on, when its quickest is clearly less than another's second.
const (
	beforeTrials = 32 << 20
	trialsAfter  = 2 * time.Second
	trialSize    = 12 << 20
	trialSettles = 6 << 20
	trialRounds  = 5
)

// lead is how many times as fast as the first method another must be to be chosen.
const lead = 1.1

// first is the method of what is sent before trials, and after them unless another is
// clearly faster. What is verified the program must read anyhow, and copy takes its digests
// of the very bytes that it sends; of the rest splice leaves nothing to the CPU but the
// packets.
func first(verifying bool) string {
	if verifying {
		return "copy"
	}
	return "splice"
}

// maxDisturbed is how many trials may be cut short by what goes by copy anyhow, packs and
// streams, before auto gives up.
const maxDisturbed = 24

// Choice is the method that auto has chosen, or how far it has come with that. All lanes
// of a session share one. Its zero value has tried nothing.
type Choice struct {
	untried   bool // no trials: it stays as it begins
	mu        sync.Mutex
	begun     bool      // something was sent
	first     string    // method of what is sent before trials; empty when nothing was yet
	start     time.Time // when the first bytes had gone
	ready     int64     // bytes before the first trial
	trying    bool      // trials have begun
	out       []string  // methods that have no more trials
	round     int       // of trials, each method in turn
	turn      int       // whose it is, among those that are not out
	sent      int64     // bytes of the trial
	since     time.Time // the trial counts
	counted   int64     // bytes since then
	disturbed int
	rates     map[string][]float64 // of each trial, bytes a second
	chosen    string               // empty as long as trials go on
}

// trials are in this order. sendfile has none: what it moves splice moves by fewer calls.
func trials() []string { return []string{"copy", "mmap", "splice"} }

// next is the method of the next extent.
func (c *Choice) next(verifying bool) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first == "" {
		c.first = first(verifying)
	}
	switch {
	case c.chosen != "":
		return c.chosen
	case !c.trying:
		return c.first
	}
	return c.racing()[c.turn]
}

// racing are the methods that have trials. c.mu is held.
func (c *Choice) racing() []string {
	return slices.DeleteFunc(trials(), func(m string) bool { return slices.Contains(c.out, m) })
}

// moved says that n bytes have gone by the method that next gave, now.
func (c *Choice) moved(method string, n int, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.chosen != "":
		return
	case !c.trying:
		if c.start.IsZero() {
			c.start = now
		}
		c.ready += int64(n)
		c.trying = c.ready >= beforeTrials && now.Sub(c.start) >= trialsAfter && !c.untried
		return
	case method != c.racing()[c.turn]:
		return // another lane was on its way with it when the trial began
	}
	if c.sent += int64(n); c.sent < trialSettles {
		return
	}
	if c.since.IsZero() {
		c.since = now
		return
	}
	c.counted += int64(n)
	if c.sent >= trialSize {
		c.end(method, now)
	}
}

// end ends a trial, and after the last one chooses.
func (c *Choice) end(method string, now time.Time) {
	if c.rates == nil {
		c.rates = make(map[string][]float64)
	}
	took := max(time.Nanosecond, now.Sub(c.since))
	c.rates[method] = append(c.rates[method], float64(c.counted)/took.Seconds())
	c.again()
	if c.turn++; c.turn < len(c.racing()) {
		return
	}
	c.turn = 0
	if c.round++; c.round > 1 {
		c.drop()
	}
	if c.round < trialRounds && len(c.racing()) > 1 {
		return
	}
	c.chosen = c.first
	for _, m := range trials() {
		if c.rate(m) > lead*c.rate(c.first) && c.rate(m) > c.rate(c.chosen) {
			c.chosen = m
		}
	}
}

// drop drops the methods that can't win any more. c.mu is held.
func (c *Choice) drop() {
	best := 0.0
	for _, m := range trials() {
		best = max(best, c.rate(m))
	}
	for _, m := range c.racing() {
		if lead*slices.Max(c.rates[m]) < best {
			c.out = append(c.out, m)
		}
	}
}

// rate is the second of a method's trials, from the quickest on.
func (c *Choice) rate(method string) float64 {
	r := slices.Sorted(slices.Values(c.rates[method]))
	return r[len(r)-2]
}

func (c *Choice) again() {
	c.sent, c.counted, c.since = 0, 0, time.Time{}
}

// disturb says that something went by copy, since nothing else can move it, or was refused, which
// takes no time: it is no part of a trial, which begins again. What a method leaves to be read and
// written is part of it: that is what one has of the method.
func (c *Choice) disturb() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun = true
	if c.chosen != "" || !c.trying {
		return
	}
	c.again()
	if c.disturbed++; c.disturbed > maxDisturbed {
		c.chosen, c.rates = c.first, nil
	}
}

// String is how the summary names it: the method, and after trials what they gave.
func (c *Choice) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.chosen == "" && c.ready == 0 && c.begun:
		return "copy"
	case c.chosen == "" && c.ready > 0 && !c.trying:
		return c.first
	case c.chosen == "":
		return "auto"
	case c.rates == nil:
		return c.chosen
	}
	unit, per := "GB/s", 1e9
	if c.rate(c.chosen) < 1e9 {
		unit, per = "MB/s", 1e6
	}
	others := slices.DeleteFunc(trials(), func(m string) bool { return m == c.chosen })
	for i, m := range others {
		others[i] = fmt.Sprintf("%s %.1f", m, c.rate(m)/per)
	}
	return fmt.Sprintf("%s (auto: %.1f %s against %s)", c.chosen, c.rate(c.chosen)/per, unit, strings.Join(others, ", "))
}

// autoOut goes by the choice's methods. What one of them keeps (a mapping, which holds on to a
// file that was deleted; a pipe) it keeps no longer than its turn.
type autoOut struct {
	copyOut *copyOut
	choice  *Choice
	methods map[string]method
	last    string
}

func newAutoOut(c *copyOut, choice *Choice) *autoOut {
	return &autoOut{copyOut: c, choice: choice, methods: map[string]method{"copy": c, "mmap": &mmapOut{copyOut: c}, "splice": &spliceOut{copyOut: c}}}
}

func (m *autoOut) name() string { return m.choice.String() }

func (m *autoOut) release() {
	for _, method := range m.methods {
		method.release()
	}
}

func (m *autoOut) answer(conn net.Conn, src *transfer.Source, r wire.Request) (moved bool, err error) {
	if !src.Plain(r) {
		m.choice.disturb()
		return m.copyOut.answer(conn, src, r)
	}
	method := m.choice.next(src.Verifying())
	if m.last != method && m.last != "" {
		m.methods[m.last].release()
	}
	m.last = method
	if moved, err = m.methods[method].answer(conn, src, r); err != nil {
		return moved, err
	}
	if moved {
		m.choice.moved(method, int(r.Length), time.Now())
	} else {
		m.choice.disturb()
	}
	return moved, nil
}
