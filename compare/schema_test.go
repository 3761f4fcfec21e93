package compare

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Reports are as the published schema has them; what is not is noticed.
func TestReportsFollowTheSchema(t *testing.T) {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	schema, err := compiler.Compile("../docs/compare.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	validate := func(report string) error {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(report))
		if err != nil {
			return err
		}
		return schema.Validate(v)
	}
	for name, m := range map[string]*truth{
		"all":        {rates: map[string]float64{"read": 1e9, "write": 2e9, "copy": 1e9}, trip: time.Millisecond},
		"no RDMA":    {rates: map[string]float64{"copy": 1e9}, trip: time.Millisecond},
		"nothing":    {},
		"broken off": {rates: map[string]float64{"read": 1e9, "write": 2e9, "copy": 1e9}, trip: time.Millisecond, dies: 50},
		"no answer":  {dies: 1},
	} {
		o := options()
		if name == "all" {
			o.Peers = fakePeers(1e9, time.Millisecond)
		}
		r, _ := Run(t.Context(), m, o)
		r.Peer = "host:18700"
		node := -1
		r.Hardware = &Hardware{Devices: []Device{{Name: "rxe_a", NUMANode: &node, Ports: []Port{{Number: 1, Counters: map[string]uint64{"sent_pkts": 1}}}}}}
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
