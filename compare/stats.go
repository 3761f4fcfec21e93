package compare

import (
	"math"

	"github.com/rdmaxfer/rdmaxfer/internal/median"
)

// Interval is the median of some samples, and what it may as well be: the bounds of a
// 95 % interval.
type Interval struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// intervalOf takes the median and its interval. NaN when there are no samples.
func intervalOf(samples []float64) Interval {
	if len(samples) == 0 {
		return Interval{math.NaN(), math.NaN(), math.NaN()}
	}
	low, high := median.Interval(samples)
	return Interval{median.Of(samples), low, high}
}

// ratioOf is the interval of a ÷ b, round by round: what drifts from one round to the
// next hits both.
func ratioOf(a, b []float64) Interval {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	return intervalOf(ratios)
}
