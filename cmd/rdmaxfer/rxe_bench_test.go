//go:build rxe

package main

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/compare"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// TestBenchVerbs measures the verbs by every op, with each of perftest's settings, and has
// them reported as they were used.
func TestBenchVerbs(t *testing.T) {
	tt := newTransfer(t)
	tt.receiver = twoHosts[0].start(t, "recv", "--json", "--listen", twoHosts[0].addr+":0", "--key-file", tt.key, "--discard", "--allow-peers")
	tt.addr = tt.receiver.await("listening")["address"].(string)
	for args, want := range map[string]map[string]any{
		"bw --op write":                                {"depth": 128.0, "messages_per_completion": 1.0},
		"bw --op read --iters 40 --depth 8":            {"depth": 8.0, "iterations": 40.0, "messages": 40.0},
		"bw --op send --size 4K --qps 3 --iters 300":   {"queue_pairs": 3.0, "messages": 300.0, "messages_per_completion": 100.0},
		"bw --op send --both --size 16K":               {"both_directions": true},
		"bw --op write --both --buffers 64 --events":   {"buffers": 64.0, "events": true},
		"bw --op write --size 4K --chain 16":           {"messages_per_doorbell": 16.0},
		"bw --op write --mtu 1024":                     {"path_mtu_bytes": 1024.0},
		"bw --op ud --size 2K --depth 16":              {"path_mtu_bytes": 4096.0},
		"lat --op write":                               {"depth": 1.0},
		"lat --op write --size 7 --buffers 3":          {"buffers": 3.0},
		"lat --op read --iters 50":                     {"iterations": 50.0, "messages": 50.0},
		"lat --op send --events --spin 20us --iters 9": {"spin_seconds": 20e-6, "messages": 9.0},
		"lat --op ud --iters 50":                       {"messages": 50.0},
	} {
		words := strings.Fields(args)
		argv := append([]string{"bench", words[0], "--json", "--key-file", tt.key, "--duration", "400ms", "--rounds", "1"}, words[1:]...)
		b := twoHosts[1].start(t, append(argv, tt.addr)...)
		e := b.want(transfer.CodeOK)
		if err := published(t, "bench").Validate(e); err != nil {
			t.Errorf("%s: %v", args, err)
		}
		for field, value := range want {
			if e[field] != value {
				t.Errorf("%s: %s is %v, want %v", args, field, e[field], value)
			}
		}
		figure := "rate_bytes_per_second"
		if words[0] == "lat" {
			figure = "round_trip_seconds"
		}
		interval, _ := e[figure].(map[string]any)
		if v, _ := interval["median"].(float64); v <= 0 || !strings.HasPrefix(e["here"].(string), "rxe_b") || !strings.HasPrefix(e["there"].(string), "rxe_a") {
			t.Errorf("%s: %v", args, maps.Clone(e))
		}
	}
	for args, words := range map[string][]string{
		"bw --op ud --size 8K":                 {"carries 4096"},
		"bw --op write --size 16M --buffers 4": {"registered memory"},
	} {
		argv := append([]string{"bench"}, strings.Fields(args)...)
		twoHosts[1].start(t, append(argv, "--key-file", tt.key, tt.addr)...).want(transfer.CodeNoRDMA, words...)
	}
	b := twoHosts[1].start(t, "bench", "lat", "--json", "--op", "read", "--iters", "200", "--peers", "--traffic-class", "106", "--sl", "1", "--qp-timeout", "18", "--mtu", "1024", "--pkey", "0xffff", "--key-file", tt.key, tt.addr)
	e := b.want(transfer.CodeOK)
	if peers, _ := e["peers"].([]any); len(peers) != 1 || e["skipped"] != nil || e["soft"] != true {
		t.Errorf("%v", e)
	}
	if err := published(t, "bench").Validate(e); err != nil {
		t.Error(err)
	}
}

// TestBenchVerbsCut: a path that dies is an error, and the receiver serves the next.
func TestBenchVerbsCut(t *testing.T) {
	tt := newTransfer(t)
	r := tt.recv("--discard")
	b := twoHosts[1].start(t, "bench", "lat", "--op", "send", "--duration", "60s", "--warm-up", "0s", "--key-file", tt.key, tt.addr)
	for before := packets(t, "rxe_a", "rcvd_pkts"); packets(t, "rxe_a", "rcvd_pkts") == before; {
	}
	fault(t, "cut-rdma", "heal")
	b.want(transfer.CodeNoRDMA)
	r.want(transfer.CodeOK)
}

// TestHardwareReport rehearses "make hw-report" on the pair.
func TestHardwareReport(t *testing.T) {
	tt := newTransfer(t)
	disk := t.TempDir()
	mount(t, disk, "size=300m")
	here := func() *compare.Hardware { return compare.ReadHardware(os.DirFS("/sys"), os.DirFS("/proc")) }
	before := here()
	r := tt.recv("--discard", "--allow-peers")
	tt.compare("--peers", "--hardware", "--fio", disk, "--sizes", "4K", "--methods", "rdma,copy,udp", "--rounds", "1", "--duration", "300ms").want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	report := tt.report()
	if report.Hardware == nil || report.There == nil || len(report.Skipped) > 0 || len(report.Peers) != 8 || len(report.Cells) != 5 {
		t.Fatalf("%+v", report)
	}
	follows(t, "compare", tt.reportPath())
	for _, h := range []*compare.Hardware{report.Hardware, report.There} {
		if !strings.HasPrefix(h.RDMACore, "libibverbs.so.1.") || slices.ContainsFunc(h.Devices, func(d compare.Device) bool { return !strings.HasPrefix(d.Provider, "librxe") }) {
			t.Errorf("%+v", h)
		}
	}
	if c := report.Cells[4]; c.Transport != "udp" || c.Datagrams == nil || c.Datagrams.Asked == 0 {
		t.Errorf("%+v", c)
	}
	// A namespace's /sys lacks the counters of a device that it shares; this process's has them.
	after := here()
	after.Since(before)
	for _, d := range after.Devices {
		if len(d.Ports) != 1 || d.Ports[0].Counters["sent_pkts"] == 0 || d.Ports[0].Counters["rcvd_pkts"] == 0 {
			t.Errorf("%+v", d)
		}
	}
	for name, h := range map[string]*compare.Hardware{"rxe_b": report.Hardware, "rxe_a": report.There} {
		n := slices.IndexFunc(h.Devices, func(d compare.Device) bool { return d.Name == name })
		if n < 0 {
			t.Errorf("no %s: %+v", name, h)
			continue
		}
		d := h.Devices[n]
		if len(d.Ports) != 1 || !strings.Contains(d.Ports[0].State, "ACTIVE") || d.Ports[0].NetMTU != 4200 || d.Ports[0].Rate == "" {
			t.Errorf("%+v", d)
		}
	}
	for _, c := range report.Cells {
		if c.Transport == "rdma" && (c.Memory.Here.Pinned == 0 || c.Memory.There.Pinned == 0) || c.Memory.Here.Peak == 0 || c.Open == nil || c.Open.Trips.Count == 0 {
			t.Errorf("%s %s: %+v, %+v", c.Transport, c.Method, c.Memory, c.Open)
		}
	}
}
