package compare

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// Single is one load, measured once.
type Single struct {
	Schema    int          `json:"schema"`
	Event     string       `json:"event"` // bench
	Level     string       `json:"level"` // lane
	Complete  bool         `json:"complete"`
	Reason    string       `json:"reason,omitempty"` // why it is not complete
	Transport string       `json:"transport"`
	Method    string       `json:"method"`
	Here      string       `json:"here"` // what the ends of the lane ran on
	There     string       `json:"there"`
	Soft      bool         `json:"soft"` // as [Report].Soft
	Size      int          `json:"size_bytes"`
	Depth     int          `json:"depth"`
	Messages  int64        `json:"messages"`
	Seconds   float64      `json:"seconds"`
	Rate      float64      `json:"bytes_per_second"`
	Trips     Distribution `json:"round_trips"`
	Datagrams *Datagrams   `json:"datagrams,omitempty"` // of UDP
	CPU       CPUs         `json:"cpu_seconds_per_gigabyte"`
	// Peers are others' programs that measured the same, once each.
	Peers      []PeerCell `json:"peers,omitempty"`
	Normalised []string   `json:"normalised,omitempty"`
	Skipped    []Skipped  `json:"skipped,omitempty"`
}

// Bench measures one method at one size once, and then those of the peers that do the same:
// with one request in flight round trips, with more of them bandwidth. When an error ends
// that of the peers, there is a report, which says that it is not complete.
func Bench(ctx context.Context, m meter, method Method, size, depth int, d time.Duration, peers []Peer) (*Single, error) {
	peers = slices.DeleteFunc(peers, func(p Peer) bool { return p.Beside != method.String() && p.Beside != method.Transport })
	r := newRun(m, Options{Methods: []Method{method}, Sizes: []int{size}, Depth: depth, Rounds: 1, Duration: d, Peers: peers})
	got, err := measure(ctx, m, *r.o, load{method, size, depth, false}, r.all)
	if err != nil {
		return nil, err
	}
	for i := range peers {
		if depth == 1 {
			peers[i].Rate = nil
		} else {
			peers[i].Trip = nil
		}
	}
	err = r.measurePeers(ctx, size)
	var beside Report
	r.finish(&beside, err)
	s := r.all[cellKey{method.String(), size}]
	single := &Single{
		Level: "lane", Complete: beside.Complete, Reason: beside.Reason,
		Peers: beside.Peers, Normalised: beside.Normalised, Skipped: beside.Skipped,
		Schema: Schema, Event: "bench", Transport: method.Transport, Method: method.Name, Here: got.Local, There: got.Remote, Soft: method.Transport == "rdma" && soft(got.Local+got.Remote),
		Size: size, Depth: depth, Messages: got.Extents, Seconds: got.Elapsed.Seconds(), Rate: s.rates[0], Trips: distribution(got.Latency), CPU: costOf(s.cost),
	}
	if got.Datagrams > 0 {
		single.Datagrams = &Datagrams{got.Datagrams, got.Lost}
	}
	return single, err
}

// WriteJSON writes one object, on one line.
func (s *Single) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(s) }

// WriteText says it in three lines.
func (s *Single) WriteText(out io.Writer) error {
	w := bufio.NewWriter(out) // which remembers an error
	fmt.Fprintf(w, "%s %s, %s, %d in flight: %s, %.0f messages/s, %d in %.2f s\n", s.Transport, s.Method, Size(s.Size), s.Depth, rate(s.Rate), s.Rate/float64(s.Size), s.Messages, s.Seconds)
	fmt.Fprint(w, "round trip (request to last byte):", s.Trips.words())
	fmt.Fprintf(w, "\nCPU s/GB: here %.2f, there %.2f (whole hosts %.2f, %.2f) · here %s · there %s\n",
		s.CPU.Here.process(), s.CPU.There.process(), s.CPU.Here.Host, s.CPU.There.Host, s.Here, s.There)
	for i := range s.Peers {
		switch p := &s.Peers[i]; {
		case p.Rate != nil:
			fmt.Fprintf(w, "%s %s: %s, %.0f messages/s\n", p.Program, p.Version, rate(p.Rate.Median), p.Rate.Median/float64(p.Size))
		case p.Average:
			fmt.Fprintf(w, "%s %s: round trip, on average: %s\n", p.Program, p.Version, seconds(p.Trip.Median))
		default:
			fmt.Fprintf(w, "%s %s: round trip:%s\n", p.Program, p.Version, p.Alone.words())
		}
	}
	if s.Datagrams != nil {
		fmt.Fprintln(w, s.Datagrams)
	}
	for _, n := range s.Normalised {
		fmt.Fprintln(w, n)
	}
	for _, skipped := range s.Skipped {
		fmt.Fprintf(w, "%s was skipped: %s\n", skipped.Method, skipped.Reason)
	}
	if s.Soft {
		fmt.Fprintln(w, softWords)
	}
	if !s.Complete {
		fmt.Fprintf(w, "Incomplete: %s\n", s.Reason)
	}
	return w.Flush()
}

// words are the percentiles.
func (d *Distribution) words() (all string) {
	for _, p := range d.Percentiles {
		all += fmt.Sprintf(" p%g %s", p.Percent, seconds(p.Seconds))
	}
	return all
}

var _ meter = (*transfer.Meter)(nil)
