//go:build rxe

package ibverbs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What memory a device takes, and what a kernel can do with it.

func openPD(t *testing.T, ctx *Context) *PD {
	t.Helper()
	pd, err := ctx.AllocPD()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, pd) })
	return pd
}

// TestProbes: what the kernel is known to have must be found, and what it lacks be
// said in a type.
func TestProbes(t *testing.T) {
	ctx, _ := openTest(t)
	attr, err := ctx.QueryDevice()
	if err != nil {
		t.Fatal(err)
	}
	want := func(name string, err error, there bool) {
		t.Helper()
		if there && err != nil || !there && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s on kernel %d: %v, want it there: %v", name, kernel(), err, there)
		}
	}
	for range 2 { // the second answer is the remembered one
		want("read-only registration", ctx.CanRegisterReadOnly(), kernel() >= 602)
		want("on-demand paging", ctx.CanODP(AccessLocalWrite|AccessRemoteRead, ODPSend|ODPRead), kernel() >= 700)
	}
	if attr.ODP.Supported != (kernel() >= 700) {
		t.Errorf("on-demand paging: %+v", attr.ODP)
	}
	pd := openPD(t, ctx)
	_, err = pd.RegisterDMABuf(0, 0, 4096, 0, AccessLocalWrite)
	want("dma-buf", err, false)
	if _, err := pd.AllocMR(4096, AccessRemoteWrite); err == nil || !strings.Contains(err.Error(), "AccessLocalWrite") {
		t.Errorf("remote write without local: %v", err)
	}
	mr, err := pd.AllocMR(4096, AccessLocalWrite|AccessRelaxedOrdering)
	if err != nil {
		t.Fatalf("relaxed ordering, which is optional: %v", err)
	}
	closed(t, mr)
}

// TestOnDemand moves bytes between memory that is not pinned, where there is such.
func TestOnDemand(t *testing.T) {
	s := connected(t)
	a, b := s[0], s[1]
	const access = AccessOnDemand | AccessLocalWrite | AccessRemoteRead | AccessRemoteWrite
	if err := a.pd.ctx.CanODP(access, ODPSend|ODPRecv|ODPWrite|ODPRead); kernel() < 700 {
		if !errors.Is(err, ErrUnsupported) {
			t.Errorf("%v", err)
		}
		return
	} else if err != nil {
		t.Fatal(err)
	}
	_, before, _ := process(t)
	for _, s := range []*side{a, b} {
		mr, err := s.pd.AllocMR(16<<20, access)
		if err != nil {
			t.Fatal(err)
		}
		closed(t, s.mr)
		s.mr = mr
	}
	if _, pinned, _ := process(t); pinned > before {
		t.Errorf("%d KiB are pinned, and were %d", pinned, before)
	}
	copy(a.bytes(5<<20, 8), "pageable")
	a.send(t, a.wr(OpWrite, 5<<20, 8, b, 9<<20))
	a.ok(t)
	b.recv(t, 1, 12<<20, 8)
	a.send(t, a.wr(OpSend, 5<<20, 8, nil, 0))
	a.ok(t)
	b.ok(t)
	a.send(t, a.wr(OpRead, 1<<20, 8, b, 12<<20))
	a.ok(t)
	for _, got := range [][]byte{b.bytes(9<<20, 8), b.bytes(12<<20, 8), a.bytes(1<<20, 8)} {
		if string(got) != "pageable" {
			t.Errorf("%q", got)
		}
	}
}

func TestHugePagesAndNodes(t *testing.T) {
	ctx, _ := openTest(t)
	pd := openPD(t, ctx)
	pool := func(n string) {
		if err := os.WriteFile("/proc/sys/vm/nr_hugepages", []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	huge := MemoryOptions{HugePages: true, Require: true}
	pool("0")
	if err := ctx.CanUseHugePages(); !errors.Is(err, ErrUnsupported) {
		t.Errorf("an empty pool: %v", err)
	}
	if _, err := pd.AllocMROn(1<<20, AccessLocalWrite, huge); err == nil || !strings.Contains(err.Error(), "vm.nr_hugepages=1") {
		t.Errorf("an empty pool: %v", err)
	}
	mr, err := pd.AllocMROn(1<<20, AccessLocalWrite, MemoryOptions{HugePages: true})
	if err != nil {
		t.Fatal("huge pages, not required: ", err)
	}
	closed(t, mr)

	pool("2")
	defer pool("0")
	other, err := Open(testDevice) // an answer is remembered by the device
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, other)
	if err := other.CanUseHugePages(); err != nil {
		t.Error(err)
	}
	free := func() string {
		b, err := os.ReadFile(filepath.Join("/sys/kernel/mm/hugepages/hugepages-2048kB", "free_hugepages"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	if mr, err = pd.AllocMROn(3<<20, AccessLocalWrite, huge); err != nil {
		t.Fatal(err)
	}
	if len(mr.Bytes()) != 3<<20 || free() != "0" {
		t.Errorf("%d bytes, %s pages free of 2", len(mr.Bytes()), free())
	}
	closed(t, mr)
	if free() != "2" {
		t.Errorf("%s pages free of 2 after the end", free())
	}

	// What is a wish takes other nodes' pages when that one is full.
	node := MemoryOptions{OnNode: true}
	for _, node.Require = range []bool{false, true} {
		if mr, err = pd.AllocMROn(4096, AccessLocalWrite, node); err != nil {
			t.Fatal("node 0: ", err)
		}
		want := mpolPreferred
		if node.Require {
			want = mpolBind
		}
		if got := policyOf(t, mr.Bytes()); got != want {
			t.Errorf("memory policy %d, of a node that is required: %v", got, node.Require)
		}
		closed(t, mr)
	}
	node.Node = 63
	if _, err = pd.AllocMROn(4096, AccessLocalWrite, node); err == nil || !strings.Contains(err.Error(), "NUMA node 63") {
		t.Errorf("%v", err)
	}
}

// policyOf asks for the policy of memory (get_mempolicy(2), MPOL_F_ADDR).
func policyOf(t *testing.T, b []byte) (policy int) {
	t.Helper()
	var mode int32
	_, _, errno := unix.Syscall6(unix.SYS_GET_MEMPOLICY, uintptr(unsafe.Pointer(&mode)), 0, 0, uintptr(unsafe.Pointer(&b[0])), 2, 0)
	if errno != 0 {
		t.Fatal("get_mempolicy: ", errno)
	}
	return int(mode)
}

func TestRegisterSplit(t *testing.T) {
	ctx, _ := openTest(t)
	pd := openPD(t, ctx)
	buf, err := mapMemory(10<<12, MemoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer unmap(buf)
	list, err := pd.registerSplit(buf, 8192, 20000, AccessLocalWrite)
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	for _, mr := range list {
		sizes = append(sizes, len(mr.Bytes()))
		closed(t, mr)
	}
	if len(sizes) != 3 || sizes[0] != 16384 || sizes[1] != 16384 || sizes[2] != 8192 {
		t.Errorf("%v", sizes)
	}
	if list, err = pd.RegisterSplit(buf, 4096, AccessLocalWrite); err != nil || len(list) != 1 {
		t.Fatalf("%d regions, %v", len(list), err)
	}
	closed(t, list[0])
	if _, err := pd.RegisterSplit(buf, 5000, 0); err == nil {
		t.Error("5000 is no alignment")
	}
}
