package compare

import (
	"fmt"
	"io"
)

// Change is how a figure of a cell compares with that of an earlier report.
type Change struct {
	Cell        *Cell
	Figure      string // bandwidth, or round trip: of one request alone
	Before, Now Interval
	Ratio       float64 // of the medians, now ÷ before
	Word        string  // better, same or worse; unknown where there were too few rounds
}

// leastChange is what must change for it to be said: less is what two runs of the same
// thing differ by on a machine that has other things to do.
const leastChange = 0.1

// leastToDiffer is how many rounds both reports must have for a difference to be told: with
// fewer even the rounds of one thing, taken twice, lie apart too often (2·n!·n!/(2n)!).
const leastToDiffer = 4

// Since compares with an earlier report, cell by cell. A figure is better or worse where
// the intervals have nothing in common and the medians are a tenth apart. Cells that one
// of the reports lacks are counted.
func (r *Report) Since(before *Report) (changes []Change, lacking int) {
	old := make(map[cellKey]*Cell)
	for i := range before.Cells {
		c := &before.Cells[i]
		old[cellKey{c.name(), c.Size}] = c
	}
	for i := range r.Cells {
		c := &r.Cells[i]
		b := old[cellKey{c.name(), c.Size}]
		if b == nil {
			lacking++
			continue
		}
		delete(old, cellKey{c.name(), c.Size})
		few := min(len(c.Rates), len(b.Rates)) < leastToDiffer
		changes = append(changes, change(c, "bandwidth", b.Rate, c.Rate, "worse", "better", few), change(c, "round trip", b.Trip, c.Trip, "better", "worse", few))
	}
	return changes, lacking + len(old)
}

// change compares one figure. less and more are what it is when it became less or more.
func change(c *Cell, figure string, before, now Interval, less, more string, few bool) Change {
	r := Change{c, figure, before, now, now.Median / before.Median, "same"}
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
