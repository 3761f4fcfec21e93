//go:build rxe

package ibverbs

import (
	"context"
	"testing"
	"time"
)

// TestDrain: every request that was posted is seen to complete, and nothing of the
// queue pair comes after.
func TestDrain(t *testing.T) {
	s := connected(t)
	a, b := s[0], s[1]
	for i := range 10 {
		b.recv(t, uint64(i), 0, 8)
	}
	for range 3 {
		a.send(t, a.wr(OpSend, 0, 8, nil, 0))
		a.ok(t)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var fine, flushed int
	err := b.qp.Drain(ctx, func(wc *WC) {
		switch {
		case wc.Err() == nil:
			fine++
		case wc.Status == WCFlushErr:
			flushed++
		default:
			t.Errorf("%v", wc.Err())
		}
	})
	if err != nil || fine != 3 || flushed != 7 {
		t.Errorf("%v: %d fine, %d flushed", err, fine, flushed)
	}
	if state, err := b.qp.State(); state != QPStateErr || err != nil {
		t.Errorf("%v, %v", state, err)
	}
	closed(t, b.qp)
	if n, err := b.cq.Poll(make([]WC, 1)); n != 0 || err != nil {
		t.Errorf("after the end: %d, %v", n, err)
	}
	// A full send queue still has room for the marker.
	for range 16 {
		if _, err := a.qp.PostSend([]SendWR{a.wr(OpSend, 0, 8, nil, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.qp.Drain(ctx, nil); err != nil {
		t.Error(err)
	}
}

// TestDrainDatagrams: a queue pair of datagrams ends as others do, with messages to itself.
func TestDrainDatagrams(t *testing.T) {
	ctx, gid := openTest(t)
	s := newSide(t, ctx, 0)
	const qkey = 0x11111111
	var err error
	s.qp, err = s.pd.OpenUD(QPConfig{SendCQ: s.cq, RecvCQ: s.cq, MaxSend: 16, MaxRecv: 16, GIDIndex: gid.Index, QKey: qkey})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, s.qp) })
	ah, err := s.pd.CreateAH(1, gid.Index, s.qp.Endpoint(), Path{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, ah) })
	for i := range 7 {
		s.recv(t, uint64(i), 0, 8+GRHSize)
	}
	for range 3 {
		wr := s.wr(OpSend, 0, 8, nil, 0)
		wr.AH, wr.RemoteQPN, wr.RemoteQKey = ah.Ref(), s.qp.Number(), qkey
		s.send(t, wr)
		s.ok(t) // the send, or the receive
		s.ok(t)
	}
	wait, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	flushed := 0
	err = s.qp.Drain(wait, func(wc *WC) {
		if flushed++; wc.Status != WCFlushErr {
			t.Errorf("%+v", wc)
		}
	})
	if err != nil || flushed != 4 {
		t.Errorf("%v: %d flushed", err, flushed)
	}
	if n, err := s.cq.Poll(make([]WC, 1)); n != 0 || err != nil {
		t.Errorf("after the end: %d, %v", n, err)
	}
}

// TestDrainSharedReceives: what came by a shared receive queue is seen too, where it completes
// in a queue of its own.
func TestDrainSharedReceives(t *testing.T) {
	ctx, gid := openTest(t)
	a, b := newSide(t, ctx, 0), newSide(t, ctx, 0)
	srq, err := b.pd.CreateSRQ(8, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, srq) })
	arrivals, err := ctx.CreateCQ(16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, arrivals) })
	wrs := make([]RecvWR, 4)
	for i := range wrs {
		wrs[i].NumSGE, wrs[i].SGE[0] = 1, b.mr.SGE(8*i, 8)
	}
	if _, err := srq.PostRecv(wrs); err != nil {
		t.Fatal(err)
	}
	conf := QPConfig{SendCQ: a.cq, RecvCQ: a.cq, MaxSend: 4, MaxRecv: 1, GIDIndex: gid.Index}
	bconf := conf
	bconf.SendCQ, bconf.RecvCQ, bconf.SRQ = b.cq, arrivals, srq
	a.qp, b.qp = connect(t, a.pd, b.pd, conf, bconf, ConnectParams{})
	t.Cleanup(func() { closed(t, a.qp); closed(t, b.qp) })
	for range 3 {
		a.send(t, a.wr(OpSend, 0, 8, nil, 0))
		a.ok(t) // acknowledged: it has landed
	}
	if kernel() >= 700 { // the soft-RoCE of older ones says nothing
		if err := b.qp.Fail(); err != nil {
			t.Fatal(err)
		}
		if e := event(t, ctx, EventQPLastWQEReached); !e.About(b.qp) {
			t.Errorf("%+v", e)
		}
	}
	wait, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fine := 0
	err = b.qp.Drain(wait, func(wc *WC) {
		if fine++; wc.Err() != nil {
			t.Errorf("%v", wc.Err())
		}
	})
	if err != nil || fine != 3 {
		t.Errorf("%v: %d of 3 seen", err, fine)
	}
	if n, err := arrivals.Poll(make([]WC, 1)); n != 0 || err != nil {
		t.Errorf("after the end: %d, %v", n, err)
	}
}

// TestDeepestCompletionQueue: one that leaves no room for markers can be had.
func TestDeepestCompletionQueue(t *testing.T) {
	ctx, _ := openTest(t)
	dev, err := ctx.QueryDevice()
	if err != nil {
		t.Fatal(err)
	}
	cq, err := ctx.CreateCQ(dev.MaxCQE)
	if err != nil {
		t.Fatal(err)
	}
	closed(t, cq)
	if cq, err := ctx.CreateCQ(dev.MaxCQE + 1); err == nil {
		closed(t, cq)
		t.Errorf("%d completions were made of at most %d", dev.MaxCQE+1, dev.MaxCQE)
	}
}
