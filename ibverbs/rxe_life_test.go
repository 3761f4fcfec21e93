//go:build rxe

package ibverbs

import (
	"bufio"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// How objects end, what is left, and what a device says by itself.

func TestQueueFull(t *testing.T) {
	s := connected(t)
	wrs := make([]SendWR, 4096)
	for i := range wrs {
		wrs[i] = s[0].wr(OpWrite, 0, 1, s[1], 0)
	}
	n, err := s[0].qp.PostSend(wrs)
	if n < 16 || n == len(wrs) || !errors.Is(err, syscall.ENOMEM) || !strings.Contains(err.Error(), "poll completions") {
		t.Errorf("%d posted, %v", n, err)
	}
}

// process reads what this process holds: descriptors, pinned and resident KiB.
func process(t *testing.T) (fds, pinned, resident int) {
	t.Helper()
	debug.FreeOSMemory()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		w := strings.Fields(lines.Text())
		if len(w) < 2 {
			continue
		}
		n, _ := strconv.Atoi(w[1])
		switch w[0] {
		case "VmPin:":
			pinned = n
		case "VmRSS:":
			resident = n
		}
	}
	return len(d) - 1, pinned, resident
}

// TestTenThousandConnectionsLeakNothing connects and closes again and again.
func TestTenThousandConnectionsLeakNothing(t *testing.T) {
	ctx, gid := openTest(t)
	a, b := newSide(t, ctx, 0), newSide(t, ctx, 0)
	cycle := func() {
		mr, err := a.pd.AllocMR(8192, AccessLocalWrite)
		if err != nil {
			t.Fatal(err)
		}
		cq, err := ctx.CreateCQ(4)
		if err != nil {
			t.Fatal(err)
		}
		conf := QPConfig{SendCQ: cq, RecvCQ: cq, MaxSend: 1, MaxRecv: 1, GIDIndex: gid.Index}
		x, y := connect(t, a.pd, b.pd, conf, conf, ConnectParams{})
		for _, c := range []interface{ Close() error }{x, y, cq, mr} {
			closed(t, c)
		}
	}
	cycles := 10_000
	if raceDetector {
		cycles = 200
	}
	for range 100 {
		cycle()
	}
	fds, pinned, resident := process(t)
	// What leaks grows in every quarter; the heaps of Go and C take more room now and
	// then and keep it.
	leaked := math.MaxInt
	for range 4 {
		for range cycles / 4 {
			cycle()
		}
		fds2, pinned2, resident2 := process(t)
		if fds2 > fds || pinned2 > pinned {
			t.Fatalf("%d descriptors, then %d; %d KiB pinned, then %d", fds, fds2, pinned, pinned2)
		}
		t.Logf("%d KiB resident, then %d", resident, resident2)
		leaked, resident = min(leaked, resident2-resident), resident2
	}
	// 1 KiB a cycle would be 2.5 MiB a quarter.
	if leaked > cycles/40 && !raceDetector {
		t.Errorf("each quarter of the cycles took %d KiB of memory or more", leaked)
	}
}

// TestAThousandQueuePairs live at once and all carry a message.
func TestAThousandQueuePairs(t *testing.T) {
	ctx, gid := openTest(t)
	s := newSide(t, ctx, 0)
	cq, err := ctx.CreateCQ(4000)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, cq) })
	const n = 1000
	qps := make([]*QP, 0, n)
	t.Cleanup(func() {
		for _, q := range qps {
			closed(t, q)
		}
	})
	conf := QPConfig{SendCQ: cq, RecvCQ: cq, MaxSend: 1, MaxRecv: 1, GIDIndex: gid.Index}
	for len(qps) < n {
		x, y := connect(t, s.pd, s.pd, conf, conf, ConnectParams{})
		qps = append(qps, x, y)
	}
	for i, q := range qps {
		wr := RecvWR{ID: uint64(i), NumSGE: 1}
		wr.SGE[0] = s.mr.SGE(8*i, 8)
		if _, err := q.PostRecv([]RecvWR{wr}); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range qps {
		wr := SendWR{ID: n, Opcode: OpSend, Flags: SendSignaled, NumSGE: 1}
		wr.SGE[0] = s.mr.SGE(8*n, 8)
		if _, err := q.PostSend([]SendWR{wr}); err != nil {
			t.Fatal(err)
		}
	}
	wait, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	got := make(map[uint64]int)
	wcs := make([]WC, 64)
	for left := 2 * n; left > 0; {
		k, err := cq.WaitPoll(wait, wcs)
		if err != nil {
			t.Fatal(err)
		}
		for i := range wcs[:k] {
			if wcs[i].Err() != nil {
				t.Fatal(wcs[i].Err())
			}
			got[wcs[i].ID]++
		}
		left -= k
	}
	if len(got) != n+1 || got[n] != n {
		t.Errorf("%d receives of %d, %d sends", len(got)-1, n, got[n])
	}
}

