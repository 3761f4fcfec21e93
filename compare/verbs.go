package compare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// VerbsOptions are what is measured of the verbs alone. They mean what perftest's options
// do.
type VerbsOptions struct {
	Op         string        // write, read, send, or ud: SENDs of datagrams
	Latency    bool          // one message at a time; else bandwidth
	Both       bool          // of bandwidth: both ends send
	Size       int           // bytes a message
	Depth      int           // messages in flight, each queue pair
	QPs        int           // queue pairs
	Chain      int           // messages a doorbell
	Signal     int           // messages a completion
	Inline     int           // bytes
	Buffers    int           // messages' room that is used in turn
	Events     bool          // wait on events
	Spin       time.Duration // polling before that
	MTU        int           // of the path, bytes; 0: the ports'
	Iterations int           // messages; 0: those that complete within Duration
	Duration   time.Duration
	WarmUp     time.Duration
	Rounds     int
	Peers      []Peer
	Progress   func(done, total int, what string)
}

// Settle gives what was left open perftest's values: depth 128, one queue pair, one message
// a doorbell, the same buffer over and over, and a completion for every message, of those up
// to 8 KiB for every hundredth, and where a doorbell is for several for each doorbell.
func (o *VerbsOptions) Settle() {
	def := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	depth, signal := 128, 1
	if o.Latency {
		depth = 1
	}
	def(&o.Depth, depth)
	if o.Size <= 8192 && !o.Latency {
		signal = min(100, o.Depth)
	}
	if o.Chain > 1 {
		signal = min(o.Chain, o.Depth)
	}
	def(&o.Signal, signal)
	def(&o.QPs, 1)
	def(&o.Chain, 1)
	def(&o.Buffers, 1)
	def(&o.Rounds, 1)
}

// MTUCode is the path MTU as the verbs have it: 256 is 1.
func (o *VerbsOptions) MTUCode() uint8 {
	return uint8(max(0, bits.Len(uint(o.MTU))-8))
}

func (o *VerbsOptions) load() transfer.VerbsLoad {
	time := 30*time.Second + 4*(o.WarmUp+o.Duration)
	if o.Iterations > 0 {
		time = wire.MaxVerbsTime // nobody knows how long they take
	}
	return transfer.VerbsLoad{
		Verbs: wire.Verbs{
			Op: o.Op, Latency: o.Latency, Both: o.Both, Size: uint32(o.Size), Depth: uint16(o.Depth), QPs: uint16(o.QPs), Chain: uint16(o.Chain), Signal: uint16(o.Signal),
			Inline: uint16(o.Inline), Buffers: uint32(o.Buffers), Events: o.Events, Spin: uint32(o.Spin.Microseconds()), MTU: o.MTUCode(), Nanoseconds: int64(min(time, wire.MaxVerbsTime)),
		},
		Iterations: o.Iterations, WarmUp: o.WarmUp, Duration: o.Duration,
	}
}

// VerbsReport is what was measured, with the settings as they were used.
type VerbsReport struct {
	Schema     int           `json:"schema"`
	Event      string        `json:"event"` // bench
	Level      string        `json:"level"` // verbs
	Complete   bool          `json:"complete"`
	Reason     string        `json:"reason,omitempty"` // why it is not complete
	Op         string        `json:"op"`
	Test       string        `json:"test"` // bandwidth or latency
	Here       string        `json:"here"`
	There      string        `json:"there"`
	Soft       bool          `json:"soft"` // as [Report].Soft
	Size       int           `json:"size_bytes"`
	Depth      int           `json:"depth"`
	QPs        int           `json:"queue_pairs"`
	Chain      int           `json:"messages_per_doorbell"` // at the most
	Signal     int           `json:"messages_per_completion"`
	Inline     bool          `json:"inline"` // as the device allowed
	Buffers    int           `json:"buffers"`
	Events     bool          `json:"events"`
	Spin       float64       `json:"spin_seconds,omitempty"`
	MTU        int           `json:"path_mtu_bytes"`
	Both       bool          `json:"both_directions"`
	Iterations int           `json:"iterations,omitempty"`
	Duration   float64       `json:"duration_seconds,omitempty"` // of each round, where there are no iterations
	WarmUp     float64       `json:"warm_up_seconds"`
	Rounds     int           `json:"rounds"`
	Messages   int64         `json:"messages"` // of all rounds
	Lost       int64         `json:"lost_messages"`
	Doorbells  int64         `json:"doorbells"`
	Rates      []float64     `json:"rates_bytes_per_second,omitempty"` // by round, both directions together
	Rate       *Interval     `json:"rate_bytes_per_second,omitempty"`
	PerSecond  float64       `json:"messages_per_second"`
	Trip       *Interval     `json:"round_trip_seconds,omitempty"` // medians of the rounds
	Trips      *Distribution `json:"round_trips,omitempty"`        // of all rounds
	CPU        CPUs          `json:"cpu_seconds_per_gigabyte"`
	Peers      []PeerCell    `json:"peers,omitempty"`
	Normalised []string      `json:"normalised,omitempty"`
	Skipped    []Skipped     `json:"skipped,omitempty"`

	trips []float64
}

