//go:build linux && cgo

package ibverbs

import (
	"errors"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/ibverbs/internal/fakeverbs"
)

func fakes() (*QP, *CQ) {
	cq := &CQ{ctx: &Context{name: "fake"}, depth: 16}
	cq.h = fakeverbs.CQ()
	qp := &QP{conf: QPConfig{MaxSend: 8, MaxRecv: 8, SendCQ: cq, RecvCQ: cq}}
	qp.h = fakeverbs.QP()
	return qp, cq
}

func TestABatchIsOneChainEach32(t *testing.T) {
	qp, _ := fakes()
	fakeverbs.Reset(1000, 0, 0)
	if n, err := qp.PostSend(make([]SendWR, 32)); n != 32 || err != nil || fakeverbs.Calls() != 1 {
		t.Errorf("%d posted in %d calls, %v", n, fakeverbs.Calls(), err)
	}
	if n, err := qp.PostSend(make([]SendWR, 33)); n != 33 || err != nil || fakeverbs.Calls() != 3 {
		t.Errorf("%d posted in %d calls, %v", n, fakeverbs.Calls(), err)
	}
	if n, err := qp.PostSend(nil); n != 0 || err != nil || fakeverbs.Calls() != 3 {
		t.Errorf("nothing: %d posted in %d calls, %v", n, fakeverbs.Calls(), err)
	}
}

func TestAPartialPostSaysHowMany(t *testing.T) {
	qp, _ := fakes()
	for _, room := range []int{0, 1, 31, 32, 33, 63} {
		fakeverbs.Reset(room, 0, 0)
		n, err := qp.PostSend(make([]SendWR, 64))
		if n != room || !errors.Is(err, syscall.ENOMEM) || !strings.Contains(err.Error(), "poll completions") {
			t.Errorf("send: room for %d: %d posted, %v", room, n, err)
		}
		fakeverbs.Reset(room, 0, 0)
		if n, err = qp.PostRecv(make([]RecvWR, 64)); n != room || !errors.Is(err, syscall.ENOMEM) {
			t.Errorf("recv: room for %d: %d posted, %v", room, n, err)
		}
		fakeverbs.Reset(room, 0, 0)
		srq := new(SRQ)
		srq.h = fakeverbs.SRQ()
		if n, err = srq.PostRecv(make([]RecvWR, 64)); n != room || !errors.Is(err, syscall.ENOMEM) {
			t.Errorf("shared recv: room for %d: %d posted, %v", room, n, err)
		}
	}
}

// What providers answer is the error, each in its own way; what an earlier call left in errno
// is not. A device that was removed is only one that says so.
func TestRefusedPostsSayWhy(t *testing.T) {
	runtime.LockOSThread() // errno is a thread's
	defer runtime.UnlockOSThread()
	for _, c := range []struct {
		answer      int
		errno, want syscall.Errno
	}{
		{int(syscall.EINVAL), 0, syscall.EINVAL},
		{-int(syscall.ENOMEM), 0, syscall.ENOMEM},
		{-int(syscall.EINVAL), 0, syscall.EINVAL},
		{-1, syscall.EAGAIN, syscall.EAGAIN},
		{-1, syscall.EIO, syscall.EIO},
		{-1, 0, syscall.EPROTO},
	} {
		pump := func(op Opcode) error {
			cq, conf, _ := fakeLoop(t, op, func(l *LoopConfig) {
				if op == OpSend {
					l.Depth = 0
				}
			})
			fakeverbs.Reset(0, 0, 0)
			fakeverbs.Carry(false)
			fakeverbs.Receive(LoopRecvID)
			fakeverbs.Refuse(c.answer, int(c.errno))
			p := newPump(t, cq, conf)
			fakeverbs.Stale(int(syscall.EIO))
			_, err := p.Run(t.Context(), 0, 0, 1)
			return err
		}
		post := func(f func(*QP) error) error {
			qp, _ := fakes()
			fakeverbs.Reset(0, 0, 0)
			fakeverbs.Refuse(c.answer, int(c.errno))
			fakeverbs.Stale(int(syscall.EIO))
			return f(qp)
		}
		for name, err := range map[string]error{
			"send": post(func(q *QP) error { _, err := q.PostSend(make([]SendWR, 1)); return err }),
			"recv": post(func(q *QP) error { _, err := q.PostRecv(make([]RecvWR, 1)); return err }),
			"shared recv": post(func(*QP) error {
				srq := new(SRQ)
				srq.h = fakeverbs.SRQ()
				_, err := srq.PostRecv(make([]RecvWR, 1))
				return err
			}),
			"pump's send": pump(OpWrite),
			"pump's recv": pump(OpSend),
		} {
			if !errors.Is(err, c.want) || errors.Is(err, ErrDeviceGone) != (c.want == syscall.EIO) {
				t.Errorf("%s, which answers %d and sets %d: %v", name, c.answer, c.errno, err)
			}
		}
	}
}

func TestDatagramsNeedAnAddressHandle(t *testing.T) {
	qp, cq := fakes()
	qp.conf.Type = QPTypeUD
	fakeverbs.Reset(10, 0, 0)
	fakeverbs.Be(int(QPTypeUD))
	var param *ParamError
	if n, err := qp.PostSend([]SendWR{{AH: 1}, {}, {AH: 1}}); n != 1 || !errors.As(err, &param) {
		t.Errorf("the second of three has none: %d posted, %v", n, err)
	}
	if n, err := qp.PostSend(make([]SendWR, 1)); n != 0 || !errors.As(err, &param) || fakeverbs.Calls() != 1 {
		t.Errorf("%d posted, %v", n, err)
	}
	q := LoopQueue{QP: qp, Send: SendWR{Opcode: OpSend, NumSGE: 1}}
	c := LoopConfig{Queues: []LoopQueue{q}, Depth: 1, Chain: 1, Signal: 1, Repost: 1, Places: 1}
	if _, err := cq.NewPump(c); !errors.As(err, &param) {
		t.Errorf("a loop of it: %v", err)
	}
}

