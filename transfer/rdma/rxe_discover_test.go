//go:build rxe

package rdma

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// liar is a scout of a sender that answers with what it likes.
type liar struct {
	*Transport // an honest sending end, on this host
	spoil      func(*wire.PathAnswer)
	mute       bool
}

func (l *liar) Offer(context.Context) (*wire.Offer, error) { return l.Reoffer(), nil }

func (l *liar) Probe(ctx context.Context, m *wire.ProbePath) (*wire.PathAnswer, error) {
	if l.mute {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	a := l.Transport.Probe(m)
	if l.spoil != nil && a.QP != nil {
		l.spoil(a)
	}
	return a, nil
}

func (l *liar) Over(_ context.Context, below uint32) ([]uint32, error) {
	return l.EndProbes(below), nil
}

// TestLiars: whatever a sender offers and answers, paths that don't carry are not chosen,
// the search ends, and nothing is left open.
func TestLiars(t *testing.T) {
	for _, c := range []struct {
		name  string
		offer func(*wire.Offer)
		spoil func(*wire.PathAnswer)
		mute  bool
		rails int
		words string
	}{
		{name: "the truth", rails: 1},
		{name: "another queue pair", spoil: func(a *wire.PathAnswer) { a.QP.QPN ^= 0x5500 }, words: "no acknowledgement"},
		{name: "another packet number", spoil: func(a *wire.PathAnswer) { a.QP.PSN ^= 1 }, rails: 1}, // it is about its own sends
		{name: "an address of nobody", spoil: func(a *wire.PathAnswer) { copy(a.QP.GID[12:], []byte{10, 0, 0, 99}) }, words: "10.0.0.1"},
		{name: "no answer", mute: true, words: "did not say in time"},
		{name: "an address that is not there", offer: func(o *wire.Offer) {
			for i := range o.Candidates {
				copy(o.Candidates[i].GID[12:], []byte{10, 0, 0, 77})
			}
		}, rails: 1}, // the queue pair's own address is what counts
		{name: "numbers of nothing", offer: func(o *wire.Offer) {
			for i := range o.Candidates {
				o.Candidates[i].Number += 1000
			}
		}, words: "chose address 1000"},
		{name: "a thousand times the same", offer: func(o *wire.Offer) {
			for len(o.Candidates) < wire.MaxCandidates {
				o.Candidates = append(o.Candidates, o.Candidates[0])
			}
		}, rails: 1},
		{name: "nothing", offer: func(o *wire.Offer) { o.Candidates, o.Reason = nil, "\x1b[2J" }, words: "the sender has"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sender := &liar{Transport: new(Transport), spoil: c.spoil, mute: c.mute}
			hello := new(wire.Hello)
			sender.Transport.Offer(hello)
			if c.offer != nil {
				c.offer(hello.RDMA)
			}
			receiver := new(Transport)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			names, report, err := receiver.Paths(ctx, transfer.PathQuery{Hello: hello, Scout: sender})
			if rails := len(slices.Compact(names)); rails != c.rails || (err == nil) != (c.rails > 0) || err != nil && !strings.Contains(err.Error(), c.words) {
				t.Errorf("rails %q, %v; %+v", names, err, report)
			}
			if err != nil && strings.ContainsRune(err.Error(), 0x1b) {
				t.Errorf("an escape in %q", err)
			}
			// What hangs in the kernel is not waited for, and ends by itself.
			for end := time.Now().Add(patience); len(ibverbs.Live()) > 0; {
				if time.Now().After(end) {
					t.Fatalf("left open: %v", ibverbs.Live())
				}
				sender.EndProbes(1 << 31)
			}
		})
	}
}

// TestSearchEndsWithItsContext: at once, and says so.
func TestSearchEndsWithItsContext(t *testing.T) {
	sender := &liar{Transport: new(Transport), mute: true}
	hello := new(wire.Hello)
	sender.Transport.Offer(hello)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("stopped"))
	if names, _, err := new(Transport).Paths(ctx, transfer.PathQuery{Hello: hello, Scout: sender}); err == nil {
		t.Errorf("found %v", names)
	}
}