// verbsMeter is what measures: a [transfer.Meter].
type verbsMeter interface {
	Verbs(context.Context, transfer.Verbs, transfer.VerbsLoad) (*transfer.VerbsMeasurement, error)
	Ended() error
}

// BenchVerbs measures the verbs alone, round by round, each time followed by those of the
// peers that do the same. When an error ends it, the report has the rounds before, and says
// that it is not complete; it is nil when the session goes on and this can't be measured in it.
func BenchVerbs(ctx context.Context, m verbsMeter, v transfer.Verbs, o VerbsOptions) (*VerbsReport, error) {
	o.Settle()
	r := &VerbsReport{
		Schema: Schema, Event: "bench", Level: "verbs", Op: o.Op, Test: "bandwidth", Size: o.Size, Depth: o.Depth, QPs: o.QPs, Chain: o.Chain, Signal: o.Signal, Buffers: o.Buffers,
		Events: o.Events, Spin: o.Spin.Seconds(), Both: o.Both, Iterations: o.Iterations, WarmUp: o.WarmUp.Seconds(),
	}
	if o.Latency {
		r.Test = "latency"
	}
	if o.Iterations == 0 {
		r.Duration = o.Duration.Seconds()
	}
	beside := "rdma " + strings.Replace(o.Op, "ud", "send", 1)
	peers := slices.DeleteFunc(o.Peers, func(p Peer) bool { return p.Beside != beside })
	all := make(map[string]*peerSamples)
	merged := transfer.NewLatency()
	var costs []cost
	var failed error
	for round := 0; round < o.Rounds && failed == nil; round++ {
		if o.Progress != nil {
			o.Progress(round, o.Rounds, fmt.Sprintf("round %d of %d", round+1, o.Rounds))
		}
		got, err := m.Verbs(ctx, v, o.load())
		if err != nil {
			failed = err
			break
		}
		perSecond := float64(got.Messages) / got.Elapsed.Seconds()
		rate := perSecond*float64(o.Size) + got.Back
		r.Here, r.There, r.Inline, r.Signal, r.MTU = got.Local, got.Remote, got.Inlined, got.Signal, got.MTU
		r.Soft = soft(r.Here + r.There)
		r.Messages, r.Lost, r.Doorbells, r.Rounds = r.Messages+got.Messages, r.Lost+got.Lost, r.Doorbells+got.Posts, r.Rounds+1
		if o.Latency {
			merged.Merge(got.Trips)
			r.trips = append(r.trips, float64(got.Trips.ValueAtQuantile(50))/1e9)
		} else {
			r.Rates = append(r.Rates, rate)
		}
		moved := float64(got.Sent) * float64(o.Size)
		if o.Both { // the CPU is for both directions, the warm-up's included
			moved *= rate / (perSecond * float64(o.Size))
		}
		costs = append(costs, cost{[2]float64{moved, moved}, got.Here, got.There})
		for i := range peers {
			if failed = r.measurePeer(ctx, m, &peers[i], &o, perSecond, all); failed != nil {
				break
			}
		}
	}
	if r.Rounds == 0 && ctx.Err() == nil && m.Ended() == nil {
		return nil, failed // it can't be measured
	}
	if r.Complete = failed == nil; !r.Complete {
		r.Reason = failed.Error()
	}
	if r.Rounds == 0 {
		return r, failed
	}
	r.CPU = costOf(costs)
	if o.Latency {
		trip, d := intervalOf(r.trips), distribution(merged)
		r.Trip, r.Trips, r.PerSecond = &trip, &d, 1/trip.Median
	} else {
		rate := intervalOf(r.Rates)
		r.Rate, r.PerSecond = &rate, rate.Median/float64(o.Size)
	}
	for i := range peers {
		r.addPeer(&peers[i], all[peers[i].Name])
	}
	return r, failed
}

