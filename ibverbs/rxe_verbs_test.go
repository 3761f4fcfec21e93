//go:build rxe

package ibverbs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"
)

// What TestVerbsMoveBytes leaves out: the other operations, services and queues.

func (s *side) bytes(off, n int) []byte { return s.mr.Bytes()[off:][:n] }

func TestWriteWithImmediate(t *testing.T) {
	for _, typ := range []QPType{QPTypeRC, QPTypeUC} {
		t.Run(typ.String(), func(t *testing.T) {
			s := connectedAs(t, QPConfig{Type: typ}, 0)
			a, b := s[0], s[1]
			copy(a.bytes(0, 5), "hello")
			b.recv(t, 3, 0, 0)
			wr := a.wr(OpWriteWithImm, 0, 5, b, 100)
			wr.Imm = 0x01020304
			a.send(t, wr)
			a.ok(t)
			wc := b.ok(t)
			if wc.Opcode != WCRecvWithImm || wc.ID != 3 || wc.Imm() != 0x01020304 || wc.Flags&WCHasImm == 0 {
				t.Errorf("%+v", wc)
			}
			if got := b.bytes(100, 5); string(got) != "hello" {
				t.Errorf("%q", got)
			}
			// And a plain send, fenced.
			b.recv(t, 4, 200, 100)
			wr = a.wr(OpSend, 0, 5, nil, 0)
			wr.Flags = SendFence
			a.send(t, wr)
			a.ok(t)
			if wc := b.ok(t); wc.ByteLen != 5 || string(b.bytes(200, 5)) != "hello" {
				t.Errorf("%+v, %q", wc, b.bytes(200, 5))
			}
		})
	}
}

func TestAtomics(t *testing.T) {
	s := connected(t)
	a, b := s[0], s[1]
	at := func(s *side, off int) uint64 { return binary.NativeEndian.Uint64(s.bytes(off, 8)) }
	binary.NativeEndian.PutUint64(b.bytes(0, 8), 40)

	wr := a.wr(OpFetchAdd, 64, 8, b, 0)
	wr.CompareAdd = 2
	a.send(t, wr)
	if wc := a.ok(t); wc.Opcode != WCFetchAdd || at(a, 64) != 40 || at(b, 0) != 42 {
		t.Errorf("%+v: fetched %d, left %d", wc, at(a, 64), at(b, 0))
	}
	for _, c := range []struct{ compare, left uint64 }{{41, 42}, {42, 7}} {
		wr := a.wr(OpCompareSwap, 64, 8, b, 0)
		wr.CompareAdd, wr.Swap = c.compare, 7
		a.send(t, wr)
		if wc := a.ok(t); wc.Opcode != WCCompareSwap || at(a, 64) != 42 || at(b, 0) != c.left {
			t.Errorf("compared with %d: %+v, fetched %d, left %d", c.compare, wc, at(a, 64), at(b, 0))
		}
	}
}

// TestInline: the data is taken when the request is posted, so the buffer may be
// overwritten at once. Kernels before mid-2024 sent something else.
func TestInline(t *testing.T) {
	s := connectedAs(t, QPConfig{MaxInline: 64}, 0)
	a, b := s[0], s[1]
	if a.qp.MaxInline() < 64 {
		t.Fatalf("asked for 64 inline bytes, got %d", a.qp.MaxInline())
	}
	if kernel() < 612 {
		t.Log("inline sends of this kernel's rxe are broken: only the queue's size is tested")
		return
	}
	copy(a.bytes(0, 5), "right")
	b.recv(t, 1, 0, 100)
	wr := a.wr(OpSend, 0, 5, nil, 0)
	wr.Flags = SendInline
	a.send(t, wr)
	copy(a.bytes(0, 5), "wrong")
	a.ok(t)
	if b.ok(t); string(b.bytes(0, 5)) != "right" {
		t.Errorf("%q", b.bytes(0, 5))
	}
}

