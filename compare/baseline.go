package compare

import (
	"fmt"
	"io"
)

// Change is how a cell compares with that of an earlier report.
type Change struct {
	Cell   *Cell
	Before Interval // rate
	Ratio  float64  // of the medians, now ÷ before
	Word   string   // better, same or worse
}

// leastChange is what must change for it to be said: less is what two runs of the same
// thing differ by on a machine that has other things to do.
const leastChange = 0.1

// Since compares with an earlier report, cell by cell. It is better or worse where
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
		change := Change{c, b.Rate, c.Rate.Median / b.Rate.Median, "same"}
		switch {
		case c.Rate.High < b.Rate.Low && change.Ratio < 1-leastChange:
			change.Word = "worse"
		case c.Rate.Low > b.Rate.High && change.Ratio > 1+leastChange:
			change.Word = "better"
		}
		changes = append(changes, change)
	}
	return changes, lacking + len(old)
}

// WriteChanges writes a line a change, and answers how many are worse.
func WriteChanges(w io.Writer, changes []Change, lacking int) (worse int, err error) {
	count := make(map[string]int)
	for _, c := range changes {
		count[c.Word]++
		if c.Word != "same" {
			fmt.Fprintf(w, "%s: %s at %s, %s instead of %s (%.2f times)\n", c.Word, c.Cell.name(), Size(c.Cell.Size), rate(c.Cell.Rate.Median), rate(c.Before.Median), c.Ratio)
		}
	}
	_, err = fmt.Fprintf(w, "against the baseline: %d better, %d same, %d worse, %d in one of them alone\n", count["better"], count["same"], count["worse"], lacking)
	return count["worse"], err
}
