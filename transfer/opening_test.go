package transfer

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// stuck is a transport whose lanes wait for a peer that does not come.
type stuck struct{ *memory }

func (s stuck) Prepare(ctx context.Context, h *wire.Hello, p LaneParams, open *wire.OpenLane) (PendingPuller, error) {
	_, err := s.memory.Prepare(ctx, h, p, open)
	return s, err
}

func (stuck) Connect(ctx context.Context, _ *wire.LaneAnswer) (Puller, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (stuck) Close() error { return nil }

// TestLaneThatBreaksWhileItOpens is given up at once, for the reason that the sender has.
func TestLaneThatBreaksWhileItOpens(t *testing.T) {
	for _, answered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine(t, nil)
			e.Receiver.RDMA, e.Receiver.Observer = stuck{e.lane}, new(end)
			a, b := sessions(t)
			h := newHostile(t, a)
			over := make(chan error)
			go func() {
				_, err := e.Receive(t.Context(), b)
				over <- err
			}()
			required := hello(VerifyBLAKE3)
			required.Transport = TransportRDMA
			h.say(required)
			open := await[*wire.OpenLane](h)
			if answered {
				h.say(&wire.LaneAnswer{ID: open.ID})
			}
			began := time.Now()
			h.say(&wire.LaneDown{ID: open.ID, Reason: "no memory left"})
			await[*wire.Abort](h)
			if took := time.Since(began); took >= openLimit { // by the bubble's clock
				t.Errorf("it took %v", took)
			}
			a.Close()
			wantCode(t, <-over, CodeNoRDMA, "no memory left")
		})
	}
}
