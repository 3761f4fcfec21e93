//go:build rxe

package ibverbs

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// These tests run on host a of the testbed's pair:
//
//	testbed/vm --pair -- testbed/softroce exec a -- ibverbs.test
//
// Two queue pairs of rxe_a are connected to each other.

const (
	testDevice = "rxe_a"
	testAddr   = "10.0.0.1"
	bufSize    = 64 << 10
)

// side is one end of a connection with all that it takes.
type side struct {
	pd *PD
	mr *MR
	cq *CQ
	qp *QP
}

func openTest(t *testing.T) (*Context, GIDEntry) {
	t.Helper()
	ctx, err := Open(testDevice)
	if err != nil {
		t.Fatalf("this test needs the testbed's pair: %v", err)
	}
	t.Cleanup(func() { closed(t, ctx) })
	gid, err := ctx.FindGID(1, netip.MustParseAddr(testAddr), GIDTypeRoCEv2)
	if err != nil {
		t.Fatal(err)
	}
	return ctx, gid
}

func closed(t *testing.T, c interface{ Close() error }) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("%T: %v", c, err)
	}
}

const allAccess = AccessLocalWrite | AccessRemoteRead | AccessRemoteWrite

// connected makes two connected sides.
func connected(t *testing.T) [2]*side {
	t.Helper()
	ctx, gid := openTest(t)
	var sides [2]*side
	var preps [2]*PreparedQP
	for i := range sides {
		s := &side{}
		var err error
		if s.pd, err = ctx.AllocPD(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closed(t, s.pd) })
		if s.mr, err = s.pd.AllocMR(bufSize, allAccess); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closed(t, s.mr) })
		if s.cq, err = ctx.CreateCQ(64); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closed(t, s.cq) })
		preps[i], err = s.pd.PrepareQP(QPConfig{SendCQ: s.cq, RecvCQ: s.cq, MaxSend: 16, MaxRecv: 16, MaxSendSGE: 2, MaxRecvSGE: 2, GIDIndex: gid.Index, Access: AccessRemoteRead | AccessRemoteWrite})
		if err != nil {
			t.Fatal(err)
		}
		sides[i] = s
	}
	ends := [2]Endpoint{preps[0].Endpoint(), preps[1].Endpoint()}
	for i, s := range sides {
		var err error
		if s.qp, err = preps[i].Connect(ends[1-i], ConnectParams{Timeout: 10, Retries: 2, RNRRetries: 1}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closed(t, s.qp) })
		if s.qp.MTU().Bytes() != 4096 {
			t.Errorf("path MTU %d", s.qp.MTU().Bytes())
		}
	}
	return sides
}

