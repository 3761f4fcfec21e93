//go:build rxe

package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

var writeWork = flag.String("work.write", "", "write what TestKnownWork counts to this file")

// workFile has what each way of moving a GiB took when it was last looked at:
// .ci/test-rxe --work writes it anew.
const workFile = "testdata/work.json"

// moreWork is how much more than that is a failure. Between two boots of the same program
// most figures differed by less than 7 %; the sender's system calls of TCP by 20 % and the
// receiver's instructions of write by 15 %, of which the higher are written down.
const moreWork = 1.25

// TestKnownWork is a gate on counted work, in a machine whose clock counts instructions: what
// else its host does changes nothing. What got better by as much is said, and is to be
// written down (.ci/test-rxe --work).
func TestKnownWork(t *testing.T) {
	tt := newTransfer(t)
	// A host of the pair has a /sys of its own.
	tracing := []string{"sh", "-c", `mount -t tracefs tracefs /sys/kernel/tracing && exec "$0" "$@"`}
	r := tt.recvWith(tracing, "--discard")
	twoHosts[1].startWith(t, tracing, "compare", "--key-file", tt.key, "--json", tt.reportPath(),
		"--methods", "rdma,copy", "--sizes", "64K", "--rounds", "5", "--duration", "200ms", "--count", tt.addr).want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	got := make(map[string]int64)
	for _, c := range tt.report().Cells {
		if c.Work == nil {
			t.Fatalf("%+v", c)
		}
		name := c.Transport + " " + c.Method
		// A nanosecond of a process is an instruction, in it or in the kernel for it.
		const perGiB = 1.073741824 * 1e9
		got[name+", instructions here"] = int64((c.CPU.Here.User + c.CPU.Here.System) * perGiB)
		got[name+", instructions there"] = int64((c.CPU.There.User + c.CPU.There.System) * perGiB)
		for end, w := range map[string]struct{ crossings, allocations, calls float64 }{
			"here":  {c.Work.Here.Crossings, c.Work.Here.Allocations, c.Work.Here.SystemCalls},
			"there": {c.Work.There.Crossings, c.Work.There.Allocations, c.Work.There.SystemCalls},
		} {
			if w.calls < 0 {
				t.Errorf("%s, %s: system calls were not counted: is there no tracefs?", name, end)
			}
			got[name+", crossings "+end], got[name+", allocations "+end], got[name+", system calls "+end] = int64(w.crossings), int64(w.allocations), int64(w.calls)
		}
	}
	if *writeWork != "" {
		b, err := json.MarshalIndent(got, "", "  ")
		if err == nil {
			err = os.WriteFile(*writeWork, append(b, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(workFile)
	if err != nil {
		t.Fatal(err)
	}
	var known map[string]int64
	if err := json.Unmarshal(b, &known); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		was, ok := known[name]
		if !ok {
			t.Errorf("%s: not in %s (.ci/test-rxe --work writes it)", name, workFile)
			continue
		}
		// What a connection and a clock take anyway is no work for a GiB.
		const some = 3000
		said := fmt.Sprintf("%s a GiB: %d, and it was %d", name, got[name], was)
		switch n := float64(got[name]); {
		case n > float64(was)*moreWork+some:
			t.Error(said)
		case n < float64(was)/moreWork-some:
			t.Log(said + ": better; write it down")
		default:
			t.Log(said)
		}
	}
}
