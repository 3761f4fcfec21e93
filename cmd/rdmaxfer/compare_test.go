package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/compare"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// compare starts a comparison with the receiver that listens; its report is for report.
func (tt *transferTest) compare(args ...string) *proc {
	tt.t.Helper()
	args = append([]string{"compare", "--key-file", tt.key, "--rounds", "2", "--duration", "50ms", "--json", tt.reportPath()}, args...)
	return twoHosts[1].start(tt.t, append(args, tt.addr)...)
}

// awaitText waits until the program has said something on standard error.
func (p *proc) awaitText(text string) {
	p.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		said := strings.Contains(p.stderr.String(), text)
		p.mu.Unlock()
		if said {
			return
		}
		select {
		case <-tick.C:
		case <-p.ended:
			p.t.Fatalf("%s ended before it said %q", p.name, text)
		case <-deadline:
			p.t.Fatalf("%s has not said %q", p.name, text)
		}
	}
}

func (tt *transferTest) reportPath() string { return filepath.Join(tt.dir, "report.json") }

func (tt *transferTest) report() *compare.Report {
	tt.t.Helper()
	b, err := os.ReadFile(tt.reportPath())
	if err != nil {
		tt.t.Fatal(err)
	}
	r, err := compare.ReadJSON(b)
	if err != nil {
		tt.t.Fatal(err)
	}
	return r
}

func TestCompare(t *testing.T) {
	tt := newTransfer(t)
	r := tt.recv("--discard")
	csv, page, hgrm := filepath.Join(tt.dir, "report.csv"), filepath.Join(tt.dir, "report.html"), filepath.Join(tt.dir, "hgrm")
	tt.compare("--methods", "tcp", "--sizes", "64K,4K", "--csv", csv, "--html", page, "--hgrm", hgrm).want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	report := tt.report()
	if !report.Complete || report.Rounds != 2 || len(report.Skipped) != 0 || len(report.Cells) == 0 {
		t.Fatalf("%+v", report)
	}
	for _, c := range report.Cells {
		if c.Transport != "tcp" || c.Rate.Median <= 0 || c.Trip.Median <= 0 || len(c.Rates) != 2 || c.There != "method="+c.Method {
			t.Errorf("%+v", c)
		}
	}
	if list, err := filepath.Glob(filepath.Join(hgrm, "tcp-*-4K.hgrm")); err != nil || len(list) != len(report.Cells)/2 {
		t.Errorf("%v, %v", list, err)
	}
	for _, path := range []string{csv, page} {
		if st, err := os.Stat(path); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}

	// A baseline that nothing can reach.
	for i := range report.Cells {
		c := &report.Cells[i]
		c.Rate = compare.Interval{Median: c.Rate.Median * 1000, Low: c.Rate.Low * 1000, High: c.Rate.High * 1000}
	}
	b, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	baseline := filepath.Join(tt.dir, "baseline.json")
	if err := os.WriteFile(baseline, b, 0o644); err != nil {
		t.Fatal(err)
	}
	r = tt.recv("--discard")
	tt.compare("--methods", "tcp", "--sizes", "4K", "--baseline", baseline).want(transfer.CodeWorse, "worse: tcp copy at 4K")
	r.want(transfer.CodeOK)
}

// What is interrupted has a report of what was measured.
func TestCompareInterrupted(t *testing.T) {
	tt := newTransfer(t)
	tt.recv("--discard")
	c := tt.compare("--methods", "copy", "--sizes", "4K", "--rounds", "1000")
	c.awaitText("round 2 of 1000")
	c.signal(syscall.SIGINT)
	c.want(130)
	if r := tt.report(); r.Complete || r.Reason == "" || r.Rounds < 1 || len(r.Cells) != 1 {
		t.Errorf("%+v", r)
	}
}

func TestBench(t *testing.T) {
	tt := newTransfer(t)
	r := tt.recv("--discard")
	b := twoHosts[1].start(t, "bench", "lat", "--key-file", tt.key, "--op", "copy", "--size", "100", "--duration", "50ms", "--json", tt.addr)
	e := b.await("bench")
	b.want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	if e["size_bytes"] != 100.0 || e["depth"] != 1.0 || e["messages"].(float64) < 1 || e["transport"] != "tcp" {
		t.Errorf("%v", e)
	}
}
