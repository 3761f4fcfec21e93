//go:build rxe

package ibverbs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestDevicesAndPorts(t *testing.T) {
	devs, err := Devices() // of namespaces on one kernel each lists both
	if err != nil || len(devs) == 0 || devs[0] != (Device{Name: testDevice, NodeType: 1, Transport: TransportIB}) {
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
	if keys, err := ctx.PKeys(1); err != nil || len(keys) != 1 || keys[0] != 0xffff {
		t.Errorf("partitions %v, %v", keys, err)
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
	// Devices say LOC_PROT_ERR. Soft-RoCE forgets the reason in newer kernels.
	badLKey := WCFlushErr
	if kernel() < 604 {
		badLKey = WCStatus(2) // LOC_QP_OP_ERR
	}
	for _, c := range []struct {
		name   string
		status WCStatus // as soft-RoCE has it, where that differs from what devices say
		class  Class
		do     func(t *testing.T, a, b *side)
	}{
		{"bad lkey", badLKey, badLKey.Class(), func(t *testing.T, a, b *side) {
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
		// A queue pair in error takes no requests.
		{"peer gone", WCRetryExcErr, ClassPath, func(t *testing.T, a, b *side) {
			if err := b.qp.Fail(); err != nil {
				t.Fatal(err)
			}
			a.send(t, a.wr(OpWrite, 0, 100, b, 0))
		}},
		{"stale rkey", WCRemAccessErr, ClassRemote, func(t *testing.T, a, b *side) {
			wr := a.wr(OpWrite, 0, 100, b, 0)
			closed(t, b.mr)
			b.mr = nil
			a.send(t, wr)
		}},
		{"read without the right", WCRemAccessErr, ClassRemote, func(t *testing.T, a, b *side) {
			mr, err := b.pd.AllocMR(4096, AccessLocalWrite)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { closed(t, mr) })
			wr := a.wr(OpRead, 0, 100, nil, 0)
			wr.RemoteAddr, wr.RKey = mr.Addr(0), mr.RKey()
			a.send(t, wr)
		}},
		{"beyond the region", WCRemAccessErr, ClassRemote, func(t *testing.T, a, b *side) {
			a.send(t, a.wr(OpWrite, 0, 101, b, bufSize-100))
		}},
		// Devices say LOC_LEN_ERR here, and REM_INV_REQ_ERR at the sender.
		{"a receive too short", WCRemOpErr, ClassRemote, func(t *testing.T, a, b *side) {
			b.recv(t, 1, 0, 99)
			a.send(t, a.wr(OpSend, 0, 100, nil, 0))
			if wc := b.complete(t); wc.Status.Class() != ClassLocal {
				t.Errorf("the receiver: %v", wc.Err())
			}
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

// eachWait runs a test with waiters that park, and with such that hold their threads.
func eachWait(t *testing.T, f func(t *testing.T, s [2]*side)) {
	for _, holding := range []bool{false, true} {
		t.Run(fmt.Sprintf("holding=%v", holding), func(t *testing.T) {
			s := connected(t)
			for _, s := range s {
				if holding {
					if err := s.cq.HoldThread(); err != nil {
						t.Fatal(err)
					}
				}
			}
			f(t, s)
		})
	}
}

func TestWaitEnds(t *testing.T) { eachWait(t, testWaitEnds) }

func testWaitEnds(t *testing.T, s [2]*side) {
	a := s[0]
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

func TestWaitingAllocatesNothing(t *testing.T) { eachWait(t, testWaitingAllocatesNothing) }

func testWaitingAllocatesNothing(t *testing.T, s [2]*side) {
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
	if n := testing.AllocsPerRun(50, round); n != 0 && !raceDetector {
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
	if got := Live(); got["QP"] != 1 || got["MR"] != 1 || got["CQ"] != 1 || got["PD"] != 1 || got["device"] != 1 {
		t.Errorf("live: %v", got)
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
	var param *ParamError
	if _, err := pd.PrepareQP(bad); !errors.As(err, &param) {
		t.Errorf("%v", err)
	}
	prep, err := pd.PrepareQP(conf)
	if err != nil {
		t.Fatal(err)
	}
	far := prep.Endpoint()
	far.GID = GID(netip.MustParseAddr("192.0.2.1").As16())
	// Older kernels look for the way only when something is sent.
	if qp, err := prep.Connect(far, ConnectParams{}); err == nil {
		if closed(t, qp); kernel() >= 700 {
			t.Error("connected to nowhere")
		}
	} else if !strings.Contains(err.Error(), "RTR") || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("%v", err)
	}
	if _, err := prep.Connect(far, ConnectParams{}); !errors.Is(err, ErrClosed) {
		t.Errorf("spent: %v", err)
	}
	if _, err := pd.AllocMR(0, 0); err == nil {
		t.Error("a region of no bytes was registered")
	}
}
