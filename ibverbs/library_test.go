//go:build linux && cgo

package ibverbs

import (
	"context"
	"errors"
	"math"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/ibverbs/internal/fakeverbs"
)

// What objects are made of, and how they end, on a device that is none.

// fakeDevice is a device whose limits are given, and a PD of it. Its queues have room for so
// many requests, which are flushed.
func fakeDevice(t *testing.T, room int, d fakeverbs.Device) *PD {
	t.Helper()
	fakeverbs.Reset(room, 0, int(WCFlushErr))
	c := &Context{name: "fake"}
	var unload func()
	c.h, unload = fakeverbs.Load(d)
	t.Cleanup(unload)
	pd, err := c.AllocPD()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, pd) })
	return pd
}

func shut(t *testing.T, c interface{ Close() error }) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("%T: %v", c, err)
	}
}

func fakeCQ(t *testing.T, pd *PD, depth int) *CQ {
	t.Helper()
	cq, err := pd.ctx.CreateCQ(depth)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cq.h != nil {
			shut(t, cq)
		}
	})
	return cq
}

// fakeQP is a queue pair that is connected to one like it.
func fakeQP(t *testing.T, pd *PD, c QPConfig) *QP {
	t.Helper()
	c.SendCQ = fakeCQ(t, pd, 32)
	c.RecvCQ = c.SendCQ
	var qp *QP
	var err error
	if c.Type == QPTypeUD {
		qp, err = pd.OpenUD(c)
	} else {
		var p *PreparedQP
		if p, err = pd.PrepareQP(c); err == nil {
			qp, err = p.Connect(p.Endpoint(), ConnectParams{MaxReads: None, MaxReadsServed: None})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, qp) })
	return qp
}

// TestQueuesHaveRoomForMarkers: Drain's requests have places of their own, but where that
// would be more than the device has.
func TestQueuesHaveRoomForMarkers(t *testing.T) {
	pd := fakeDevice(t, 0, fakeverbs.Device{MaxQPWR: 100, MaxCQE: 200})
	var param *ParamError
	if _, err := pd.ctx.CreateCQ(0); !errors.As(err, &param) {
		t.Errorf("a queue for nothing but markers: %v", err)
	}
	for _, c := range []struct{ sends, receives, completions, wantSends, wantReceives, wantCompletions int }{
		{15, 16, 31, 16, 17, 33},
		{99, 98, 198, 100, 99, 200},
		{100, 100, 199, 100, 100, 200},
		{101, 1, 200, 101, 2, 200}, // the device's to refuse
		{1, 1, 201, 2, 2, 201},
	} {
		cq := fakeCQ(t, pd, c.completions)
		p, err := pd.PrepareQP(QPConfig{SendCQ: cq, RecvCQ: cq, MaxSend: c.sends, MaxRecv: c.receives})
		if err != nil {
			t.Fatal(err)
		}
		shut(t, p)
		if sends, receives, completions := fakeverbs.Asked(); sends != c.wantSends || receives != c.wantReceives || completions != c.wantCompletions {
			t.Errorf("%+v: asked for %d, %d and %d", c, sends, receives, completions)
		}
	}
}

// TestDrainWithoutMarkers: where a driver takes no requests in the error state, or a queue is
// full, that is said, what is there is taken all the same, and no marker is left for others.
func TestDrainWithoutMarkers(t *testing.T) {
	for name, c := range map[string]struct {
		room int
		deaf bool
	}{"none for the sends": {2, true}, "none for the receives": {1, false}, "none at all": {1, true}} {
		t.Run(name, func(t *testing.T) {
			qp := fakeQP(t, fakeDevice(t, c.room, fakeverbs.Device{MaxQPWR: 100, MaxCQE: 100, Deaf: c.deaf}), QPConfig{MaxSend: 4, MaxRecv: 4})
			fakeverbs.Carry(false)
			fakeverbs.Refuse(-int(syscall.EINVAL), 0)
			if _, err := qp.PostRecv([]RecvWR{{ID: 7}}); err != nil {
				t.Fatal(err)
			}
			seen := 0
			see := func(wc *WC) {
				if seen++; wc.ID == 7 { // what has no marker comes after that of others
					for range 20 {
						fakeverbs.Receive(8)
					}
				}
			}
			if err := qp.Drain(t.Context(), see); !errors.Is(err, syscall.EINVAL) || seen != 21 {
				t.Errorf("%v, %d of 21 seen", err, seen)
			}
			if n, err := qp.conf.SendCQ.Poll(make([]WC, 4)); n != 0 || err != nil {
				t.Errorf("%d completions are left, %v", n, err)
			}
			if err := qp.Drain(t.Context(), see); (err != nil) != c.deaf || seen != 21 {
				t.Errorf("again: %v, %d of 21 seen", err, seen)
			}
		})
	}
}

