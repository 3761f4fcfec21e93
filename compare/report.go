package compare

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/internal/median"
)

// Schema is the version of the report (docs/compare.schema.json).
const Schema = 1

// Report is what [Run] found. Rates are bytes a second, times are seconds.
type Report struct {
	Schema     int        `json:"schema"`
	Complete   bool       `json:"complete"`
	Reason     string     `json:"reason,omitempty"` // why it is not complete
	Peer       string     `json:"peer"`             // the receiver's address
	Started    time.Time  `json:"started"`
	Host       Host       `json:"host"`
	Rounds     int        `json:"rounds"`               // that were finished
	Depth      int        `json:"depth"`                // requests in flight where bandwidth was measured
	Duration   float64    `json:"duration_seconds"`     // of each measurement
	Soft       bool       `json:"soft"`                 // RDMA was emulated (rdma_rxe): says nothing of hardware
	Cells      []Cell     `json:"cells"`                // by size, then method
	Peers      []PeerCell `json:"peers,omitempty"`      // by size, then program
	Normalised []string   `json:"normalised,omitempty"` // what was done to the peers' figures
	Skipped    []Skipped  `json:"skipped,omitempty"`
	Hardware   *Hardware  `json:"hardware,omitempty"`       // of the host that asked
	There      *Hardware  `json:"hardware_there,omitempty"` // of the receiver's, as that tells it
	Verdict    string     `json:"verdict"`
}

// Host is the one that asked.
type Host struct {
	Name   string `json:"name"`
	Kernel string `json:"kernel"`
	CPUs   int    `json:"cpus"`
}

// Skipped is a method, or somebody else's program, that could not be measured, or not to
// the end.
type Skipped struct {
	Method string `json:"method"`
	Size   int    `json:"size_bytes,omitempty"` // alone; 0: all of them
	Reason string `json:"reason"`
}

// name is the method's, and the size where it is that alone.
func (s Skipped) name() string {
	if s.Size > 0 {
		return s.Method + " at " + Size(s.Size)
	}
	return s.Method
}

// Cell is one method at one size.
type Cell struct {
	Transport string       `json:"transport"`
	Method    string       `json:"method"`
	Size      int          `json:"size_bytes"` // bytes of each extent
	Here      string       `json:"here"`       // what the ends of the lane ran on
	There     string       `json:"there"`
	Rounds    int          `json:"rounds"`                 // that it has all figures of
	Rates     []float64    `json:"rates_bytes_per_second"` // by round
	Rate      Interval     `json:"rate_bytes_per_second"`
	Messages  float64      `json:"messages_per_second"` // extents, by the median rate
	Trip      Interval     `json:"round_trip_seconds"`  // of one request alone: medians of the rounds
	Alone     Distribution `json:"round_trips"`         // of one request alone, of all rounds together
	Loaded    Distribution `json:"round_trips_loaded"`  // with Depth in flight
	Open      *OpenLoop    `json:"open_loop,omitempty"`
	CPU       CPUs         `json:"cpu_seconds_per_gigabyte"`
	Memory    Memories     `json:"memory_bytes"` // where bandwidth was measured
	Work      *Works       `json:"work_per_gib,omitempty"`
	Datagrams *Datagrams   `json:"datagrams,omitempty"` // of UDP

	alone, loaded, open *hdrhistogram.Histogram
	trips               []float64 // median of each round
}

// Datagrams are those of all rounds. What is lost was asked for again: it shows in round
// trips, too.
type Datagrams struct {
	Asked int64 `json:"asked"`
	Lost  int64 `json:"lost"` // did not come in time
}

// name is the method's full one.
func (c *Cell) name() string { return c.Transport + " " + c.Method }

// OpenLoop is what round trips take when requests are due at times of their own, counted
// from then: what holds one up holds up those behind it too, and shows in all of them.
type OpenLoop struct {
	PerSecond float64      `json:"due_per_second"`
	Trips     Distribution `json:"round_trips"`
}

// Memories are what the processes of both ends had at the most.
type Memories struct {
	Here  Memory `json:"here"`
	There Memory `json:"there"`
}

// Memory is what a process has, bytes.
type Memory struct {
	Anonymous int64 `json:"anonymous"` // resident, and of no file
	Pinned    int64 `json:"pinned"`    // that devices hold
	Peak      int64 `json:"peak"`      // resident since it began, files' pages too
}

