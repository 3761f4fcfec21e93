package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// What is in use is what is collected late by; and it is not asked for before something is
// collected.
func TestCollectLate(t *testing.T) {
	inUse.Store(nil)
	ask = sync.Once{}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	collectLate()
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took >= collectAfter {
		t.Fatalf("%d bytes were asked for at once", took)
	}
	// A goroutine of the runtime's asks for them when a collection is over.
	for ended := time.Now().Add(patience); inUse.Load() == nil; runtime.GC() {
		if time.Now().After(ended) {
			t.Fatal("nothing is in use that keeps the next collection away")
		}
	}
}

// What the heap grows by is of huge pages, where the kernel has some.
func TestHugeHeap(t *testing.T) {
	hugeHeap()
	var used [][]byte
	for range hugeRoom / 2 / (64 << 10) {
		used = append(used, make([]byte, 64<<10))
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	var first, end, inHuge uintptr
	for line := range strings.Lines(string(smaps)) {
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); !ok {
			fmt.Sscanf(line, "%x-%x ", &first, &end)
		} else if slices.Contains(strings.Fields(flags), "hg") {
			for _, b := range used {
				if a := uintptr(unsafe.Pointer(&b[0])); first <= a && a < end {
					inHuge++
				}
			}
		}
	}
	if inHuge < hugeRoom/4/(64<<10) {
		t.Fatalf("%d of %d objects of 64 KiB are where huge pages were asked for", inHuge, len(used))
	}
}
