package limit

import (
	"fmt"
	"strconv"
	"strings"
)

// Rate is bytes a second, at least 1.
type Rate int64

// maxRate is more than any link has, and exact as a float64.
const maxRate = 1 << 50

// ParseRate understands bytes (20MB/s, 1.5GiB/s), bits (160Mbit/s) and what sizes
// look like (20M: as there, 20 MiB a second). With B or bit, k, M, G and T are powers
// of 1000, and Ki, Mi, Gi and Ti of 1024.
func ParseRate(s string) (Rate, error) {
	bad := func(format string, args ...any) (Rate, error) {
		return 0, fmt.Errorf("rate %q: "+format+" (say 20MB/s, 1.5GiB/s, 160Mbit/s or 20M)", append([]any{s}, args...)...)
	}
	digits := len(s) - len(strings.TrimLeft(s, "0123456789."))
	number, err := strconv.ParseFloat(s[:digits], 64)
	if err != nil {
		return bad("it must begin with a number")
	}
	rest, perSecond := strings.CutSuffix(strings.TrimPrefix(s[digits:], " "), "/s")
	unit, bytes := "", 1.0
	for _, u := range []struct {
		name  string
		bytes float64
	}{{"bit", 1. / 8}, {"B", 1}} {
		if prefix, ok := strings.CutSuffix(rest, u.name); ok {
			rest, unit, bytes = prefix, u.name, u.bytes
			break
		}
	}
	if unit == "" && perSecond {
		return bad("B (bytes) or bit is missing before /s")
	}
	prefix, binary := strings.CutSuffix(rest, "i")
	base := 1000.0
	if binary || unit == "" {
		base = 1024
	}
	power := strings.Index("kMGT", strings.Replace(prefix, "K", "k", 1)) + 1
	switch {
	case prefix == "" && !binary:
		power = 0
	case len(prefix) != 1 || power == 0:
		return bad("%q is no unit of it", s[digits:])
	}
	for range power {
		bytes *= base
	}
	switch r := number * bytes; {
	case r < 1:
		return bad("nothing would ever move")
	case r > maxRate:
		return bad("that is more than can be limited")
	default:
		return Rate(r), nil
	}
}