// TestDrainAgain: the markers of a Drain that was given up are not taken for those of the next.
func TestDrainAgain(t *testing.T) {
	qp := fakeQP(t, fakeDevice(t, 100, fakeverbs.Device{MaxQPWR: 100, MaxCQE: 100}), QPConfig{MaxSend: 4, MaxRecv: 32})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := qp.Drain(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	fakeverbs.Carry(false)
	fakeverbs.Receive(DrainID) // the sends' marker, which was posted when nothing completed
	if _, err := qp.PostRecv(make([]RecvWR, 20)); err != nil {
		t.Fatal(err)
	}
	seen := 0
	if err := qp.Drain(t.Context(), func(*WC) { seen++ }); err != nil || seen != 20 {
		t.Errorf("%v, %d of 20 seen", err, seen)
	}
	if n, err := qp.conf.SendCQ.Poll(make([]WC, 4)); n != 0 || err != nil {
		t.Errorf("%d completions are left, %v", n, err)
	}
}

// TestDrainOfDatagrams: providers follow the address handle of what they flush, too.
func TestDrainOfDatagrams(t *testing.T) {
	qp := fakeQP(t, fakeDevice(t, 10, fakeverbs.Device{MaxQPWR: 100, MaxCQE: 100}), QPConfig{Type: QPTypeUD, MaxSend: 4, MaxRecv: 4, QKey: 9})
	fakeverbs.Carry(false)
	if err := qp.Drain(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if ah, _, qkey := fakeverbs.LastDatagram(); ah == 0 || qkey != 9 {
		t.Errorf("the marker goes to %#x by %d", ah, qkey)
	}
}

func TestEndpointsSayThatTheyNeedAGRH(t *testing.T) {
	for _, needs := range []bool{false, true} {
		pd := fakeDevice(t, 0, fakeverbs.Device{MaxQPWR: 100, MaxCQE: 100, NeedsGRH: needs})
		for _, typ := range []QPType{QPTypeRC, QPTypeUD} {
			if e := fakeQP(t, pd, QPConfig{Type: typ}).Endpoint(); e.NeedsGRH != needs {
				t.Errorf("%v: %+v, of a port that needs one: %v", typ, e, needs)
			}
		}
	}
}

// TestGIDIndicesHave8Bits: the library's struct has no more, and another GID is not meant.
func TestGIDIndicesHave8Bits(t *testing.T) {
	pd := fakeDevice(t, 0, fakeverbs.Device{MaxQPWR: 100, MaxCQE: 100})
	cq := fakeCQ(t, pd, 4)
	for _, index := range []int{-1, 256, 259} {
		conf := QPConfig{SendCQ: cq, RecvCQ: cq, GIDIndex: index}
		for name, err := range map[string]error{
			"PrepareQP": second(pd.PrepareQP(conf)),
			"OpenUD":    second(pd.OpenUD(conf)),
			"CreateAH":  second(pd.CreateAH(1, index, Endpoint{LID: 2}, Path{})),
		} {
			var param *ParamError
			if !errors.As(err, &param) || param.Param != "GID index" {
				t.Errorf("%s of GID index %d: %v", name, index, err)
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

// panics reports whether f does.
func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

func TestRegionsHaveBounds(t *testing.T) {
	pd := fakeDevice(t, 10, fakeverbs.Device{MaxMRSize: 64, MaxQPWR: 100, MaxCQE: 100})
	mapping := make([]byte, 100)
	var param *ParamError
	if _, err := pd.RegisterMR(mapping[:65], 0); !errors.As(err, &param) {
		t.Errorf("65 bytes of a device that registers 64 at once: %v", err)
	}
	mr, err := pd.RegisterMR(mapping[:10], 0) // 90 more are there, and not the region's
	if err != nil {
		t.Fatal(err)
	}
	const gpu, size = 1 << 40, 5 << 30
	far, err := pd.RegisterDMABuf(3, 0, size, gpu, AccessLocalWrite)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pd.RegisterDMABuf(3, 0, -1, gpu, AccessLocalWrite); !errors.As(err, &param) {
		t.Errorf("a dma-buf of -1 bytes: %v", err)
	}
	start := addressOf(mapping)
	for _, c := range []struct {
		mr     *MR
		off, n int
		addr   uint64 // 0: it panics
	}{
		{mr, 0, 10, start}, {mr, 10, 0, start + 10}, {mr, 3, 7, start + 3},
		{mr, 0, 11, 0}, {mr, 11, 0, 0}, {mr, 3, 8, 0}, {mr, -1, 1, 0}, {mr, 1, -1, 0}, {mr, 1, math.MaxInt, 0}, {mr, math.MaxInt, 1, 0},
		{far, 0, math.MaxUint32, gpu}, {far, size - 1, 1, gpu + size - 1},
		{far, 0, size, 0}, {far, 0, 1 << 32, 0}, {far, size, 1, 0},
	} {
		var got SGE
		if did := panics(func() { got = c.mr.SGE(c.off, c.n) }); did != (c.addr == 0) || !did && (got.Addr != c.addr || int(got.Length) != c.n) {
			t.Errorf("%d bytes at %d of %d: %+v, panicked: %v", c.n, c.off, c.mr.size, got, did)
		}
	}
	if far.Addr(7) != gpu+7 || far.Bytes() != nil {
		t.Errorf("a dma-buf is at %#x, %d bytes", far.Addr(0), len(far.Bytes()))
	}

	w, err := pd.AllocMW(MWType2)
	if err != nil {
		t.Fatal(err)
	}
	qp := fakeQP(t, pd, QPConfig{MaxSend: 1, MaxRecv: 1})
	for _, b := range []Bind{{MR: mr, Len: 11}, {MR: mr, Off: 1, Len: math.MaxInt}, {MR: far, Off: 1, Len: size}} {
		if err := qp.BindMW(w, b); !errors.As(err, &param) {
			t.Errorf("a window of %d bytes at %d, of %d: %v", b.Len, b.Off, b.MR.size, err)
		}
	}
	if err := qp.BindMW(w, Bind{MR: far, Off: 4096, Len: size - 4096}); err != nil {
		t.Error(err)
	}
	if addr, length := fakeverbs.LastBound(); addr != gpu+4096 || length != size-4096 {
		t.Errorf("bound to %d bytes at %#x", length, addr)
	}
	for _, c := range []interface{ Close() error }{w, far, mr} {
		shut(t, c)
	}
	if !panics(func() { far.SGE(0, 1) }) {
		t.Error("a closed region has stretches")
	}
}

// TestWakeAfterClose: a Wake that comes late does not write into what has the descriptor's
// number by then.
func TestWakeAfterClose(t *testing.T) {
	pd := fakeDevice(t, 0, fakeverbs.Device{MaxQPWR: 100, MaxCQE: 100})
	cq := fakeCQ(t, pd, 4)
	if err := cq.HoldThread(); err != nil {
		t.Fatal(err)
	}
	number := cq.hold.fd
	shut(t, cq)
	fresh, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fresh)
	if fresh != number {
		next, err := unix.FcntlInt(uintptr(fresh), unix.F_DUPFD_CLOEXEC, number)
		if err != nil || next != number {
			t.Fatalf("descriptor %d is not to be had again: %d, %v", number, next, err)
		}
		defer unix.Close(next)
	}
	cq.Wake()
	if n, err := unix.Read(fresh, make([]byte, 8)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("another's eventfd was written to: %d, %v", n, err)
	}
}

// oddContext can't be compared.
type oddContext struct {
	context.Context
	_ []int
}

// TestContextsNeedNotBeComparable: nor is one that is waited with again watched twice.
func TestContextsNeedNotBeComparable(t *testing.T) {
	cq := fakeCQ(t, fakeDevice(t, 0, fakeverbs.Device{MaxQPWR: 100, MaxCQE: 100}), 4)
	cq.SetSpin(0)
	inner, cancel := context.WithCancel(t.Context())
	odd := oddContext{Context: inner}
	cq.Wake()
	if n, err := cq.WaitPoll(odd, make([]WC, 1)); n != 0 || err != nil {
		t.Errorf("woken: %d, %v", n, err)
	}
	cancel()
	if n, err := cq.WaitPoll(odd, make([]WC, 1)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %d, %v", n, err)
	}
}
