package compare

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// Single is one load, measured once.
type Single struct {
	Schema    int          `json:"schema"`
	Event     string       `json:"event"` // bench
	Transport string       `json:"transport"`
	Method    string       `json:"method"`
	Here      string       `json:"here"` // what the ends of the lane ran on
	There     string       `json:"there"`
	Size      int          `json:"size_bytes"`
	Depth     int          `json:"depth"`
	Messages  int64        `json:"messages"`
	Seconds   float64      `json:"seconds"`
	Rate      float64      `json:"bytes_per_second"`
	Trips     Distribution `json:"round_trips"`
	CPU       CPUs         `json:"cpu_seconds_per_gigabyte"`
}

// Bench measures one method at one size once.
func Bench(ctx context.Context, m meter, method Method, size, depth int, d time.Duration) (*Single, error) {
	o := Options{Depth: depth, Duration: d}
	all := make(map[cellKey]*samples)
	got, err := measure(ctx, m, o, load{method, size, depth}, all)
	if err != nil {
		return nil, err
	}
	s := all[cellKey{method.String(), size}]
	return &Single{
		Schema: Schema, Event: "bench", Transport: method.Transport, Method: method.Name, Here: got.Local, There: got.Remote,
		Size: size, Depth: depth, Messages: got.Extents, Seconds: got.Elapsed.Seconds(), Rate: s.rates[0], Trips: distribution(got.Latency), CPU: costOf(s.cost),
	}, nil
}

// WriteJSON writes one object, on one line.
func (s *Single) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(s) }

// WriteText says it in three lines.
func (s *Single) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%s %s, %s, %d in flight: %s, %.0f messages/s, %d in %.2f s\n", s.Transport, s.Method, Size(s.Size), s.Depth, rate(s.Rate), s.Rate/float64(s.Size), s.Messages, s.Seconds)
	fmt.Fprint(w, "round trip (request to last byte):")
	for _, p := range s.Trips.Percentiles {
		fmt.Fprintf(w, " p%g %s", p.Percent, seconds(p.Seconds))
	}
	_, err := fmt.Fprintf(w, "\nCPU s/GB: here %.2f, there %.2f (whole hosts %.2f, %.2f) · here %s · there %s\n",
		s.CPU.Here.process(), s.CPU.There.process(), s.CPU.Here.Host, s.CPU.There.Host, s.Here, s.There)
	return err
}

var _ meter = (*transfer.Meter)(nil)
