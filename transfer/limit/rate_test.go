package limit

import (
	"strings"
	"testing"
)

func TestParseRate(t *testing.T) {
	for s, want := range map[string]Rate{
		"1":          1,
		"20MB/s":     20_000_000,
		"20 MB/s":    20_000_000,
		"20MB":       20_000_000,
		"160Mbit/s":  20_000_000,
		"160 Mbit":   20_000_000,
		"20M":        20 << 20,
		"20Mi":       20 << 20,
		"20MiB/s":    20 << 20,
		"1.5GiB/s":   3 << 29,
		"1.5G":       3 << 29,
		"100Gbit/s":  12_500_000_000,
		"8Kibit/s":   1024,
		"8kbit/s":    1000,
		"8Kbit/s":    1000,
		"1k":         1024,
		"1K":         1024,
		"0.5TB/s":    500_000_000_000,
		".5kB/s":     500,
		"8bit/s":     1,
		"12B/s":      12,
		"1024TiB/s":  1 << 50,
		"0000020M":   20 << 20,
		"1.9999B/s":  1,
		"1000000000": 1_000_000_000,
	} {
		if got, err := ParseRate(s); got != want || err != nil {
			t.Errorf("%q: %d, %v, want %d", s, got, err, want)
		}
	}
}

func TestParseRateRefuses(t *testing.T) {
	for s, why := range map[string]string{
		"":                       "begin with a number",
		"fast":                   "begin with a number",
		"-1M":                    "begin with a number",
		"+1M":                    "begin with a number",
		"NaN":                    "begin with a number",
		"Inf":                    "begin with a number",
		".":                      "begin with a number",
		"1.2.3M":                 "begin with a number",
		"1e9":                    `"e9" is no unit`,
		"0x10":                   `"x10" is no unit`,
		"20Mb/s":                 "bytes) or bit is missing",
		"20M/s":                  "bytes) or bit is missing",
		"20/s":                   "bytes) or bit is missing",
		"20Mbps":                 `"Mbps" is no unit`,
		"20iB/s":                 `"iB/s" is no unit`,
		"20MM":                   `"MM" is no unit`,
		"20kMB":                  `"kMB" is no unit`,
		"20mB/s":                 `"mB/s" is no unit`,
		"20MB/h":                 `"MB/h" is no unit`,
		"20MB/s ":                `"MB/s " is no unit`,
		"20  MB/s":               `"  MB/s" is no unit`,
		"0":                      "nothing would ever move",
		"0.0MB/s":                "nothing would ever move",
		"7bit/s":                 "nothing would ever move",
		"1025TiB/s":              "more than can be limited",
		"9999999999999999999999": "more than can be limited",
	} {
		got, err := ParseRate(s)
		if err == nil || got != 0 || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "160Mbit/s") {
			t.Errorf("%q: %d, %v, want: %s", s, got, err, why)
		}
	}
}

func FuzzParseRate(f *testing.F) {
	f.Add("1.5GiB/s")
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := ParseRate(s); err == nil != (r >= 1 && r <= maxRate) {
			t.Errorf("%q: %d, %v", s, r, err)
		}
	})
}
