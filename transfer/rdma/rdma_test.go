package rdma

import (
	"strings"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// TestMeasuredLanesAreAsDeepAsTheySay, or there is none: a transfer's would be shallower.
// Which it would be is seen before any device is.
func TestMeasuredLanesAreAsDeepAsTheySay(t *testing.T) {
	const none = "no_such_device"
	p := transfer.LaneParams{Path: none, Depth: 16, ExtentSize: 1 << 20}
	for _, c := range []struct {
		name    string
		measure bool
		memory  int64
		short   bool
	}{
		{"a transfer's", false, 8 << 20, false},
		{"a measured one", true, 8 << 20, true},
		{"a measured one with room", true, 16 << 20, false},
	} {
		receiver := &Transport{Memory: NewBudget(c.memory), rails: map[string]*pair{none: {mine: &Candidate{Candidate: wire.Candidate{Device: none}}, theirs: &wire.Candidate{}}}}
		_, err := receiver.Prepare(t.Context(), &wire.Hello{Op: OpWrite, Measure: c.measure}, p, new(wire.OpenLane))
		short := err != nil && strings.Contains(err.Error(), "a lane wants 16384 KiB of registered memory, and 8192 KiB are left of the 8192 KiB that --memory allows")
		if err == nil || short != c.short || receiver.Memory.left != c.memory {
			t.Errorf("%s: %v; %d bytes left", c.name, err, receiver.Memory.left)
		}
	}
}
