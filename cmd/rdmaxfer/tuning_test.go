package main

import (
	"runtime"
	"testing"
	"time"
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