// measurePeer measures one peer with the same settings. It is an error when the session
// has ended.
func (r *VerbsReport) measurePeer(ctx context.Context, m verbsMeter, p *Peer, o *VerbsOptions, perSecond float64, all map[string]*peerSamples) error {
	measure := p.Rate
	if o.Latency {
		measure = p.Trip
	}
	if measure == nil || slices.ContainsFunc(r.Skipped, func(s Skipped) bool { return s.Method == p.Name }) {
		return nil
	}
	s := all[p.Name]
	if s == nil {
		s = &peerSamples{alone: transfer.NewLatency()}
		all[p.Name] = s
	}
	got, err := measure(ctx, PeerLoad{o.Size, o.Depth, o.Duration, perSecond, o})
	if m.Ended() != nil || err != nil && ctx.Err() != nil {
		return err
	}
	if err != nil {
		r.Skipped = append(r.Skipped, Skipped{Method: p.Name, Reason: err.Error()})
		return nil
	}
	s.add(got, PeerLoad{Size: o.Size})
	return nil
}

func (r *VerbsReport) addPeer(p *Peer, s *peerSamples) {
	if s == nil || len(s.rates)+len(s.trips) == 0 {
		return
	}
	c := PeerCell{Program: p.Name, Beside: "verbs " + r.Op, Size: r.Size}
	c.fill(s, r.Rates, r.trips)
	r.Peers = append(r.Peers, c)
	r.Normalised = append(r.Normalised, p.Name+": "+p.Normalised)
}

// WriteJSON writes one object, on one line.
func (r *VerbsReport) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// WriteText says it in a few lines.
func (r *VerbsReport) WriteText(w io.Writer) error {
	var errs []error
	say := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format, args...)
		errs = append(errs, err)
	}
	say("verbs %s, %s: %s, depth %d, %d queue pairs, %d a doorbell, %d a completion, inline %v, events %v, %d buffers, MTU %d, both directions %v\n",
		r.Op, r.Test, Size(r.Size), r.Depth, r.QPs, r.Chain, r.Signal, r.Inline, r.Events, r.Buffers, r.MTU, r.Both)
	switch {
	case r.Rounds == 0:
		say("Not complete, nothing was measured: %s\n", r.Reason)
		return errors.Join(errs...)
	case r.Rate != nil:
		say("%s (%s to %s), %.0f messages/s, %d lost, %d rounds\n", rate(r.Rate.Median), rate(r.Rate.Low), rate(r.Rate.High), r.PerSecond, r.Lost, r.Rounds)
	default:
		say("round trip %s (%s to %s), all:%s, %d rounds\n", seconds(r.Trip.Median), seconds(r.Trip.Low), seconds(r.Trip.High), r.Trips.words(), r.Rounds)
	}
	say("CPU s/GB: here %.2f, there %.2f (whole hosts %.2f, %.2f) · here %s · there %s\n", r.CPU.Here.process(), r.CPU.There.process(), r.CPU.Here.Host, r.CPU.There.Host, r.Here, r.There)
	for i := range r.Peers {
		c := &r.Peers[i]
		short := ""
		if c.Rounds < r.Rounds {
			short = fmt.Sprintf(", %d rounds alone", c.Rounds)
		}
		if c.Rate != nil {
			say("%s %s: %s (%s to %s); ours ÷ its: %.3f (%.3f to %.3f)%s\n", c.Program, c.Version, rate(c.Rate.Median), rate(c.Rate.Low), rate(c.Rate.High), c.RateRatio.Median, c.RateRatio.Low, c.RateRatio.High, short)
		} else {
			say("%s %s: round trip %s (%s to %s); ours ÷ its: %.3f (%.3f to %.3f)%s\n", c.Program, c.Version, seconds(c.Trip.Median), seconds(c.Trip.Low), seconds(c.Trip.High), c.TripRatio.Median, c.TripRatio.Low, c.TripRatio.High, short)
		}
	}
	for _, n := range r.Normalised {
		say("%s\n", n)
	}
	for _, s := range r.Skipped {
		say("%s was skipped: %s\n", s.Method, s.Reason)
	}
	if r.Soft {
		say("%s\n", softWords)
	}
	if !r.Complete {
		say("Incomplete: %s\n", r.Reason)
	}
	return errors.Join(errs...)
}

var _ verbsMeter = (*transfer.Meter)(nil)
