package rdma

import (
	"testing"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// TestReadsWithin: of either end the device's bound counts, and never does a number come
// out that stands for something else.
func TestReadsWithin(t *testing.T) {
	for _, c := range []struct {
		asked     int
		initiator bool
		ask       int // for so many READs the device can ask
		serve     int
		want      int // 0 for an error
	}{
		{16, true, 8, 32, 8},
		{16, false, 8, 32, 16},
		{16, false, 32, 0, 0},
		{1000, true, 1000, 1000, 254},
		{1000, false, 255, 255, 254},
	} {
		r := resources{shape: shape{op: OpRead, reads: c.asked, initiator: c.initiator}}
		err := r.readsWithin(&ibverbs.DeviceAttr{MaxQPInitRd: c.ask, MaxQPRead: c.serve})
		if (err != nil) != (c.want == 0) || err == nil && r.reads != c.want {
			t.Errorf("%+v: %d, %v", c, r.reads, err)
		}
	}
}
