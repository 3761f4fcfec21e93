// Package median has the median of some samples, and how sure it is.
package median

import (
	"math"
	"slices"
)

// Rounds is how many samples there must be for a 95 % interval of their median: with fewer
// not even the least and the most have it between them so often (1 - 2·2^-n).
const Rounds = 6

// Of is the median. There must be a sample.
func Of(samples []float64) float64 {
	sorted := slices.Sorted(slices.Values(samples))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Interval is where the median of all that the samples were drawn from is, in at least 95 of a
// hundred cases, however that is distributed: from the kth least sample to the kth most
// (Conover, Practical Nonparametric Statistics, 3.2; Hahn and Meeker, Statistical Intervals,
// 5.2). A bootstrap of few samples is narrower than it says: that of seven leaves out the
// least and the most, and what is left has the median in it in 87.5 % of all cases. Of fewer
// than [Rounds] it is the least and the most. There must be a sample.
func Interval(samples []float64) (low, high float64) {
	sorted := slices.Sorted(slices.Values(samples))
	k := rank(len(sorted))
	return sorted[k-1], sorted[len(sorted)-k]
}

// rank is the k of n samples: the largest with which fewer than k of them lie below the true
// median, or above it, no more often than 5 times of a hundred; 1 where there are too few for
// that.
func rank(n int) int {
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
