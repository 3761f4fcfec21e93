package compare

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rdmaxfer/rdmaxfer/internal/median"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// Peer is somebody else's program, or a pair of them, that measures what one of our methods
// does too.
type Peer struct {
	Name string // ib_write
	// Beside is what it is set beside: a method of ours ("rdma write"), or a transport,
	// whose best method it then is.
	Beside string
	// Normalised says what was done to its figures, and what is different even so.
	Normalised string
	// Rate measures bandwidth, Trip round trips; nil where it can't.
	Rate, Trip func(context.Context, PeerLoad) (*PeerSample, error)
}

// PeerLoad is what a [Peer] is to measure.
type PeerLoad struct {
	Size, Depth int
	Duration    time.Duration
	// Expect is how many messages a second there will likely be, for programs that have to
	// be told how many to send.
	Expect float64
	// As has the settings of a measurement of verbs, which a peer takes too where it has
	// them; nil: its own.
	As *VerbsOptions
}

// PeerSample is what it measured: bytes a second, or round trips.
type PeerSample struct {
	Version     string
	Rate        float64                 // bytes a second
	Bytes       float64                 // that moved while it ran
	Trip        float64                 // seconds, the median, or the average where there are no Trips
	Trips       *hdrhistogram.Histogram // every one; nil where it tells an average alone
	Here, There transfer.CPU            // what the two programs took, start and end included
}

// PeerCell is one peer at one size.
type PeerCell struct {
	Program string        `json:"program"`
	Version string        `json:"version,omitempty"`
	Beside  string        `json:"beside"` // the method of ours that it is compared with
	Size    int           `json:"size_bytes"`
	Rounds  int           `json:"rounds"`                           // that it has figures of
	Rates   []float64     `json:"rates_bytes_per_second,omitempty"` // by round
	Rate    *Interval     `json:"rate_bytes_per_second,omitempty"`
	Trip    *Interval     `json:"round_trip_seconds,omitempty"` // of one message alone: each round's median, or average
	Average bool          `json:"round_trip_is_average,omitempty"`
	Alone   *Distribution `json:"round_trips,omitempty"` // where it tells every one
	CPU     *CPUs         `json:"cpu_seconds_per_gigabyte,omitempty"`
	// RateRatio is our rate ÷ its, TripRatio our round trip ÷ its, round by round.
	RateRatio *Interval `json:"rate_ratio,omitempty"`
	TripRatio *Interval `json:"round_trip_ratio,omitempty"`
}

// peerSamples are what the rounds gave of one peer and size.
type peerSamples struct {
	version      string
	rates, trips []float64
	perSecond    [2]float64 // messages, of the newest round: bandwidth, and alone
	alone        *hdrhistogram.Histogram
	average      bool
	cost         []cost
}

// few is how many messages a second are expected of what nobody has measured yet.
const few = 1000

// measurePeers has each peer measure one size, after our own methods have: one that fails
// is asked no more, everywhere or at that size, and why is said.
func (r *run) measurePeers(ctx context.Context, size int) error {
	for i := range r.o.Peers {
		p := &r.o.Peers[i]
		key := cellKey{p.Name, size}
		s := r.peers[key]
		if s == nil {
			s = &peerSamples{alone: transfer.NewLatency()}
			r.peers[key] = s
		}
		if err := r.measurePeer(ctx, p, s, p.Rate, PeerLoad{size, r.o.Depth, r.o.Duration, r.expect(p, size, 0), nil}); err != nil {
			return err
		}
		if err := r.measurePeer(ctx, p, s, p.Trip, PeerLoad{size, 1, r.o.Duration, r.expect(p, size, 1), nil}); err != nil {
			return err
		}
	}
	return nil
}

// measurePeer measures one figure of a peer, if it has that. It is an error when the
// session has ended.
func (r *run) measurePeer(ctx context.Context, p *Peer, s *peerSamples, measure func(context.Context, PeerLoad) (*PeerSample, error), l PeerLoad) error {
	if measure == nil || r.skips(p.Name, l.Size) {
		return nil
	}
	r.step(fmt.Sprintf("%s, %s, %d in flight", p.Name, Size(l.Size), l.Depth))
	got, err := measure(ctx, l)
	switch {
	case r.m.Ended() != nil, err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		r.skip(p.Name, l.Size, err)
		return nil
	}
	r.worked[p.Name] = true
	s.add(got, l)
	return nil
}

