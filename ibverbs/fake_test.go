//go:build linux && cgo

package ibverbs

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs/internal/fakeverbs"
)

func fakes() (*QP, *CQ) {
	cq := &CQ{ctx: &Context{name: "fake"}}
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

// TestPollForEnds: with what there is at once, without anything when its time is over.
func TestPollForEnds(t *testing.T) {
	_, cq := fakes()
	wcs := make([]WC, 4)
	fakeverbs.Reset(0, 3, 0)
	if n, err := cq.PollFor(wcs, time.Hour); n != 3 || err != nil {
		t.Errorf("3 completions: %d, %v", n, err)
	}
	began := time.Now()
	if n, err := cq.PollFor(wcs, 2*time.Millisecond); n != 0 || err != nil {
		t.Errorf("none: %d, %v", n, err)
	}
	if took := time.Since(began); took < 2*time.Millisecond {
		t.Errorf("polled for %v of 2 ms", took)
	}
}

// TestPollPostPosts: once, after a success and after nothing else.
func TestPollPostPosts(t *testing.T) {
	qp, cq := fakes()
	wcs := make([]WC, 4)
	for name, c := range map[string]struct {
		room, waiting int
		status        WCStatus
		n             int
		posted        bool
		err           error
	}{
		"what came":  {1, 3, WCSuccess, 3, true, nil},
		"nothing":    {1, 0, WCSuccess, 0, false, nil},
		"a failure":  {1, 2, WCRetryExcErr, 2, false, nil},
		"a full one": {0, 1, WCSuccess, 1, false, syscall.ENOMEM},
	} {
		fakeverbs.Reset(c.room, c.waiting, int(c.status))
		wr := SendWR{ID: 7, Opcode: OpSend}
		n, posted, err := cq.PollPost(wcs, time.Millisecond, qp, &wr)
		if n != c.n || posted != c.posted || !errors.Is(err, c.err) {
			t.Errorf("%s: %d completions, posted %v, %v", name, n, posted, err)
		}
		if got, _, _, _, _, _ := fakeverbs.Last(); posted && got != 7 {
			t.Errorf("%s: request %d was posted", name, got)
		}
	}
}

func TestPostWhenWaitsForAByte(t *testing.T) {
	qp, _ := fakes()
	var seen, mark byte
	wr := SendWR{ID: 8, Opcode: OpWrite}
	fakeverbs.Reset(1, 0, 0)
	is, say := Mark{&seen, 1}, Mark{&mark, 2}
	if came, err := qp.PostWhen(is, say, 2*time.Millisecond, &wr); came || err != nil || mark != 0 || fakeverbs.Calls() != 0 {
		t.Errorf("it never came: %v, %v, marked %d, %d calls", came, err, mark, fakeverbs.Calls())
	}
	seen = 1
	if came, err := qp.PostWhen(is, Mark{}, time.Hour, nil); !came || err != nil || fakeverbs.Calls() != 0 {
		t.Errorf("nothing to post: %v, %v, %d calls", came, err, fakeverbs.Calls())
	}
	came, err := qp.PostWhen(is, say, time.Hour, &wr)
	if id, _, _, _, _, _ := fakeverbs.Last(); !came || err != nil || mark != 2 || id != 8 {
		t.Errorf("%v, %v, marked %d, request %d", came, err, mark, id)
	}
	if _, err := qp.PostWhen(is, say, time.Hour, &wr); !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("the queue is full: %v", err)
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	qp, cq := fakes()
	fakeverbs.Reset(1<<30, 1<<30, 0)
	sends, recvs, wcs := make([]SendWR, 16), make([]RecvWR, 16), make([]WC, 16)
	for name, f := range map[string]func(){
		"send":     func() { qp.PostSend(sends) },
		"recv":     func() { qp.PostRecv(recvs) },
		"poll":     func() { cq.Poll(wcs) },
		"poll for": func() { cq.PollFor(wcs, time.Microsecond) },
		"poll, post": func() {
			var wr SendWR
			cq.PollPost(wcs, time.Microsecond, qp, &wr)
		},
		"look, post": func() {
			var seen, mark byte
			var wr SendWR
			qp.PostWhen(Mark{&seen, 0}, Mark{&mark, 1}, time.Microsecond, &wr)
		},
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
