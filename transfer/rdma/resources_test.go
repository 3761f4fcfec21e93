package rdma

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
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

// TestShallower: half as deep as often as it takes, for want of memory alone.
func TestShallower(t *testing.T) {
	other := errors.New("no such device")
	for _, c := range []struct {
		depth, least int
		room         int // it is made up to that
		err          error
		tried        []int
	}{
		{16, 2, 16, nil, []int{16}},
		{16, 2, 5, nil, []int{16, 8, 4}},
		{16, 2, 1, syscall.ENOMEM, []int{16, 8, 4, 2}},
		{16, 16, 8, syscall.ENOMEM, []int{16}},
		{7, 2, 3, nil, []int{7, 3}},
		{1, 2, 0, syscall.ENOMEM, []int{1}},
		{16, 2, 0, other, []int{16}},
	} {
		var tried []int
		got, err := shallower(c.depth, c.least, func(depth int) (int, error) {
			tried = append(tried, depth)
			if depth <= c.room {
				return depth, nil
			}
			if c.err == other {
				return 0, other
			}
			return 0, fmt.Errorf("registering: %w", syscall.ENOMEM)
		})
		if !errors.Is(err, c.err) || !slices.Equal(tried, c.tried) || err == nil && got != tried[len(tried)-1] {
			t.Errorf("%+v: tried %v: %d, %v", c, tried, got, err)
		}
	}
}