// event waits for an event of a type; others that a change of the link brings with
// it may come before.
func event(t *testing.T, ctx *Context, want EventType) Event {
	t.Helper()
	wait, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		e, err := ctx.NextEvent(wait)
		if err != nil {
			t.Fatalf("waiting for %v: %v", want, err)
		}
		if e.Type == want {
			return e
		}
	}
}

// TestPortEvents: the link goes down and comes up again.
func TestPortEvents(t *testing.T) {
	ctx, gid := openTest(t)
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	for _, c := range []context.Context{short, short} { // ended while waiting, and before
		if e, err := ctx.NextEvent(c); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	run(t, "ip", "link", "set", gid.Netdev, "down")
	if e := event(t, ctx, EventPortErr); e.Port != 1 {
		t.Errorf("%+v", e)
	}
	run(t, "ip", "link", "set", gid.Netdev, "up")
	if e := event(t, ctx, EventPortActive); e.Port != 1 {
		t.Errorf("%+v", e)
	}
	awaitAddress(t, ctx)
}

// awaitAddress waits until the address is in the device's table again.
func awaitAddress(t *testing.T, ctx *Context) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		port, err := ctx.QueryPort(1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := findTestGID(ctx); err == nil && port.State == PortActive {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is %v and has no GID for %s", testDevice, port.State, testAddr)
		}
	}
}

// held counts the descriptors and mappings that this process has of RDMA devices.
func held(t *testing.T) (descriptors, mappings int) {
	t.Helper()
	list, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range list {
		if to, err := os.Readlink(fd); err == nil && strings.Contains(to, "infiniband") {
			descriptors++
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return descriptors, strings.Count(string(maps), "infiniband")
}

// TestDeviceRemoved: who waits is told, and everything can still be closed, and is gone
// then. Kernels before 7 keep a removed device until the last user has closed it.
func TestDeviceRemoved(t *testing.T) {
	if kernel() < 700 {
		t.Log("this kernel removes no device that is in use")
		return
	}
	_, gid := openTest(t)
	t.Cleanup(func() {
		run(t, "rdma", "link", "add", testDevice, "type", "rxe", "netdev", gid.Netdev)
		ctx, err := Open(testDevice)
		if err != nil {
			t.Fatal(err)
		}
		defer closed(t, ctx)
		awaitAddress(t, ctx)
	})
	descriptors, mappings := held(t)
	t.Run("in use", func(t *testing.T) {
		s := connected(t)
		a := s[0]
		if d, m := held(t); d <= descriptors || m <= mappings {
			t.Errorf("two ends hold %d descriptors and %d mappings more", d-descriptors, m-mappings)
		}
		if err := s[1].cq.HoldThread(); err != nil {
			t.Fatal(err)
		}
		waited := make(chan error)
		for _, s := range s {
			go func() {
				_, err := s.cq.WaitPoll(context.Background(), make([]WC, 1))
				waited <- err
			}()
		}
		run(t, "rdma", "link", "delete", testDevice)
		for range s {
			if err := <-waited; !errors.Is(err, ErrDeviceGone) || !strings.Contains(err.Error(), testDevice) {
				t.Errorf("waiting: %v", err)
			}
		}
		event(t, a.pd.ctx, EventDeviceFatal)
		wait, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if e, err := a.pd.ctx.NextEvent(wait); !errors.Is(err, ErrDeviceGone) {
			t.Errorf("events after the end: %+v, %v", e, err)
		}
		if _, err := a.pd.AllocMR(4096, 0); !errors.Is(err, ErrDeviceGone) {
			t.Errorf("registering: %v", err)
		}
	})
	if d, m := held(t); d > descriptors || m > mappings {
		t.Errorf("closed, they hold %d descriptors and %d mappings still", d-descriptors, m-mappings)
	}
}