// TestSolicited: a waiter that wants solicited completions alone sleeps through the
// others, and finds them when it is woken.
func TestSolicited(t *testing.T) {
	s := connected(t)
	a, b := s[0], s[1]
	b.cq.SetSpin(0)
	b.cq.SetSolicitedOnly(true)
	b.recv(t, 1, 0, 8)
	b.recv(t, 2, 8, 8)
	type answer struct {
		n   int
		err error
	}
	answers := make(chan answer, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	wcs := make([]WC, 4)
	// It arms its queue before the first message is sent, or finds that it has come.
	parked, stop := context.WithTimeout(ctx, 200*time.Millisecond)
	defer stop()
	if n, err := b.cq.WaitPoll(parked, wcs); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(n, err)
	}
	go func() {
		n, err := b.cq.WaitPoll(ctx, wcs)
		answers <- answer{n, err}
	}()
	a.send(t, a.wr(OpSend, 0, 8, nil, 0))
	a.ok(t) // acknowledged: it has landed
	wr := a.wr(OpSend, 0, 8, nil, 0)
	wr.Flags = SendSolicited
	a.send(t, wr)
	got := <-answers
	if got.err != nil || got.n == 0 || wcs[0].ID != 1 {
		t.Fatalf("%+v, first %d", got, wcs[0].ID)
	}
	if got.n == 1 { // it polled between the two
		b.ok(t)
	}
}

func TestDatagrams(t *testing.T) {
	ctx, gid := openTest(t)
	const qkey, room = 0x11111111, 4096 + GRHSize
	var sides [2]*side
	for i := range sides {
		s := newSide(t, ctx, 0)
		var err error
		s.qp, err = s.pd.OpenUD(QPConfig{SendCQ: s.cq, RecvCQ: s.cq, MaxSend: 16, MaxRecv: 16, GIDIndex: gid.Index, QKey: qkey})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closed(t, s.qp) })
		sides[i] = s
	}
	a, b := sides[0], sides[1]
	ah, err := a.pd.CreateAH(1, gid.Index, b.qp.Endpoint(), Path{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, ah) })
	b.recv(t, 5, 0, room)
	copy(a.bytes(0, 8), "datagram")
	send := func(key uint32, n int) {
		wr := a.wr(OpSendWithImm, 0, n, nil, 0)
		wr.AH, wr.RemoteQPN, wr.RemoteQKey, wr.Imm = ah.Ref(), b.qp.Number(), key, key
		a.send(t, wr)
	}
	send(qkey+1, 8) // silently dropped: the second one takes the only receive
	a.ok(t)
	send(qkey, 8)
	a.ok(t)
	wc := b.ok(t)
	if wc.ID != 5 || wc.Imm() != qkey || wc.ByteLen != 8+GRHSize || wc.SrcQP != a.qp.Number() || wc.Flags&WCHasGRH == 0 {
		t.Errorf("%+v", wc)
	}
	if got := b.bytes(GRHSize, 8); string(got) != "datagram" {
		t.Errorf("%q", got)
	}
	var busy *BusyError
	if err := a.pd.Close(); !errors.As(err, &busy) {
		t.Errorf("a PD with an address handle: %v", err)
	}
}

func TestSharedReceives(t *testing.T) {
	ctx, gid := openTest(t)
	b := newSide(t, ctx, 0)
	srq, err := b.pd.CreateSRQ(8, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, srq) })
	var wrs []RecvWR
	for i := range 4 {
		wr := RecvWR{ID: uint64(i), NumSGE: 1}
		wr.SGE[0] = b.mr.SGE(i*100, 100)
		wrs = append(wrs, wr)
	}
	if n, err := srq.PostRecv(wrs); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	if err := srq.Arm(3); err != nil {
		t.Fatal(err)
	}
	// Two senders, whose peers share the queue.
	var senders [2]*side
	for i := range senders {
		senders[i] = newSide(t, ctx, 0)
		senders[i].qp, _ = connectPair(t, senders[i], b, QPConfig{GIDIndex: gid.Index}, QPConfig{GIDIndex: gid.Index, SRQ: srq})
	}
	seen := make(map[uint32]int)
	for i := range 4 {
		s := senders[i%2]
		s.bytes(0, 1)[0] = byte('a' + i)
		s.send(t, s.wr(OpSend, 0, 1, nil, 0))
		s.ok(t)
		wc := b.ok(t)
		if wc.ID != uint64(i) || b.bytes(i*100, 1)[0] != byte('a'+i) {
			t.Errorf("message %d: %+v", i, wc)
		}
		seen[wc.QPN]++
	}
	if len(seen) != 2 {
		t.Errorf("receives by queue pair: %v", seen)
	}
	wait, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if e, err := ctx.NextEvent(wait); err != nil || e.Type != EventSRQLimitReached || !e.About(srq) || e.About(b.cq) {
		t.Errorf("%+v, %v", e, err)
	}
	var busy *BusyError
	if err := srq.Close(); !errors.As(err, &busy) {
		t.Errorf("%v", err)
	}
}

