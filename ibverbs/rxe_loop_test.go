//go:build rxe

package ibverbs

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

// loopOf is a side's loop: what goes out is at the beginning of its memory, and what comes
// in from 4096 on, two places each.
func (s *side) loopOf(t *testing.T, op Opcode, peer *side, change func(*LoopConfig)) LoopConfig {
	t.Helper()
	q := LoopQueue{QP: s.qp, Send: s.wr(op, 0, 64, peer, 4096), Recv: RecvWR{ID: LoopRecvID, NumSGE: 1}, Posted: 12}
	q.Recv.SGE[0] = s.mr.SGE(4096, 64)
	c := LoopConfig{Queues: []LoopQueue{q}, Depth: 8, Chain: 3, Signal: 4, Repost: 2, Places: 2, Stride: 128, GiveWay: 4}
	if change != nil {
		change(&c)
	}
	if op == OpSend {
		for i := range c.Queues[0].Posted {
			s.recv(t, LoopRecvID, 4096+i%2*128, 64)
		}
	}
	return c
}

// manyReceives are more than these tests send: whoever is late with posting them again, on a
// busy machine, is not too late.
const manyReceives = 320

// roomy makes two connected sides with room for as many receives, and for their completions.
func roomy(t *testing.T) (s [2]*side) {
	t.Helper()
	ctx, gid := openTest(t)
	var conf [2]QPConfig
	for i := range s {
		s[i] = newSide(t, ctx, 0)
		closed(t, s[i].cq)
		cq, err := ctx.CreateCQ(2 * manyReceives)
		if err != nil {
			t.Fatal(err)
		}
		s[i].cq = cq // what closes the other closes this
		conf[i] = QPConfig{GIDIndex: gid.Index, SendCQ: cq, RecvCQ: cq, MaxSend: 16, MaxRecv: manyReceives, Access: AccessRemoteRead | AccessRemoteWrite}
	}
	s[0].qp, s[1].qp = connect(t, s[0].pd, s[1].pd, conf[0], conf[1], ConnectParams{})
	for _, s := range s {
		t.Cleanup(func() { closed(t, s.qp) })
	}
	return s
}

// beside runs f of a loop that ends when told to. The end that is returned does that, and
// says what f answered if that is not the end of its context.
func beside(t *testing.T, f func(context.Context) error) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error)
	go func() { over <- f(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-over; !errors.Is(err, context.Canceled) {
			t.Errorf("the other end: %v", err)
		}
	}
}

// TestPump: what one end sends the other takes, by polling and on events.
func TestPump(t *testing.T) {
	for name, events := range map[string]bool{"polling": false, "events": true} {
		s := roomy(t)
		a, b := s[0], s[1]
		if events {
			for _, s := range s {
				if err := s.cq.HoldThread(); err != nil {
					t.Fatal(err)
				}
			}
		}
		copy(a.bytes(0, 64), bytes.Repeat([]byte{1}, 64))
		copy(a.bytes(128, 64), bytes.Repeat([]byte{2}, 64))
		sink := newPump(t, b.cq, b.loopOf(t, OpSend, a, func(c *LoopConfig) { c.Depth, c.Events, c.Queues[0].Posted = 0, events, manyReceives }))
		source := newPump(t, a.cq, a.loopOf(t, OpSend, b, func(c *LoopConfig) { c.Events = events }))
		var took Pumped
		end := beside(t, func(ctx context.Context) (err error) {
			took, err = sink.Run(ctx, 0, 0, 0)
			return err
		})
		done, err := source.Run(t.Context(), 0, 0, 301)
		if err != nil || done.Sent != 301 {
			t.Fatalf("%s: %+v, %v", name, done, err)
		}
		end()
		// Each was acknowledged, so each took a receive before the other end was told to end.
		if took.Received != 301 || !bytes.Equal(b.bytes(4096, 64), a.bytes(0, 64)) || !bytes.Equal(b.bytes(4096+128, 64), a.bytes(128, 64)) {
			t.Errorf("%s: %d of %d came", name, took.Received, done.Sent)
		}
	}
}

// TestPingPong: sends, writes and reads one at a time, between two loops.
func TestPingPong(t *testing.T) {
	for name, c := range map[string]struct {
		op     Opcode
		events bool
	}{"send": {OpSend, false}, "send, events": {OpSend, true}, "write": {OpWrite, false}, "read": {OpRead, false}, "read, events": {OpRead, true}} {
		s := roomy(t)
		var games [2]*PingPong
		for i := range s {
			if c.events {
				if err := s[i].cq.HoldThread(); err != nil {
					t.Fatal(err)
				}
			}
			conf := s[i].loopOf(t, c.op, s[1-i], func(l *LoopConfig) {
				l.Chain, l.Events = 1, c.events
				if c.op == OpRead {
					l.Signal = 1
				}
			})
			g, err := s[i].cq.NewPingPong(conf)
			if err != nil {
				t.Fatal(err)
			}
			games[i] = g
		}
		end := func() {}
		if c.op != OpRead {
			end = beside(t, games[1].Answer)
		}
		trips := make([]int64, 100)
		n, err := games[0].Play(t.Context(), trips, 0)
		if n != len(trips) || err != nil || games[0].Posts() != 100 {
			t.Errorf("%s: %d trips of %d posts, %v", name, n, games[0].Posts(), err)
		}
		for i, took := range trips {
			if took <= 0 {
				t.Errorf("%s: trip %d took %d ns", name, i, took)
			}
		}
		end()
	}
}

// TestLoopsPeerDies: a loop whose peer is gone ends by itself, and says why.
func TestLoopsPeerDies(t *testing.T) {
	s := connected(t)
	a, b := s[0], s[1]
	source := newPump(t, a.cq, a.loopOf(t, OpWrite, b, nil))
	if done, err := source.Run(t.Context(), 0, 0, 20); done.Sent != 20 || err != nil {
		t.Fatalf("%+v, %v", done, err)
	}
	if err := b.qp.Fail(); err != nil {
		t.Fatal(err)
	}
	var wce *WCError
	if _, err := source.Run(t.Context(), 0, 0, 0); !errors.As(err, &wce) || wce.Status != WCRetryExcErr {
		t.Errorf("%v", err)
	}
}
