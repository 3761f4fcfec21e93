package rdma

import (
	"errors"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// TestOneEndAProbe: what a peer does with its numbers has no end forgotten.
func TestOneEndAProbe(t *testing.T) {
	var o offering
	first, second := new(probeEnd), new(probeEnd)
	if err := o.keep(3, first); err != nil {
		t.Fatal(err)
	}
	if err := o.keep(3, second); !errors.Is(err, wire.ErrMalformed) || o.ends[3] != first {
		t.Errorf("%v; the first is kept: %v", err, o.ends[3] == first)
	}
	o.ended = 3
	if err := o.keep(2, second); err == nil {
		t.Error("one that is over was kept")
	}
}
