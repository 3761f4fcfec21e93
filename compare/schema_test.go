package compare

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schema gives what checks a report against one of the published schemas.
func schema(t *testing.T, name string) func(report string) error {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	schema, err := compiler.Compile("../docs/" + name + ".schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return func(report string) error {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(report))
		if err != nil {
			return err
		}
		return schema.Validate(v)
	}
}

// Reports are as the published schema has them; what is not is noticed.
func TestReportsFollowTheSchema(t *testing.T) {
	validate := schema(t, "compare")
	for name, m := range map[string]*truth{
		"all":        {rates: map[string]float64{"read": 1e9, "write": 2e9, "copy": 1e9, "datagram": 1e9}, trip: time.Millisecond},
		"no RDMA":    {rates: map[string]float64{"copy": 1e9}, trip: time.Millisecond},
		"nothing":    {},
		"broken off": {rates: map[string]float64{"read": 1e9, "write": 2e9, "copy": 1e9}, trip: time.Millisecond, dies: 50},
		"no answer":  {dies: 1},
	} {
		o := options()
		if name == "all" {
			o.Peers = fakePeers(1e9, time.Millisecond)
			o.Methods = append(o.Methods, Method{Transport: "udp", Name: "datagram"})
		}
		r, _ := Run(t.Context(), m, o)
		r.Peer = "host:18700"
		node := -1
		r.Hardware = &Hardware{Devices: []Device{{Name: "rxe_a", Provider: "librxe-rdmav57.so", NUMANode: &node, Ports: []Port{{Number: 1, Counters: map[string]uint64{"sent_pkts": 1}}}}}}
		r.There = &Hardware{Kernel: "7.3", CPUs: 2, Processor: "A Processor", RDMACore: "libibverbs.so.1.15.61.0", Devices: []Device{}}
		var report bytes.Buffer
		if err := r.WriteJSON(&report); err != nil {
			t.Fatal(err)
		}
		if err := validate(report.String()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for old, changed := range map[string]string{`"schema": 1`: `"schema": 2`, `"verdict": "`: `"judgement": "`, `"rounds": `: `"rounds": -`, `"program": "`: `"program": "my`} {
			if bad := strings.Replace(report.String(), old, changed, 1); bad != report.String() && validate(bad) == nil && !strings.Contains(bad, `"rounds": -0`) {
				t.Errorf("%s: %s is valid", name, changed)
			}
		}
	}
}

// So are bench's events, of the verbs and of lanes, complete or not.
func TestBenchFollowsItsSchema(t *testing.T) {
	validate := schema(t, "bench")
	check := func(name string, r interface{ WriteJSON(io.Writer) error }) {
		t.Helper()
		var event bytes.Buffer
		if err := r.WriteJSON(&event); err != nil {
			t.Fatal(err)
		}
		if err := validate(event.String()); err != nil {
			t.Errorf("%s: %v\n%s", name, err, event.String())
		}
		for _, changed := range [][2]string{{`"schema":1`, `"schema":2`}, {`"event":"bench"`, `"event":"bank"`}, {`"level":"`, `"level":"x`}, {`"complete":`, `"finished":`}, {`"messages":`, `"messages":-`}, {`"size_bytes":`, `"size":`}} {
			if bad := strings.Replace(event.String(), changed[0], changed[1], 1); validate(bad) == nil {
				t.Errorf("%s: %s is valid", name, changed[1])
			}
		}
	}
	for name, o := range map[string]VerbsOptions{
		"bandwidth":  {Op: "write", Size: 4096, Duration: time.Second, WarmUp: time.Second / 4, Rounds: 3, Both: true, Peers: fakePeers(1e6, time.Millisecond)},
		"iterations": {Op: "ud", Size: 4096, Iterations: 1000, Spin: 20 * time.Microsecond, Events: true},
		"latency":    {Op: "write", Latency: true, Size: 64, Duration: time.Second, Peers: fakePeers(1e6, time.Millisecond)},
	} {
		r, err := BenchVerbs(t.Context(), new(verbsTruth), nil, o)
		if err != nil || !r.Complete {
			t.Fatal(name, err)
		}
		check(name, r)
	}
	r, err := BenchVerbs(t.Context(), &verbsTruth{dies: 3}, nil, VerbsOptions{Op: "read", Size: 64, Duration: time.Second, Rounds: 9})
	if !errors.Is(err, errGone) || r.Complete || r.Rounds != 2 || len(r.Rates) != 2 || r.Reason != errGone.Error() {
		t.Fatalf("%+v, %v", r, err)
	}
	check("broken off", r)
	r, _ = BenchVerbs(t.Context(), &verbsTruth{dies: 1}, nil, VerbsOptions{Op: "read", Size: 64, Duration: time.Second, Rounds: 9})
	var nothing bytes.Buffer
	if err := r.WriteJSON(&nothing); err != nil {
		t.Fatal(err)
	}
	if err := validate(nothing.String()); err != nil {
		t.Errorf("nothing measured: %v\n%s", err, nothing.String())
	}
	if bad := strings.Replace(nothing.String(), `"complete":false`, `"complete":true`, 1); validate(bad) == nil {
		t.Error("nothing measured, and complete, is valid")
	}
	for _, m := range options().Methods {
		s, err := Bench(t.Context(), &truth{rates: map[string]float64{"read": 1e9, "write": 1e9, "copy": 1e9}, trip: time.Millisecond}, m, 4096, 1, time.Second, fakePeers(1e9, time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		check(m.String(), s)
	}
	s, err := Bench(t.Context(), &truth{rates: map[string]float64{"datagram": 1e9}, trip: time.Millisecond}, Method{Transport: "udp", Name: "datagram"}, 4096, 16, time.Second, nil)
	if err != nil || s.Datagrams == nil {
		t.Fatal(s, err)
	}
	check("udp", s)
}
