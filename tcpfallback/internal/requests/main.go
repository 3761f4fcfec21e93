// Requests measures small questions and their answers over TCP: a lane's protocol
// (wire.Request, wire.Answer) as this package serves it beside Go's net/http, both driven
// by one generator over as many persistent connections, each with one request in flight.
//
//	requests [-rounds 9] [-connections 32] [-duration 2s] [-sizes 1024,1048576] [-method auto]
//
// Every server is a process of its own, whose CPU time and peak of resident memory are
// told; theirs answers from memory, ours from a file in memory. Servers take turns, round
// by round. The last lines are the ratios of requests a second, ours by theirs, within
// rounds: their median and 95 % interval.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rdmaxfer/rdmaxfer/internal/median"
)

// options are what the flags say.
type options struct {
	rounds      int
	connections int
	duration    time.Duration
	method      string
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 9, "each server's turns at each size")
	flag.IntVar(&o.connections, "connections", 32, "connections, each with one request in flight")
	flag.DurationVar(&o.duration, "duration", 2*time.Second, "of one turn, without warming up")
	flag.StringVar(&o.method, "method", "auto", "how ours moves a file's bytes")
	sizes := flag.String("sizes", "1024,1048576", "bytes of an answer, up to 1 MiB")
	serve := flag.String("serve", "", "be a server, of answers of the first of -sizes: lane or http")
	flag.Parse()
	if err := run(&o, *sizes, *serve); err != nil {
		fmt.Fprintln(os.Stderr, "requests:", err)
		os.Exit(1)
	}
}

func run(o *options, sizes, serve string) error {
	var list []int
	for s := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > extentSize {
			return fmt.Errorf("-sizes %s: from 1 to %d", sizes, extentSize)
		}
		list = append(list, n)
	}
	if o.rounds < 1 || o.connections < 1 {
		return fmt.Errorf("-rounds and -connections: from 1")
	}
	if serve != "" {
		return serveAs(serve, list[0], o.method)
	}
	fmt.Println("| | answer | requests/s, median | p50 µs | p99 µs | p99.9 µs | server's CPU µs a request | peak of its memory, MiB |\n|---|---|---|---|---|---|---|---|")
	var ratios []string
	for _, size := range list {
		turns := make(map[string][]*turn)
		for range o.rounds {
			// Who is first is left to chance: what one leaves the next one meets.
			kinds := slices.Clone(kinds)
			rand.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
			for _, k := range kinds {
				t, err := take(context.Background(), o, k, size)
				if err != nil {
					return fmt.Errorf("%s, %d bytes: %w", k, size, err)
				}
				turns[k] = append(turns[k], t)
			}
		}
		for _, k := range kinds {
			printRow(k, size, turns[k])
		}
		var q []float64
		for i := range o.rounds {
			q = append(q, turns[lane][i].rate/turns[http_][i].rate)
		}
		low, high := median.Interval(q)
		ratios = append(ratios, fmt.Sprintf("%d bytes, requests/s, lane / net/http: %.2f (%.2f to %.2f)", size, median.Of(q), low, high))
	}
	fmt.Println("\n" + strings.Join(ratios, "\n"))
	return nil
}

func printRow(kind string, size int, turns []*turn) {
	all := newHistogram()
	var rate, cpu, memory []float64
	for _, t := range turns {
		all.Merge(t.took)
		rate, cpu, memory = append(rate, t.rate), append(cpu, t.cpu), append(memory, t.memory)
	}
	fmt.Printf("| %s | %d | %.0f | %s | %s | %s | %.1f | %.0f |\n", kind, size, median.Of(rate),
		quantile(all, 50), quantile(all, 99), quantile(all, 99.9), median.Of(cpu), median.Of(memory))
}

// quantile is in µs; of a sample in which fewer than ten are longer it is not told.
func quantile(h *hdrhistogram.Histogram, q float64) string {
	if float64(h.TotalCount())*(100-q)/100 < 10 {
		return "-"
	}
	return fmt.Sprintf("%.0f", float64(h.ValueAtQuantile(q))/1e3)
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, time.Minute.Nanoseconds(), 3)
}