func TestWorkRequestsReachCAsTheyAre(t *testing.T) {
	qp, _ := fakes()
	fakeverbs.Reset(10, 0, 0)
	wr := SendWR{ID: 7, Opcode: OpWriteWithImm, Imm: 0x01020304, RemoteAddr: 0xabcdef, NumSGE: 1}
	wr.SGE[0].Addr = 0x1234
	if _, err := qp.PostSend([]SendWR{wr}); err != nil {
		t.Fatal(err)
	}
	id, op, imm, remote, _, addr := fakeverbs.Last()
	if id != 7 || op != 1 || imm != 0x04030201 || remote != 0xabcdef || addr != 0x1234 {
		t.Errorf("id %d, opcode %d, immediate %#x, remote %#x, sge %#x", id, op, imm, remote, addr)
	}
	wr = SendWR{Opcode: OpCompareSwap, RemoteAddr: 8, CompareAdd: 1, Swap: 99}
	if _, err := qp.PostSend([]SendWR{wr}); err != nil {
		t.Fatal(err)
	}
	if _, _, _, remote, swap, _ := fakeverbs.Last(); remote != 8 || swap != 99 {
		t.Errorf("compare-and-swap at %d with %d", remote, swap)
	}
	for _, op := range []Opcode{OpLocalInv, OpSendWithInv} {
		if _, err := qp.PostSend([]SendWR{{Opcode: op, RKey: 0xabc, Imm: 5}}); err != nil {
			t.Fatal(err)
		}
		if rkey := fakeverbs.LastInvalidated(); rkey != 0xabc {
			t.Errorf("opcode %d invalidates %#x", op, rkey)
		}
	}
	fakeverbs.Be(int(QPTypeUD))
	if _, err := qp.PostSend([]SendWR{{Opcode: OpSend, AH: 0x10, RemoteQPN: 7, RemoteQKey: 9, RemoteAddr: 1, RKey: 2}}); err != nil {
		t.Fatal(err)
	}
	if ah, qpn, qkey := fakeverbs.LastDatagram(); ah != 0x10 || qpn != 7 || qkey != 9 {
		t.Errorf("datagram to %#x, %d, %d", ah, qpn, qkey)
	}
}

// TestPartialPostsKeepTheAccount: what a full queue refused is put back, and what it
// took comes back by completions, whatever the queue's depth and signalling.
func TestPartialPostsKeepTheAccount(t *testing.T) {
	qp, _ := fakes()
	for depth := 1; depth <= 8; depth++ {
		for every := 1; every <= depth; every++ {
			for room := range depth + 1 {
				c := NewSendCredits(depth, every)
				wrs := make([]SendWR, 0, depth)
				for c.Free() > 0 {
					wrs = append(wrs, SendWR{})
					c.Take(&wrs[len(wrs)-1])
				}
				fakeverbs.Reset(room, 0, 0)
				n, _ := qp.PostSend(wrs)
				c.PutBack(wrs[n:])
				if c.Free() != depth-room {
					t.Fatalf("depth %d, every %d, room %d: %d free", depth, every, room, c.Free())
				}
				for _, wr := range wrs[n:] {
					if wr.Flags != 0 {
						t.Fatalf("depth %d, every %d, room %d: flags %d stay", depth, every, room, wr.Flags)
					}
				}
				// The rest is posted now, and all of it completes.
				for i := range wrs[n:] {
					c.Take(&wrs[n+i])
				}
				for _, wr := range wrs {
					if wr.Flags&SendSignaled != 0 {
						c.Complete()
					}
				}
				if c.Free() != depth {
					t.Fatalf("depth %d, every %d, room %d: %d free in the end", depth, every, room, c.Free())
				}
			}
		}
	}
}

func TestUnknownStatusesPrintAsNumbers(t *testing.T) {
	_, cq := fakes()
	fakeverbs.Reset(0, 1, 77)
	wcs := make([]WC, 4)
	n, err := cq.Poll(wcs)
	if n != 1 || err != nil {
		t.Fatal(n, err)
	}
	var wce *WCError
	if err := wcs[0].Err(); !errors.As(err, &wce) || wce.Class() != ClassUnknown || !strings.Contains(err.Error(), "77") {
		t.Errorf("%v", err)
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	qp, cq := fakes()
	fakeverbs.Reset(1<<30, 1<<30, 0)
	sends, recvs, wcs := make([]SendWR, 16), make([]RecvWR, 16), make([]WC, 16)
	for name, f := range map[string]func(){
		"send": func() { qp.PostSend(sends) },
		"recv": func() { qp.PostRecv(recvs) },
		"poll": func() { cq.Poll(wcs) },
		"local arrays": func() { // they must not escape into the heap
			var wr [4]SendWR
			var wc [4]WC
			qp.PostSend(wr[:])
			cq.Poll(wc[:])
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkCrossings(b *testing.B) {
	qp, cq := fakes()
	sends, wcs := make([]SendWR, 16), make([]WC, 16)
	for name, f := range map[string]func(){
		"empty":   fakeverbs.Nothing,
		"post-16": func() { qp.PostSend(sends) },
		"poll-16": func() { cq.Poll(wcs) },
	} {
		b.Run(name, func(b *testing.B) {
			fakeverbs.Reset(1<<31-1, 1<<31-1, 0)
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}