func (s *side) send(t *testing.T, wr SendWR) {
	t.Helper()
	wr.Flags |= SendSignaled
	if n, err := s.qp.PostSend([]SendWR{wr}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
}

func (s *side) recv(t *testing.T, id uint64, off, n int) {
	t.Helper()
	wr := RecvWR{ID: id, NumSGE: 1}
	wr.SGE[0] = s.mr.SGE(off, n)
	if n, err := s.qp.PostRecv([]RecvWR{wr}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
}

// complete waits for one completion.
func (s *side) complete(t *testing.T) WC {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	wcs := make([]WC, 1)
	n, err := s.cq.WaitPoll(ctx, wcs)
	if n != 1 || err != nil {
		t.Fatalf("%d completions, %v", n, err)
	}
	return wcs[0]
}

func (s *side) wr(op Opcode, off, n int, peer *side, peerOff int) SendWR {
	wr := SendWR{ID: 42, Opcode: op, NumSGE: 1}
	wr.SGE[0] = s.mr.SGE(off, n)
	if peer != nil {
		wr.RemoteAddr = peer.mr.Addr(peerOff)
		wr.RKey = peer.mr.RKey()
	}
	return wr
}

func TestDevicesAndPorts(t *testing.T) {
	devs, err := Devices()
	if err != nil || len(devs) != 2 || devs[0].Name != "rxe_a" || devs[1].Name != "rxe_b" {
		t.Fatalf("%v, %v", devs, err)
	}
	ctx, gid := openTest(t)
	attr, err := ctx.QueryDevice()
	if err != nil || attr.Ports != 1 || attr.MaxQP == 0 || attr.MaxMRSize == 0 {
		t.Errorf("%+v, %v", attr, err)
	}
	port, err := ctx.QueryPort(1)
	if err != nil || port.State != PortActive || port.LinkLayer != LinkEthernet || port.ActiveMTU.Bytes() != 4096 {
		t.Errorf("%+v, %v", port, err)
	}
	if gid.Type != GIDTypeRoCEv2 || gid.IfIndex == 0 {
		t.Errorf("%+v", gid)
	}
	if _, err := ctx.QueryPort(9); err == nil {
		t.Error("port 9 answers")
	}
	if _, err := ctx.FindGID(1, netip.MustParseAddr("192.0.2.1"), GIDTypeRoCEv2); err == nil {
		t.Error("a GID that is not there was found")
	}
	if _, err := Open("nowhere"); !errors.Is(err, ErrNoDevice) {
		t.Errorf("%v", err)
	}
}

func TestVerbsMoveBytes(t *testing.T) {
	s := connected(t)
	a, b := s[0], s[1]
	for i := range 4096 {
		a.mr.Bytes()[i] = byte(i * 7)
	}
	want := a.mr.Bytes()[:4096]

	b.recv(t, 1, 8192, 8192)
	wr := a.wr(OpSendWithImm, 0, 4096, nil, 0)
	wr.Imm = 0xdeadbeef
	a.send(t, wr)
	if wc := a.complete(t); wc.Err() != nil || wc.ID != 42 || wc.Opcode != WCSend {
		t.Errorf("%+v", wc)
	}
	wc := b.complete(t)
	if wc.Err() != nil || wc.ID != 1 || wc.ByteLen != 4096 || wc.Imm() != 0xdeadbeef || wc.Opcode != WCRecv {
		t.Errorf("%+v", wc)
	}
	if !bytes.Equal(b.mr.Bytes()[8192:8192+4096], want) {
		t.Error("send: other bytes")
	}

	a.send(t, a.wr(OpWrite, 0, 4096, b, 16384))
	if wc := a.complete(t); wc.Err() != nil || wc.Opcode != WCWrite {
		t.Errorf("%+v", wc)
	}
	if !bytes.Equal(b.mr.Bytes()[16384:16384+4096], want) {
		t.Error("write: other bytes")
	}

	b.send(t, b.wr(OpRead, 32768, 4096, a, 0))
	if wc := b.complete(t); wc.Err() != nil || wc.Opcode != WCRead {
		t.Errorf("%+v", wc)
	}
	if !bytes.Equal(b.mr.Bytes()[32768:32768+4096], want) {
		t.Error("read: other bytes")
	}

	// Two stretches on each side.
	rw := RecvWR{NumSGE: 2}
	rw.SGE[0], rw.SGE[1] = b.mr.SGE(0, 100), b.mr.SGE(40000, 4000)
	if _, err := b.qp.PostRecv([]RecvWR{rw}); err != nil {
		t.Fatal(err)
	}
	wr = SendWR{Opcode: OpSend, NumSGE: 2}
	wr.SGE[0], wr.SGE[1] = a.mr.SGE(0, 50), a.mr.SGE(50, 450)
	a.send(t, wr)
	if wc := b.complete(t); wc.Err() != nil || wc.ByteLen != 500 {
		t.Errorf("%+v", wc)
	}
	if got := append(bytes.Clone(b.mr.Bytes()[:100]), b.mr.Bytes()[40000:40400]...); !bytes.Equal(got, want[:500]) {
		t.Error("scatter: other bytes")
	}
}

func TestFailedCompletions(t *testing.T) {
	for _, c := range []struct {
		name   string
		status WCStatus
		class  Class
		do     func(t *testing.T, a, b *side)
	}{
		// The kernel's rxe, 7.3, forgets the reason; devices say LOC_PROT_ERR.
		{"bad lkey", WCFlushErr, ClassFlush, func(t *testing.T, a, b *side) {
			b.recv(t, 1, 0, 100)
			wr := a.wr(OpSend, 0, 100, nil, 0)
			wr.SGE[0].LKey ^= 0xff
			a.send(t, wr)
		}},
		{"bad rkey", WCRemAccessErr, ClassRemote, func(t *testing.T, a, b *side) {
			wr := a.wr(OpWrite, 0, 100, b, 0)
			wr.RKey ^= 0xff
			a.send(t, wr)
		}},
		{"receiver not ready", WCRNRRetryExcErr, ClassRemote, func(t *testing.T, a, b *side) {
			a.send(t, a.wr(OpSend, 0, 100, nil, 0))
		}},
		{"peer gone", WCRetryExcErr, ClassPath, func(t *testing.T, a, b *side) {
			if err := b.qp.Fail(); err != nil {
				t.Fatal(err)
			}
			a.send(t, a.wr(OpWrite, 0, 100, b, 0))
		}},
		{"flush", WCFlushErr, ClassFlush, func(t *testing.T, a, b *side) {
			a.recv(t, 1, 0, 100)
			if err := a.qp.Fail(); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := connected(t)
			c.do(t, s[0], s[1])
			wc := s[0].complete(t)
			var e *WCError
			if !errors.As(wc.Err(), &e) || e.Status != c.status || e.Class() != c.class {
				t.Errorf("%v, want %v (%v)", wc.Err(), c.status, c.class)
			}
		})
	}
}

func TestWaitEnds(t *testing.T) {
	a := connected(t)[0]
	wcs := make([]WC, 1)
	ctx, cancel := context.WithCancel(context.Background())
	waiting := make(chan error)
	go func() {
		_, err := a.cq.WaitPoll(ctx, wcs)
		waiting <- err
	}()
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	// It can be waited on again, woken, and does not stay woken.
	a.cq.Wake()
	if n, err := a.cq.WaitPoll(context.Background(), wcs); n != 0 || err != nil {
		t.Errorf("woken: %d, %v", n, err)
	}
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if n, err := a.cq.WaitPoll(short, wcs); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waited: %d, %v", n, err)
	}
}

func TestWaitingAllocatesNothing(t *testing.T) {
	s := connected(t)
	a, b := s[0], s[1]
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a.cq.SetSpin(0)
	b.cq.SetSpin(0)
	wcs := make([]WC, 1)
	recv, send := make([]RecvWR, 1), []SendWR{a.wr(OpSend, 0, 8, nil, 0)}
	recv[0].NumSGE = 1
	recv[0].SGE[0] = b.mr.SGE(0, 8)
	send[0].Flags = SendSignaled
	round := func() {
		b.qp.PostRecv(recv)
		a.qp.PostSend(send)
		for _, s := range []*side{a, b} {
			if n, err := s.cq.WaitPoll(ctx, wcs); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
	}
	round()
	if n := testing.AllocsPerRun(50, round); n != 0 {
		t.Errorf("%v allocations a round", n)
	}
}

func TestParentsOutliveChildren(t *testing.T) {
	ctx, gid := openTest(t)
	pd, err := ctx.AllocPD()
	if err != nil {
		t.Fatal(err)
	}
	mr, err := pd.AllocMR(4096, 0)
	if err != nil {
		t.Fatal(err)
	}
	cq, err := ctx.CreateCQ(4)
	if err != nil {
		t.Fatal(err)
	}
	prep, err := pd.PrepareQP(QPConfig{SendCQ: cq, RecvCQ: cq, MaxSend: 1, MaxRecv: 1, GIDIndex: gid.Index})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []interface{ Close() error }{ctx, pd, cq} {
		var busy *BusyError
		if err := c.Close(); !errors.As(err, &busy) {
			t.Errorf("%T: %v", c, err)
		}
	}
	for _, c := range []interface{ Close() error }{prep, cq, mr, pd} {
		closed(t, c)
		if err := c.Close(); !errors.Is(err, ErrClosed) {
			t.Errorf("%T closed twice: %v", c, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	ctx, gid := openTest(t)
	pd, err := ctx.AllocPD()
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, pd)
	cq, err := ctx.CreateCQ(4)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, cq)
	conf := QPConfig{SendCQ: cq, RecvCQ: cq, MaxSend: 1, MaxRecv: 1, GIDIndex: gid.Index}
	bad := conf
	bad.GIDIndex = 99
	if _, err := pd.PrepareQP(bad); err == nil || !strings.Contains(err.Error(), "no GID at index 99") {
		t.Errorf("%v", err)
	}
	bad = conf
	bad.MaxSendSGE = MaxSGE + 1
	if _, err := pd.PrepareQP(bad); !errors.Is(err, ErrUnsupported) {
		t.Errorf("%v", err)
	}
	prep, err := pd.PrepareQP(conf)
	if err != nil {
		t.Fatal(err)
	}
	far := prep.Endpoint()
	far.GID = GID(netip.MustParseAddr("2001:db8::1").As16())
	if _, err := prep.Connect(far, ConnectParams{}); err == nil || !strings.Contains(err.Error(), "RTR") || !strings.Contains(err.Error(), "2001:db8::1") {
		t.Errorf("%v", err)
	}
	if _, err := prep.Connect(far, ConnectParams{}); !errors.Is(err, ErrClosed) {
		t.Errorf("spent: %v", err)
	}
	if _, err := pd.AllocMR(0, 0); err == nil {
		t.Error("a region of no bytes was registered")
	}
}

// TestOpenAndCloseLeaksNoDescriptors makes and closes everything many times.
func TestOpenAndCloseLeaksNoDescriptors(t *testing.T) {
	count := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	cycle := func(t *testing.T) { connected(t) }
	t.Run("first", cycle)
	before := count()
	for range 20 {
		t.Run("again", cycle)
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, then %d", before, after)
	}
}
