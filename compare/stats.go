package compare

import (
	"math"
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

// intervalOf takes the median, and its interval by order statistics: from the kth least
// sample to the kth most, which have the true median between them at least 95 times of a
// hundred, however the samples are distributed (Conover, Practical Nonparametric Statistics,
// 3.2; Hahn and Meeker, Statistical Intervals, 5.2). A bootstrap of so few is narrower than
// it says: that of seven leaves out the least and the most, and what is left is an interval
// of 87.5 %. NaN when there are no samples.
func intervalOf(samples []float64) Interval {
	n := len(samples)
	if n == 0 {
		return Interval{math.NaN(), math.NaN(), math.NaN()}
	}
	sorted := slices.Sorted(slices.Values(samples))
	k := rankOf(n)
	return Interval{median(samples), sorted[k-1], sorted[n-k]}
}

// rankOf is the k of n samples: the largest with which fewer than k of them lie below the
// true median, or above it, no more often than 5 times of a hundred; 1 where there are too
// few samples for that (leastRounds).
func rankOf(n int) int {
	outside := 0.0 // 2·P(Bin(n, ½) ≤ below)
	for below := 0; ; below++ {
		if outside += 2 * binomial(n, below); outside > 0.05 {
			return max(1, below)
		}
	}
}

// binomial is how likely k of n are, of two outcomes that are as likely. (By logarithms:
// 2^-n alone would be none, of many.)
func binomial(n, k int) float64 {
	lg := func(v int) float64 {
		l, _ := math.Lgamma(float64(v + 1)) // of v!, which is positive
		return l
	}
	return math.Exp(lg(n) - lg(k) - lg(n-k) - float64(n)*math.Ln2)
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
