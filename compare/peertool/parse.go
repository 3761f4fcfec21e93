package peertool

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// perftestRow finds the line of numbers that begins with the size, in bytes; each table has
// its title above and a rule below.
func perftestRow(said string, size, iterations int) ([]float64, error) {
	for line := range strings.Lines(said) {
		words := strings.Fields(line)
		if len(words) < 4 || words[0] != strconv.Itoa(size) || words[1] != strconv.Itoa(iterations) {
			continue
		}
		var row []float64
		for _, w := range words {
			v, err := strconv.ParseFloat(w, 64)
			if err != nil {
				break
			}
			row = append(row, v)
		}
		if len(row) >= 4 {
			return row, nil
		}
	}
	return nil, fmt.Errorf("perftest printed no result for %d bytes", size)
}

// parsePerftestRate gives bytes a second: the average of #bytes, #iterations, peak, average
// (perftest(1)). It is in units of 2^20 bytes, whether the version labels it "MB/sec" or
// "MiB/sec".
func parsePerftestRate(said string, size, iterations int) (float64, error) {
	row, err := perftestRow(said, size, iterations)
	if err != nil {
		return 0, err
	}
	if strings.Contains(said, "Gb/sec") || row[3] <= 0 {
		return 0, fmt.Errorf("perftest printed a rate that is none: %v", row)
	}
	return row[3] * (1 << 20), nil
}

// parsePerftestTrips gives the round trips: each line of -U is a number and microseconds,
// which are so many times as long.
func parsePerftestTrips(said string, times int) (*hdrhistogram.Histogram, error) {
	h := transfer.NewLatency()
	for line := range strings.Lines(said) {
		n, usec, ok := strings.Cut(strings.TrimSpace(line), ", ")
		if _, err := strconv.Atoi(n); !ok || err != nil {
			continue
		}
		v, err := strconv.ParseFloat(usec, 64)
		if err != nil || v <= 0 {
			return nil, fmt.Errorf("perftest printed %q as a time", transfer.Printable(line))
		}
		if err := h.RecordValue(int64(v * 1000 * float64(times))); err != nil {
			return nil, fmt.Errorf("perftest printed a time out of bounds: %w", err)
		}
	}
	if h.TotalCount() == 0 {
		return nil, fmt.Errorf("perftest printed no times")
	}
	return h, nil
}

var qperfFigure = regexp.MustCompile(`(?m)^\s+(bw|latency)\s+=\s+([0-9.,]+) (bytes/sec|ns)$`)

// parseQperf gives bytes a second, or nanoseconds (-uu).
func parseQperf(said, unit string) (float64, error) {
	m := qperfFigure.FindStringSubmatch(said)
	if m == nil || m[3] != unit {
		return 0, fmt.Errorf("qperf printed no result: %s", transfer.Printable(said))
	}
	v, err := strconv.ParseFloat(strings.ReplaceAll(m[2], ",", ""), 64)
	if err != nil || v <= 0 {
		return 0, fmt.Errorf("qperf printed %q", m[2])
	}
	return v, nil
}

// parseIperf3 gives bytes a second that were received (iperf3 -J, end.sum_received).
func parseIperf3(said string) (float64, error) {
	var report struct {
		Error string
		End   struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(said), &report); err != nil {
		return 0, fmt.Errorf("iperf3 printed no report: %w", err)
	}
	if report.Error != "" || report.End.Received.Rate <= 0 {
		return 0, fmt.Errorf("iperf3 received nothing: %s", transfer.Printable(report.Error))
	}
	return report.End.Received.Rate / 8, nil
}

var versionFigure = regexp.MustCompile(`(?m)^(?:Version:|qperf|iperf) +([0-9][0-9A-Za-z.+-]*)`)

// parseVersion finds the figure in what a program says of itself; empty when there is none.
func parseVersion(said string) string {
	if m := versionFigure.FindStringSubmatch(said); m != nil {
		return m[1]
	}
	return ""
}
