package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// What is in use is what is collected late by; and it is not asked for before something is
// collected, for that would be the first thing to be.
func TestCollectLate(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	collectLate()
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took >= collectAfter || after.NumGC != before.NumGC {
		t.Fatalf("%d bytes were asked for, and %d collections done, at once", took, after.NumGC-before.NumGC)
	}
	// The bytes are asked for by a goroutine of the runtime's when the first collection is over.
	for ended := time.Now().Add(patience); after.TotalAlloc-before.TotalAlloc < collectAfter; runtime.ReadMemStats(&after) {
		if time.Now().After(ended) {
			t.Fatalf("after %d collections nothing is in use that keeps the next away", after.NumGC-before.NumGC)
		}
		runtime.GC()
	}
	for ended := time.Now().Add(patience); ; runtime.Gosched() {
		runtime.ReadMemStats(&after)
		if after.NextGC >= 2*collectAfter {
			break
		}
		if time.Now().After(ended) {
			t.Fatalf("the next collection comes at %d bytes", after.NextGC)
		}
		runtime.GC()
	}
}
