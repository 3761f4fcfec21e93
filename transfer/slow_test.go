package transfer

import (
	"testing"
	"testing/synctest"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// TestLaneThatIsGivenUpWaitsForNoLimit: its turn is the others', and what it holds is freed.
func TestLaneThatIsGivenUpWaitsForNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := against(t, t.Context(), func(s *Sender) { s.Limit = 1 })
		bad.lane.Prepare(t.Context(), nil, LaneParams{ID: 1, Depth: 1}, new(wire.OpenLane))
		bad.say(welcome, &wire.OpenLane{ID: 1, Depth: 1, RDMA: &wire.RDMALane{QP: wire.QueuePair{MTU: 1}}}, &wire.Plan{})
		await[*wire.ManifestEnd](bad.hostile)
		lane := bad.lane.lanes[1]
		lane.requests <- wire.Request{Count: 1, Length: uint32(len("hello"))}
		synctest.Wait()
		bad.say(&wire.LaneDown{ID: 1})
		synctest.Wait()
		select {
		case <-lane.broken:
		default:
			t.Error("its server waits for the rate limit still")
		}
		bad.finish()
	})
}
