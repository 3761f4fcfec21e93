package compare

import (
	"math"
	"testing"
)

func TestMedianAndItsInterval(t *testing.T) {
	if i := intervalOf([]float64{3, 1, 2}); i.Median != 2 || i.Low != 1 || i.High != 3 {
		t.Errorf("%+v", i)
	}
	if i := intervalOf([]float64{1, 2, 3, 4}); i.Median != 2.5 {
		t.Errorf("%+v", i)
	}
	if i := intervalOf(nil); !math.IsNaN(i.Median) {
		t.Errorf("%+v", i)
	}
	// Nine rounds within a tenth of each other: the interval is no wider.
	if i := intervalOf([]float64{1, 1.1, 1.02, 1.05, 1.04, 1.06, 1.03, 1.07, 1.01}); i.Median != 1.04 || i.Low < 1.01 || i.High > 1.07 {
		t.Errorf("%+v", i)
	}
}