// Distribution is of times, in seconds.
type Distribution struct {
	Count       int64        `json:"count"`
	Percentiles []Percentile `json:"percentiles,omitempty"`
}

// Percentile is a time that so many of a hundred did not exceed.
type Percentile struct {
	Percent float64 `json:"percent"`
	Seconds float64 `json:"seconds"`
}

// CPUs is what processors spent, seconds a gigabyte (10⁹ bytes).
type CPUs struct {
	Here  CPU `json:"here"`
	There CPU `json:"there"`
}

// CPU is of one end. Host is whatever the host was busy with, the kernel's threads and
// interrupts too, and other programs.
type CPU struct {
	User   float64 `json:"user"`
	System float64 `json:"system"`
	Host   float64 `json:"host"`
	// SoftIRQ is the part of Host that served software interrupts.
	SoftIRQ float64 `json:"softirq"`
}

// process is what the process is charged with.
func (c CPU) process() float64 { return c.User + c.System }

// measured says whether there are figures of both hosts as a whole.
func (c CPUs) measured() bool { return c.Here.Host > 0 && c.There.Host > 0 }

func newReport(o Options) *Report {
	name, _ := os.Hostname() // the report says the rest
	var u unix.Utsname
	_ = unix.Uname(&u) // EFAULT is all there is
	return &Report{
		Schema:   Schema,
		Started:  time.Now().UTC().Truncate(time.Second),
		Host:     Host{name, unix.ByteSliceToString(u.Release[:]), runtime.NumCPU()},
		Depth:    o.Depth,
		Duration: o.Duration.Seconds(),
		Cells:    []Cell{},
	}
}

// soft reports whether what ends say of themselves names a device that is a program of its host.
func soft(details string) bool {
	return strings.Contains(details, "rxe") || strings.Contains(details, "(software)")
}

// errUntimed is why there is no cell where nothing failed.
var errUntimed = errors.New("so slow that no round trip was over in the time of a measurement")

// skipUntimed leaves out, with that reason, what was measured in every round and has no round
// trip: of a comparison, for [Bench] measures bandwidth without them.
func (run *run) skipUntimed() {
	for _, size := range run.o.Sizes {
		for _, m := range run.o.Methods {
			key := cellKey{m.String(), size}
			if s := run.all[key]; !run.skips(key.method, size) && (s == nil || len(s.trips) == 0) {
				run.skipped[key] = errUntimed
			}
		}
	}
}

// finish makes cells of samples.
func (run *run) finish(r *Report, err error) {
	for _, size := range run.o.Sizes {
		for _, m := range run.o.Methods {
			s := run.all[cellKey{m.String(), size}]
			if s == nil || len(s.rates) == 0 || len(s.trips) == 0 {
				continue
			}
			c := Cell{Transport: m.Transport, Method: m.Name, Size: size, Here: s.local, There: s.remote, Rounds: min(len(s.rates), len(s.trips)), Rates: s.rates,
				Rate: intervalOf(s.rates), Trip: intervalOf(s.trips), Alone: distribution(s.alone), Loaded: distribution(s.loaded), CPU: costOf(s.cost),
				alone: s.alone, loaded: s.loaded, open: s.open, trips: s.trips}
			c.Messages = c.Rate.Median / float64(size)
			c.Memory = Memories{Memory(s.here), Memory(s.there)}
			c.Work = worksOf(s.work)
			if s.open.TotalCount() > 0 {
				c.Open = &OpenLoop{1 / s.interval.Seconds(), distribution(s.open)}
			}
			if s.datagrams.Asked > 0 {
				c.Datagrams = &s.datagrams
			}
			r.Soft = r.Soft || m.Transport == "rdma" && soft(s.local+s.remote)
			r.Cells = append(r.Cells, c)
		}
	}
	run.finishPeers(r)
	for _, m := range run.o.Methods {
		r.Skipped = append(r.Skipped, run.reasons(m.String())...)
	}
	for i := range run.o.Peers {
		r.Skipped = append(r.Skipped, run.reasons(run.o.Peers[i].Name)...)
	}
	if r.Complete = err == nil; !r.Complete {
		r.Reason = err.Error()
	}
	r.Verdict = r.verdict()
}

