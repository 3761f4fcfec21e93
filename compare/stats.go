package compare

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Interval is the median of some samples, and what it may as well be: the bounds of a
// 95 % interval.
type Interval struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// leastRounds is how many samples there must be for a 95 % interval of their median: with
// fewer not even the least and the most have it between them so often (1 - 2·2^-n).
const leastRounds = 6

// resamples is how often the bootstrap draws.
const resamples = 2000

// intervalOf takes the median, and its interval by the percentile bootstrap (Efron and
// Tibshirani, An Introduction to the Bootstrap, 13.3). The same samples give the same
// interval. NaN when there are none.
func intervalOf(samples []float64) Interval {
	if len(samples) == 0 {
		return Interval{math.NaN(), math.NaN(), math.NaN()}
	}
	rng := rand.New(rand.NewPCG(1, uint64(len(samples))))
	drawn := make([]float64, len(samples))
	medians := make([]float64, resamples)
	for i := range medians {
		for j := range drawn {
			drawn[j] = samples[rng.IntN(len(samples))]
		}
		medians[i] = median(drawn)
	}
	slices.Sort(medians)
	return Interval{median(samples), medians[resamples/40], medians[resamples-1-resamples/40]}
}

func median(samples []float64) float64 {
	sorted := slices.Sorted(slices.Values(samples))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
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
