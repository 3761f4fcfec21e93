package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// What is in use is what is collected late by; and it is not asked for before something is
// collected.
func TestCollectLate(t *testing.T) {
	inUse.Store(nil)
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

// What the heap grows by is of huge pages. That is so of a program that has just begun; other
// tests leave free what objects are made in first.
func TestHugeHeap(t *testing.T) {
	const fresh = "RDMAXFER_TEST_FRESH"
	if os.Getenv(fresh) == "" {
		self := exec.Command("/proc/self/exe", "-test.run=^TestHugeHeap$")
		self.Env = append(os.Environ(), fresh+"=1")
		if out, err := self.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
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
			var from, to uintptr
			if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 { // not a line such as "Anonymous:"
				first, end = from, to
			}
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
