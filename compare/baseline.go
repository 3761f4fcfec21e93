package compare

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Change is how a figure of a cell compares with that of an earlier report.
type Change struct {
	Cell        *Cell  // of the earlier report where there is none now
	Figure      string // bandwidth, or round trip: of one request alone; empty where it is lost
	Before, Now Interval
	Ratio       float64 // of the medians, now ÷ before
	Word        string  // better, same or worse; unknown where there were too few rounds
	// Lost says that a method which was measured then, and was asked for now, was not measured,
	// or not to the end as it was then, and why: that is worse than any figure.
	Lost string
}

// leastChange is what must change for it to be said: less is what two runs of the same
// thing differ by on a machine that has other things to do.
const leastChange = 0.1

// leastToDiffer is how many rounds both reports must have for a difference to be told: with
// fewer even the rounds of one thing, taken twice, lie apart too often (2·n!·n!/(2n)!).
const leastToDiffer = 4

// Against is an error where nothing that is asked for could be told to be worse than in an
// earlier report: to pass would mean nothing.
func (o *Options) Against(before *Report) error {
	if o.Rounds < leastToDiffer {
		return fmt.Errorf("a difference can't be told from chance by fewer than %d rounds", leastToDiffer)
	}
	err := errors.New("it has none of the methods and sizes that are asked for")
	for i := range before.Cells {
		c := &before.Cells[i]
		if !slices.Contains(o.Sizes, c.Size) || !slices.ContainsFunc(o.Methods, func(m Method) bool { return m.String() == c.name() }) {
			continue
		}
		if len(c.Rates) >= leastToDiffer {
			return nil
		}
		err = fmt.Errorf("it has fewer than %d rounds of what is asked for, and a difference could not be told from chance", leastToDiffer)
	}
	return err
}

// Since compares with an earlier report, cell by cell. A figure is better or worse where
// the intervals have nothing in common and the medians are a tenth apart. A method that could
// not be measured now, at one of the sizes (bytes) that were asked for, is worse; where it broke
// off in the earlier report too, it is so with fewer rounds than it had there. Other cells that
// one of the reports lacks are counted.
func (r *Report) Since(before *Report, sizes []int) (changes []Change, lacking int) {
	now := make(map[cellKey]*Cell)
	for i := range r.Cells {
		c := &r.Cells[i]
		now[cellKey{c.name(), c.Size}] = c
	}
	for i := range before.Cells {
		b := &before.Cells[i]
		key := cellKey{b.name(), b.Size}
		c := now[key]
		delete(now, key)
		lost := r.reason(key)
		if !slices.Contains(sizes, b.Size) { // what is skipped at every size is so at those
			lost = ""
		}
		if before.reason(key) != "" && c != nil && c.Rounds >= b.Rounds {
			lost = ""
		}
		switch {
		case lost != "":
			when := ""
			if c == nil {
				c = b
			} else {
				when = fmt.Sprintf(" after round %d", c.Rounds)
			}
			changes = append(changes, Change{Cell: c, Before: b.Rate, Word: "worse", Lost: "not measured" + when + ": " + lost})
		case c == nil:
			lacking++
		default:
			few := min(len(c.Rates), len(b.Rates)) < leastToDiffer
			changes = append(changes, change(c, "bandwidth", b.Rate, c.Rate, "worse", "better", few), change(c, "round trip", b.Trip, c.Trip, "better", "worse", few))
		}
	}
	return changes, lacking + len(now)
}

// reason is why a cell was skipped; empty where it was not.
func (r *Report) reason(of cellKey) string {
	for _, s := range r.Skipped {
		if s.Method == of.method && (s.Size == 0 || s.Size == of.size) {
			return s.Reason
		}
	}
	return ""
}

// Unlike says what else is different between two runs, and may be why their figures are.
func (r *Report) Unlike(before *Report) (lines []string) {
	if r.Duration != before.Duration {
		lines = append(lines, fmt.Sprintf("a measurement took %v s then, and %v s now", before.Duration, r.Duration))
	}
	if r.Soft != before.Soft && r.has("rdma") && before.has("rdma") {
		kind := map[bool]string{true: "soft-RoCE", false: "hardware"}
		lines = append(lines, fmt.Sprintf("RDMA was %s then, and is %s now", kind[before.Soft], kind[r.Soft]))
	}
	return lines
}

// change compares one figure. less and more are what it is when it became less or more.
func change(c *Cell, figure string, before, now Interval, less, more string, few bool) Change {
	r := Change{Cell: c, Figure: figure, Before: before, Now: now, Ratio: now.Median / before.Median, Word: "same"}
	switch {
	case few:
		r.Word = "unknown"
	case now.High < before.Low && r.Ratio < 1-leastChange:
		r.Word = less
	case now.Low > before.High && r.Ratio > 1+leastChange:
		r.Word = more
	}
	return r
}

// WriteChanges writes a line a change, and answers how many are worse.
func WriteChanges(w io.Writer, changes []Change, lacking int) (worse int, err error) {
	count := make(map[string]int)
	for _, c := range changes {
		count[c.Word]++
		if c.Word == "same" || c.Word == "unknown" {
			continue
		}
		if c.Lost != "" {
			fmt.Fprintf(w, "%s: %s at %s, %s then, %s\n", c.Word, c.Cell.name(), Size(c.Cell.Size), rate(c.Before.Median), c.Lost)
			continue
		}
		words := rate
		if c.Figure == "round trip" {
			words = seconds
		}
		fmt.Fprintf(w, "%s: %s at %s, %s %s instead of %s (%.2f times)\n", c.Word, c.Cell.name(), Size(c.Cell.Size), c.Figure, words(c.Now.Median), words(c.Before.Median), c.Ratio)
	}
	if n := count["unknown"]; n > 0 {
		fmt.Fprintf(w, "%d can't be told from chance: that takes %d rounds at least in both reports\n", n, leastToDiffer)
	}
	_, err = fmt.Fprintf(w, "against the baseline: %d better, %d same, %d worse; %d methods and sizes in one of them alone\n", count["better"], count["same"], count["worse"], lacking)
	return count["worse"], err
}
