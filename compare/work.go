package compare

import (
	"github.com/rdmaxfer/rdmaxfer/internal/median"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// Works are what the processes of both ends did for each GiB (2^30 bytes) where bandwidth
// was measured.
type Works struct {
	Here  Work `json:"here"`
	There Work `json:"there"`
}

// Work is what can be counted.
type Work struct {
	Crossings   float64 `json:"cgo_crossings"`
	Allocations float64 `json:"allocations"`
	SystemCalls float64 `json:"system_calls"` // -1: the kernel did not tell
}

// workOf is what was counted for so many bytes.
func workOf(w *transfer.Work, bytes float64) Work {
	gib := bytes / (1 << 30)
	of := Work{float64(w.Crossings) / gib, float64(w.Allocations) / gib, -1}
	if w.SystemCalls >= 0 {
		of.SystemCalls = float64(w.SystemCalls) / gib
	}
	return of
}

// worksOf takes the medians of the rounds; nil where nothing was counted.
func worksOf(rounds [][2]Work) *Works {
	if len(rounds) == 0 {
		return nil
	}
	of := func(end int, get func(*Work) float64) float64 {
		var v []float64
		for i := range rounds {
			v = append(v, get(&rounds[i][end]))
		}
		return median.Of(v)
	}
	end := func(n int) Work {
		return Work{
			of(n, func(w *Work) float64 { return w.Crossings }),
			of(n, func(w *Work) float64 { return w.Allocations }),
			of(n, func(w *Work) float64 { return w.SystemCalls }),
		}
	}
	return &Works{end(0), end(1)}
}