// reasons are why a method or peer was skipped: what is one at every size is the method's.
func (run *run) reasons(name string) (list []Skipped) {
	for _, size := range append([]int{0}, run.o.Sizes...) {
		if err := run.skipped[cellKey{name, size}]; err != nil {
			list = append(list, Skipped{name, size, err.Error()})
		}
	}
	differs := func(s Skipped) bool { return s.Size == 0 || s.Reason != list[0].Reason }
	if len(list) == len(run.o.Sizes) && !slices.ContainsFunc(list, differs) {
		return []Skipped{{Method: name, Reason: list[0].Reason}}
	}
	return list
}

// percents are the percentiles that are told, if there are enough times for them.
var percents = []float64{50, 90, 99, 99.9, 99.99, 99.999}

// carried is how many times must be longer than a percentile for it to be told: what
// rests on fewer is chance.
const carried = 10

func distribution(h *hdrhistogram.Histogram) Distribution {
	d := Distribution{Count: h.TotalCount()}
	for _, p := range percents {
		if float64(d.Count)*(100-p)/100 >= carried-1e-6 || p == 50 && d.Count > 0 {
			d.Percentiles = append(d.Percentiles, Percentile{p, float64(h.ValueAtQuantile(p)) / 1e9})
		}
	}
	return d
}

// at is a percentile; NaN where there were too few times.
func (d Distribution) at(percent float64) float64 {
	for _, p := range d.Percentiles {
		if p.Percent == percent {
			return p.Seconds
		}
	}
	return math.NaN()
}

func costOf(list []cost) CPUs {
	of := func(get func(*cost) float64) float64 {
		var v []float64
		for i := range list {
			v = append(v, get(&list[i]))
		}
		return median.Of(v)
	}
	gb := func(d time.Duration, bytes float64) float64 { return d.Seconds() / (bytes / 1e9) }
	return CPUs{
		Here: CPU{
			of(func(c *cost) float64 { return gb(c.here.User, c.bytes[0]) }),
			of(func(c *cost) float64 { return gb(c.here.System, c.bytes[0]) }),
			of(func(c *cost) float64 { return gb(c.here.Host, c.bytes[0]) }),
			of(func(c *cost) float64 { return gb(c.here.SoftIRQ, c.bytes[0]) }),
		},
		There: CPU{
			of(func(c *cost) float64 { return gb(c.there.User, c.bytes[1]) }),
			of(func(c *cost) float64 { return gb(c.there.System, c.bytes[1]) }),
			of(func(c *cost) float64 { return gb(c.there.Host, c.bytes[1]) }),
			of(func(c *cost) float64 { return gb(c.there.SoftIRQ, c.bytes[1]) }),
		},
	}
}

// sizes lists the sizes there are cells of.
func (r *Report) sizes() (list []int) {
	for i := range r.Cells {
		if !slices.Contains(list, r.Cells[i].Size) {
			list = append(list, r.Cells[i].Size)
		}
	}
	for i := range r.Peers {
		if !slices.Contains(list, r.Peers[i].Size) {
			list = append(list, r.Peers[i].Size)
		}
	}
	slices.Sort(list)
	return list
}

// best is the cell of a transport with the highest rate at a size; nil if there is none.
func (r *Report) best(transport string, size int) (best *Cell) {
	for i := range r.Cells {
		c := &r.Cells[i]
		if c.Size == size && c.Transport == transport && (best == nil || r.better(c, best)) {
			best = c
		}
	}
	return best
}

// better says whether a has the higher rate, or rounds enough to show what it has where b
// lacks them: what broke off after two may have had two lucky ones.
func (r *Report) better(a, b *Cell) bool {
	if x, y := r.enough(a), r.enough(b); x != y {
		return x
	}
	return a.Rate.Median > b.Rate.Median
}

// enough says whether a cell has the rounds that an interval takes, as far as there were
// any.
func (r *Report) enough(c *Cell) bool { return len(c.Rates) >= min(median.Rounds, r.Rounds) }

// WriteJSON writes the report as docs/compare.schema.json has it.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// ReadJSON reads a report that WriteJSON wrote.
func ReadJSON(b []byte) (*Report, error) {
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("not a report of rdmaxfer compare: %w", err)
	}
	if r.Schema == 0 {
		return nil, errors.New("not a report of rdmaxfer compare: it has no schema")
	}
	if r.Schema != Schema {
		return nil, fmt.Errorf("a report of schema %d, and this rdmaxfer has %d", r.Schema, Schema)
	}
	return r, nil
}
