package compare

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/docker/go-units"

	"github.com/rdmaxfer/rdmaxfer/internal/median"
)

// Size prints bytes as flags take them: 64K, 1M.
func Size(n int) string {
	for i, unit := range []string{"G", "M", "K"} {
		if of := 1 << (30 - 10*i); n >= of && n%of == 0 {
			return strconv.Itoa(n/of) + unit
		}
	}
	return strconv.Itoa(n)
}

func rate(bytes float64) string {
	return units.CustomSize("%.1f %s/s", bytes, 1024, []string{"B", "KiB", "MiB", "GiB", "TiB"})
}

// seconds prints a time with three digits, and - for none. Rounding comes before the unit:
// 999.6 µs are a millisecond.
func seconds(s float64) string {
	if math.IsNaN(s) {
		return "-"
	}
	for _, unit := range []struct {
		name string
		of   float64 // a second
	}{{"µs", 1e6}, {"ms", 1e3}} {
		if digits := fmt.Sprintf("%.3g", s*unit.of); !strings.Contains(digits, "e+") {
			return digits + " " + unit.name
		}
	}
	return fmt.Sprintf("%.3g s", s)
}

// host prints what a whole host spent, and - where nobody counted.
func (c CPU) host() string {
	if c.Host <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", c.Host)
}

