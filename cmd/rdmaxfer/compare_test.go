package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

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
	tt.compare("--methods", "tcp,udp", "--sizes", "64K,4K", "--hardware", "--rounds", "4", "--csv", csv, "--html", page, "--hgrm", hgrm).want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	report := tt.report()
	if !report.Complete || report.Rounds != 4 || len(report.Skipped) != 0 || len(report.Cells) == 0 {
		t.Fatalf("%+v", report)
	}
	for _, c := range report.Cells {
		there := "method=" + c.Method
		if c.Transport == "udp" {
			there = "datagram="
		}
		if c.Rate.Median <= 0 || c.Trip.Median <= 0 || len(c.Rates) != 4 || !strings.HasPrefix(c.There, there) || (c.Datagrams == nil) != (c.Transport == "tcp") {
			t.Errorf("%+v", c)
		}
	}
	if last := report.Cells[len(report.Cells)-1]; last.Transport != "udp" {
		t.Errorf("%+v", last)
	}
	for _, h := range []*compare.Hardware{report.Hardware, report.There} { // they are one host
		if h == nil || h.Kernel != report.Host.Kernel || h.CPUs != report.Host.CPUs || h.NUMANodes < 1 {
			t.Errorf("%+v", h)
		}
	}
	follows(t, "compare", tt.reportPath())
	if list, err := filepath.Glob(filepath.Join(hgrm, "*-4K-*.hgrm")); err != nil || len(list) != 3*len(report.Cells)/2 {
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
	tt.compare("--methods", "tcp", "--sizes", "4K", "--rounds", "4", "--baseline", baseline).want(transfer.CodeWorse, "worse: tcp copy at 4K, bandwidth")
	r.want(transfer.CodeOK)
	tt.compare("--depth", "3", "--baseline", baseline).want(transfer.CodeUsage, "--depth 16")
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
	follows(t, "compare", tt.reportPath())
}

func TestBench(t *testing.T) {
	for op, transport := range map[string]string{"copy": "tcp", "udp": "udp"} {
		tt := newTransfer(t)
		r := tt.recv("--discard")
		b := twoHosts[1].start(t, "bench", "lat", "--key-file", tt.key, "--op", op, "--size", "100", "--duration", "50ms", "--json", tt.addr)
		e := b.await("bench")
		b.want(transfer.CodeOK)
		r.want(transfer.CodeOK)
		if e["size_bytes"] != 100.0 || e["depth"] != 1.0 || e["messages"].(float64) < 1 || e["transport"] != transport {
			t.Errorf("%v", e)
		}
		if err := published(t, "bench").Validate(e); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// published is one of the schemas in docs.
func published(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile("../../docs/" + name + ".schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// follows checks a file against a published schema.
func follows(t *testing.T, name, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := published(t, name).Validate(v); err != nil {
		t.Errorf("%s: %v", path, err)
	}
}

// Others' programs stand beside ours, those for which there is no device are left out, and
// a receiver that was not told to runs none.
func TestComparePeers(t *testing.T) {
	tt := newTransfer(t)
	r := tt.recv("--discard", "--allow-peers")
	tt.compare("--methods", "copy", "--sizes", "64K", "--rounds", "1", "--peers").want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	report := tt.report()
	programs := make(map[string]*compare.PeerCell)
	for i := range report.Peers {
		programs[report.Peers[i].Program] = &report.Peers[i]
	}
	for _, name := range []string{"qperf tcp", "iperf3"} {
		c := programs[name]
		if c == nil || c.Version == "" || c.Beside != "tcp copy" || c.Rate.Median <= 0 || c.RateRatio.Median <= 0 || c.CPU.There.System <= 0 || (c.Trip == nil) != (name == "iperf3") {
			t.Errorf("%s: %+v, skipped %+v", name, c, report.Skipped)
		}
	}
	if !report.Complete || len(report.Peers)+len(report.Skipped) != 6 || len(report.Normalised) != len(report.Peers) {
		t.Errorf("%+v", report)
	}

	r = tt.recv("--discard")
	tt.compare("--methods", "copy", "--peers").want(transfer.CodeUsage, "recv --allow-peers")
	r.want(transfer.CodeOK)
}

// What the receiver runs ends with the receiver, also when that is killed.
func TestPeersEndWithTheReceiver(t *testing.T) {
	tt := newTransfer(t)
	r := tt.recv("--discard", "--allow-peers")
	c := twoHosts[1].start(t, "bench", "bw", "--key-file", tt.key, "--op", "copy", "--duration", "50ms", "--peers", tt.addr)
	children := func() (pids []string) {
		list, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", r.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range list {
			b, _ := os.ReadFile(path) // the thread may have ended
			pids = append(pids, strings.Fields(string(b))...)
		}
		return pids
	}
	var pids []string
	for deadline := time.Now().Add(patience); len(pids) == 0; pids = children() {
		if time.Now().After(deadline) {
			t.Fatal("the receiver runs nothing")
		}
	}
	r.signal(syscall.SIGKILL)
	c.want(transfer.CodeConnect)
	for _, pid := range pids {
		for deadline := time.Now().Add(patience); ; {
			state, err := os.ReadFile("/proc/" + pid + "/stat")
			if err != nil || strings.Contains(string(state), ") Z ") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the receiver was killed, and its program lives on: %s", state)
			}
		}
	}
}