func TestMemoryWindows(t *testing.T) {
	for _, typ := range []MWType{MWType1, MWType2} {
		t.Run(map[MWType]string{MWType1: "type 1", MWType2: "type 2"}[typ], func(t *testing.T) {
			s := connectedAs(t, QPConfig{}, AccessBindMW)
			a, b := s[0], s[1]
			w, err := b.pd.AllocMW(typ)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { closed(t, w) })
			before := w.RKey()
			bind := Bind{ID: 9, MR: b.mr, Off: 1000, Len: 100, Access: AccessRemoteWrite, Flags: SendSignaled}
			if err := b.qp.BindMW(w, Bind{MR: b.mr, Off: bufSize, Len: 1}); err == nil {
				t.Error("a window outside the region was bound")
			}
			if err := b.qp.BindMW(w, bind); err != nil {
				t.Fatal(err)
			}
			if wc := b.ok(t); wc.ID != 9 || wc.Opcode != WCBindMW {
				t.Errorf("%+v", wc)
			}
			if w.RKey() == before {
				t.Error("the bind gave no new rkey")
			}
			copy(a.bytes(0, 6), "window")
			through := func() WC {
				wr := a.wr(OpWrite, 0, 6, b, 1000)
				wr.RKey = w.RKey()
				a.send(t, wr)
				return a.complete(t)
			}
			if wc := through(); wc.Err() != nil || !bytes.Equal(b.bytes(1000, 6), []byte("window")) {
				t.Errorf("%v, %q", wc.Err(), b.bytes(1000, 6))
			}
			if typ == MWType2 {
				b.send(t, SendWR{ID: 10, Opcode: OpLocalInv, RKey: w.RKey()})
			} else if err := b.qp.BindMW(w, Bind{ID: 10, MR: b.mr, Flags: SendSignaled}); err != nil {
				t.Fatal(err)
			}
			if wc := b.ok(t); wc.ID != 10 {
				t.Errorf("%+v", wc)
			}
			if wc := through(); wc.Status != WCRemAccessErr {
				t.Errorf("a window that was taken back: %v", wc.Err())
			}
		})
	}
}

// TestSendWithInvalidate: the peer takes its own right back as it says that it is done.
func TestSendWithInvalidate(t *testing.T) {
	s := connectedAs(t, QPConfig{}, AccessBindMW)
	a, b := s[0], s[1]
	w, err := b.pd.AllocMW(MWType2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, w) })
	if err := b.qp.BindMW(w, Bind{MR: b.mr, Len: 100, Access: AccessRemoteWrite, Flags: SendSignaled}); err != nil {
		t.Fatal(err)
	}
	b.ok(t)
	b.recv(t, 1, 0, 100)
	wr := a.wr(OpSendWithInv, 0, 1, nil, 0)
	wr.RKey = w.RKey()
	a.send(t, wr)
	a.ok(t)
	// Soft-RoCE marks it by a flag of the kernel's own, which means something else to
	// programs; the rkey is right.
	if wc := b.ok(t); wc.Opcode != WCRecv || wc.InvalidatedRKey() != w.RKey() {
		t.Errorf("%+v, want rkey %#x", wc, w.RKey())
	}
	wr = a.wr(OpWrite, 0, 1, b, 0)
	wr.RKey = w.RKey()
	a.send(t, wr)
	if wc := a.complete(t); wc.Status != WCRemAccessErr {
		t.Errorf("%v", wc.Err())
	}
}