// WriteText writes a table that fits 100 columns, and the verdict.
func (r *Report) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "size\tmethod\tMiB/s\t95 % interval\tmessages/s\ttrip p50\tp99\tCPU s/GB here\tthere\t")
	for _, size := range r.sizes() {
		for i := range r.Cells {
			if c := &r.Cells[i]; c.Size == size {
				fmt.Fprintf(t, "%s\t%s\t%.1f\t%.1f to %.1f\t%.0f\t%s\t%s\t%.2f\t%.2f\t\n", Size(c.Size), c.name()+r.Mark(c.Rounds), c.Rate.Median/(1<<20), c.Rate.Low/(1<<20), c.Rate.High/(1<<20),
					c.Messages, seconds(c.Trip.Median), seconds(c.Alone.at(99)), c.CPU.Here.process(), c.CPU.There.process())
			}
		}
		for i := range r.Peers {
			if c := &r.Peers[i]; c.Size == size {
				fmt.Fprintf(t, "%s\t%s\t%s\t\n", Size(c.Size), c.Program+r.Mark(c.Rounds), strings.Join(c.columns(), "\t"))
			}
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := r.writeLatencies(w); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%s; bandwidth with %d requests in flight, round trips (request to last byte) with one;\nopen: from when a request was due, at half of what one after the other does; loaded: with %d.\n", r.Counted(), r.Depth, r.Depth)
	fmt.Fprintln(w, "CPU is of the two processes, that of the hosts of all that ran there, the kernel's threads too; MiB: pinned, peak.")
	for _, line := range []string{r.Short(), r.Few()} {
		if line != "" {
			fmt.Fprintln(w, line)
		}
	}
	for _, line := range r.Losses() {
		fmt.Fprintln(w, line)
	}
	for _, n := range r.Normalised {
		fmt.Fprintln(w, n)
	}
	for _, line := range r.Reasons() {
		fmt.Fprintln(w, line)
	}
	if !r.Complete {
		fmt.Fprintf(w, "Incomplete: %s\n", r.Reason)
	}
	_, err := fmt.Fprintln(w, r.Verdict)
	return err
}

// Counted says how many rounds there were.
func (r *Report) Counted() string {
	if r.Rounds == 1 {
		return fmt.Sprintf("1 round of %v s", r.Duration)
	}
	return fmt.Sprintf("%d rounds of %v s", r.Rounds, r.Duration)
}

// Few says what the intervals are when there were too few rounds for them; else it is empty.
func (r *Report) Few() string {
	if r.Rounds >= median.Rounds {
		return ""
	}
	return fmt.Sprintf("Fewer than %d rounds: the intervals are from the least to the most, and not of 95 %%.", median.Rounds)
}

// Mark is what stands behind the name of what has figures of fewer rounds than there were.
func (r *Report) Mark(rounds int) string {
	if rounds < r.Rounds {
		return "*"
	}
	return ""
}

// Short says of what is marked how many rounds it has; empty where nothing is.
func (r *Report) Short() string {
	var words []string
	least := r.Rounds
	short := func(name string, size, rounds int) {
		if r.Mark(rounds) != "" {
			words = append(words, fmt.Sprintf("%s at %s of %d", name, Size(size), rounds))
			least = min(least, rounds)
		}
	}
	for i := range r.Cells {
		short(r.Cells[i].name(), r.Cells[i].Size, r.Cells[i].Rounds)
	}
	for i := range r.Peers {
		short(r.Peers[i].Program, r.Peers[i].Size, r.Peers[i].Rounds)
	}
	if len(words) == 0 {
		return ""
	}
	line := fmt.Sprintf("* not of all %d rounds: %s.", r.Rounds, strings.Join(words, ", "))
	if least < median.Rounds && r.Rounds >= median.Rounds {
		line += fmt.Sprintf(" Of fewer than %d the interval is from the least to the most, and not of 95 %%.", median.Rounds)
	}
	return line
}

// Reasons says what was skipped and why, once for all that have one reason.
func (r *Report) Reasons() (lines []string) {
	var reasons []string
	of := make(map[string][]string)
	for _, s := range r.Skipped {
		if of[s.Reason] == nil {
			reasons = append(reasons, s.Reason)
		}
		of[s.Reason] = append(of[s.Reason], s.name())
	}
	for _, reason := range reasons {
		was := "was"
		if len(of[reason]) > 1 {
			was = "were"
		}
		lines = append(lines, fmt.Sprintf("%s %s skipped: %s", strings.Join(of[reason], ", "), was, reason))
	}
	return lines
}

// Losses says of datagrams how many were lost, at which size.
func (r *Report) Losses() (lines []string) {
	var all Datagrams
	for i := range r.Cells {
		c := &r.Cells[i]
		if c.Datagrams == nil {
			continue
		}
		all.Asked += c.Datagrams.Asked
		if c.Datagrams.Lost > 0 {
			lines = append(lines, fmt.Sprintf("%s at %s: %s", c.name(), Size(c.Size), c.Datagrams))
		}
	}
	if len(lines) == 0 && all.Asked > 0 {
		lines = append(lines, "udp: "+all.String())
	}
	return lines
}

// String says how many datagrams were lost.
func (d *Datagrams) String() string {
	if d.Lost == 0 {
		return fmt.Sprintf("none of %d datagrams was lost", d.Asked)
	}
	return fmt.Sprintf("%d of %d datagrams did not come in time (%.2g %%), and were asked for again", d.Lost, d.Asked, 100*float64(d.Lost)/float64(d.Asked))
}

// writeLatencies writes a second table: round trips of one request after the other, of
// requests that are due at times of their own, and of all that a lane has in flight; what
// whole hosts spent, and what the ends had of memory.
func (r *Report) writeLatencies(w io.Writer) error {
	if len(r.Cells) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\t\t\topen\t\tloaded\t\thosts\ts/GB\tMiB\t\t")
	fmt.Fprintln(t, "size\tmethod\tdue/s\tp50\tp99\tp50\tp99\there\tthere\there\tthere\t")
	mib := func(m Memory) string {
		return fmt.Sprintf("%.0f, %.0f", float64(m.Pinned)/(1<<20), float64(m.Peak)/(1<<20))
	}
	for i := range r.Cells {
		c := &r.Cells[i]
		open := []string{"-", "-", "-"}
		if c.Open != nil {
			open = []string{fmt.Sprintf("%.0f", c.Open.PerSecond), seconds(c.Open.Trips.at(50)), seconds(c.Open.Trips.at(99))}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", Size(c.Size), c.name(), strings.Join(open, "\t"), seconds(c.Loaded.at(50)), seconds(c.Loaded.at(99)),
			c.CPU.Here.host(), c.CPU.There.host(), mib(c.Memory.Here), mib(c.Memory.There))
	}
	return t.Flush()
}

// columns are a peer's figures, as a table has them: MiB/s, interval, messages a second,
// round trip, p99, CPU here and there; "-" for what it does not tell.
func (c *PeerCell) columns() []string {
	cols := []string{"-", "-", "-", seconds(c.Trip.median()), "-", "-", "-"}
	if c.Rate != nil {
		cols[0] = fmt.Sprintf("%.1f", c.Rate.Median/(1<<20))
		cols[1] = fmt.Sprintf("%.1f to %.1f", c.Rate.Low/(1<<20), c.Rate.High/(1<<20))
		cols[2] = fmt.Sprintf("%.0f", c.Rate.Median/float64(c.Size))
	}
	if c.Alone != nil {
		cols[4] = seconds(c.Alone.at(99))
	}
	if c.CPU != nil {
		cols[5], cols[6] = fmt.Sprintf("%.2f", c.CPU.Here.process()), fmt.Sprintf("%.2f", c.CPU.There.process())
	}
	return cols
}

// WriteCSV writes a line a cell, the peers' last. The last column is how many rounds it has
// figures of: fewer than others have where it broke off.
func (r *Report) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	out.Write([]string{"transport", "method", "size_bytes", "bytes_per_second", "bytes_per_second_low", "bytes_per_second_high", "messages_per_second",
		"round_trip_seconds", "round_trip_p99_seconds", "here_user_cpu_seconds_per_gb", "here_system_cpu_seconds_per_gb", "there_user_cpu_seconds_per_gb", "there_system_cpu_seconds_per_gb", "here", "there",
		"datagrams_asked", "datagrams_lost", "rounds"})
	number := func(v float64) string {
		if math.IsNaN(v) {
			return ""
		}
		return strconv.FormatFloat(v, 'g', 6, 64)
	}
	for i := range r.Cells {
		c := &r.Cells[i]
		asked, lost := "", ""
		if c.Datagrams != nil {
			asked, lost = strconv.FormatInt(c.Datagrams.Asked, 10), strconv.FormatInt(c.Datagrams.Lost, 10)
		}
		out.Write([]string{c.Transport, c.Method, strconv.Itoa(c.Size), number(c.Rate.Median), number(c.Rate.Low), number(c.Rate.High), number(c.Messages),
			number(c.Trip.Median), number(c.Alone.at(99)), number(c.CPU.Here.User), number(c.CPU.Here.System), number(c.CPU.There.User), number(c.CPU.There.System), c.Here, c.There, asked, lost, strconv.Itoa(c.Rounds)})
	}
	for i := range r.Peers {
		c := &r.Peers[i]
		rate, trip, p99, cpu := Interval{math.NaN(), math.NaN(), math.NaN()}, c.Trip.median(), math.NaN(), CPUs{}
		if c.Rate != nil {
			rate, cpu = *c.Rate, *c.CPU
		}
		if c.Alone != nil {
			p99 = c.Alone.at(99)
		}
		out.Write([]string{"peer", c.Program, strconv.Itoa(c.Size), number(rate.Median), number(rate.Low), number(rate.High), number(rate.Median / float64(c.Size)),
			number(trip), number(p99), number(cpu.Here.User), number(cpu.Here.System), number(cpu.There.User), number(cpu.There.System), c.Version, c.Version, "", "", strconv.Itoa(c.Rounds)})
	}
	out.Flush()
	return out.Error()
}

// WriteLatency writes how long round trips take, of one method and size, as HdrHistogram's
// plotters read it (.hgrm), in microseconds. kind is alone, loaded or open.
func (c *Cell) WriteLatency(w io.Writer, kind string) error {
	h := map[string]*hdrhistogram.Histogram{"alone": c.alone, "loaded": c.loaded, "open": c.open}[kind]
	_, err := h.PercentilesPrint(w, 5, 1000)
	return err
}

// LatencyKinds are those that WriteLatency knows: of one request after the other, of all that
// a lane has in flight, and of requests that are due at times of their own.
var LatencyKinds = []string{"alone", "loaded", "open"}