// add takes what one round gave.
func (s *peerSamples) add(got *PeerSample, l PeerLoad) {
	s.version = got.Version
	if got.Rate > 0 {
		s.rates, s.perSecond[0] = append(s.rates, got.Rate), got.Rate/float64(l.Size)
		s.cost = append(s.cost, cost{[2]float64{got.Bytes, got.Bytes}, got.Here, got.There})
	}
	if got.Trip > 0 {
		s.trips, s.perSecond[1] = append(s.trips, got.Trip), 1/got.Trip
		if s.average = got.Trips == nil; !s.average {
			s.alone.Merge(got.Trips)
		}
	}
}

// fill makes a cell of samples, beside our own of the same rounds; nil for none.
func (c *PeerCell) fill(s *peerSamples, rates, trips []float64) {
	c.Version, c.Rounds = s.version, max(len(s.rates), len(s.trips))
	if len(s.rates) > 0 && len(s.trips) > 0 {
		c.Rounds = min(len(s.rates), len(s.trips)) // it may have failed between the two
	}
	if len(s.rates) > 0 {
		rate, cpu := intervalOf(s.rates), costOf(s.cost)
		c.Rates, c.Rate, c.CPU = s.rates, &rate, &cpu
		if rates != nil {
			ratio := ratioOf(rates, s.rates)
			c.RateRatio = &ratio
		}
	}
	if len(s.trips) > 0 {
		trip := intervalOf(s.trips)
		c.Trip, c.Average = &trip, s.average
		if !s.average {
			d := distribution(s.alone)
			c.Alone = &d
		}
		if trips != nil {
			ratio := ratioOf(trips, s.trips)
			c.TripRatio = &ratio
		}
	}
}

// expect tells from the round before, or else from our own method's, how many messages a
// second a peer will move.
func (r *run) expect(p *Peer, size, alone int) float64 {
	if s := r.peers[cellKey{p.Name, size}]; s.perSecond[alone] > 0 {
		return s.perSecond[alone]
	}
	s := r.all[cellKey{p.Beside, size}]
	switch {
	case s == nil:
	case alone == 0 && len(s.rates) > 0:
		return s.rates[len(s.rates)-1] / float64(size)
	case alone == 1 && len(s.trips) > 0:
		return 1 / s.trips[len(s.trips)-1]
	}
	return few
}

// finishPeers makes cells of samples.
func (r *run) finishPeers(report *Report) {
	for _, size := range r.o.Sizes {
		for i := range r.o.Peers {
			p := &r.o.Peers[i]
			s := r.peers[cellKey{p.Name, size}]
			if s == nil || len(s.rates)+len(s.trips) == 0 {
				continue
			}
			c := PeerCell{Program: p.Name, Beside: p.Beside, Size: size}
			if ours := report.beside(p.Beside, size); ours != nil {
				c.Beside = ours.name()
				c.fill(s, ours.Rates, ours.trips)
			} else {
				c.fill(s, nil, nil)
			}
			report.Peers = append(report.Peers, c)
		}
	}
	for i := range r.o.Peers {
		p := &r.o.Peers[i]
		if slices.ContainsFunc(report.Peers, func(c PeerCell) bool { return c.Program == p.Name }) {
			report.Normalised = append(report.Normalised, p.Name+": "+p.Normalised)
		}
	}
}

// beside is the cell of a method, or of a transport's best one.
func (r *Report) beside(name string, size int) *Cell {
	for i := range r.Cells {
		if c := &r.Cells[i]; c.Size == size && c.name() == name {
			return c
		}
	}
	return r.best(name, size)
}

// besidePeers says at the largest size how our methods do beside each peer, where there were
// rounds enough to show it.
func (r *Report) besidePeers() (words []string) {
	var unshown []string
	size := 0
	for i := range r.Peers {
		c := &r.Peers[i]
		if c.RateRatio == nil || c.Size != r.Peers[len(r.Peers)-1].Size {
			continue
		}
		ours := r.beside(c.Beside, c.Size) // which the ratio is of
		if size = c.Size; min(len(ours.Rates), len(c.Rates)) < median.Rounds {
			unshown = append(unshown, c.Program)
			continue
		}
		words = append(words, fmt.Sprintf("At %s %s moves %.2f times (%.2f to %.2f) what %s does.",
			Size(c.Size), c.Beside, c.RateRatio.Median, c.RateRatio.Low, c.RateRatio.High, c.Program))
	}
	if len(unshown) > 0 {
		words = append(words, fmt.Sprintf("At %s fewer than %d rounds show nothing beside %s.", Size(size), median.Rounds, strings.Join(unshown, ", ")))
	}
	return words
}

// median is the interval's; NaN where there is none.
func (i *Interval) median() float64 {
	if i == nil {
		return math.NaN()
	}
	return i.Median
}
