package median

import (
	"math"
	"testing"
)

func TestMedian(t *testing.T) {
	for want, samples := range map[float64][]float64{2: {3, 1, 2}, 2.5: {3, 1, 2, 10}, 7: {7}} {
		if m := Of(samples); m != want {
			t.Errorf("%v: %v", samples, m)
		}
	}
}

// The interval is that of order statistics, by ranks that tables have (Conover's A3), also of
// more samples than 2 to their power would be a number for.
func TestIntervalIsExact(t *testing.T) {
	for n, want := range map[int][2]float64{1: {1, 1}, 2: {1, 2}, 5: {1, 5}, 6: {1, 6}, 7: {1, 7}, 8: {1, 8}, 9: {2, 8}, 13: {3, 11}, 25: {8, 18}, 41: {14, 28}, 1000: {469, 532}, 5000: {2431, 2570}} {
		var samples []float64
		for i := n; i > 0; i-- {
			samples = append(samples, float64(i))
		}
		if low, high := Interval(samples); low != want[0] || high != want[1] || Of(samples) != float64(n+1)/2 {
			t.Errorf("%d samples: %v (%v to %v), want %v", n, Of(samples), low, high, want)
		}
	}
	// One sample that is far off spoils seven, and not nine.
	for n, spoilt := range map[int]bool{7: true, 9: false} {
		samples := []float64{1e9}
		for i := range n - 1 {
			samples = append(samples, 1+float64(i)/100)
		}
		if _, high := Interval(samples); (high > 2) != spoilt {
			t.Errorf("%d samples and an outlier: up to %v", n, high)
		}
	}
}

// However samples are distributed, their median's interval misses it no more often than it
// says.
func TestIntervalCovers(t *testing.T) {
	for _, n := range []int{6, 7, 9, 13, 20, 99} {
		missed := 0.0
		for below := range n + 1 { // so many lie below the true median
			k := rank(n)
			if below < k || n-below < k {
				missed += math.Exp(logChoose(n, below) - float64(n)*math.Ln2)
			}
		}
		if missed > 0.05 {
			t.Errorf("%d samples miss it %.3f of the time", n, missed)
		}
	}
}

// logChoose is the logarithm of n over k, by sums.
func logChoose(n, k int) (l float64) {
	for i := range k {
		l += math.Log(float64(n-i)) - math.Log(float64(i+1))
	}
	return l
}
