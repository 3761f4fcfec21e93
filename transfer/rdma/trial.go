package rdma

import (
	"runtime"
	"time"

	"github.com/rdmaxfer/rdmaxfer/internal/thread"
)

// Sources are where the sending end of a lane can have bytes from:
//
//	window  the pages of the file, registered by stretches
//	pool    memory of its own, which they are read into
//
// auto is what takes less of this host's processors, which a short window shows, and pool
// where digests are taken, for which all is read anyway. What has no windows (docs/architecture.md)
// comes from the pool.
var Sources = []string{SourceAuto, SourceWindow, SourcePool}

// The sources.
const (
	SourceAuto   = "auto"
	SourceWindow = "window"
	SourcePool   = "pool"
)

// trial finds out for auto whether windows pay. The nil *trial is that they are wanted.
type trial struct {
	lanes   int   // that ask for parts of the same file, each by windows of its own
	making  price // of windows
	reading price // of bytes into the pool
	under   bool  // one is being made
	begun   int   // windows
	over    bool
	paid    bool // they pay
}

// trials is how many windows are made at the most, to find out: of what comes from a disk
// none may tell.
const trials = 4

// allows reports whether a window may be made now.
func (t *trial) allows(verifying bool) bool {
	switch {
	case t == nil:
		return true
	case verifying:
		return false
	case !t.over && t.making.known() && t.reading.known():
		// What a lane maps it uses its part of.
		t.over = true
		t.paid = t.making.aByte()*float64(t.lanes) <= t.reading.aByte()
	}
	if t.over {
		return t.paid
	}
	return !t.under && t.begun < trials
}

// pays reports whether they are known to.
func (t *trial) pays() bool { return t == nil || t.paid }

// begin is for each window that is begun. most is how large it may be, least is enough
// for a trial.
func (t *trial) begin(most, least int) int {
	if t == nil || t.over {
		return most
	}
	t.under = true
	t.begun++
	return min(most, least)
}

// made is for each that has come back. Where a file's end was too near there was none to tell.
func (t *trial) made(w *window) {
	if t == nil {
		return
	}
	t.under = false
	if w.err != nil {
		t.begun--
	}
	t.making.time += w.price.time
	t.making.bytes += w.price.bytes
}

// read does a read into the pool, of as many bytes as it says, which a window might spare.
func (t *trial) read(might bool, f func() int64) {
	if t == nil || !might || t.over || t.reading.known() {
		f()
		return
	}
	t.reading.add(f)
}

// price is what bytes have taken of the processors' time.
type price struct {
	time  time.Duration
	bytes int64
}

// pricedLeast is how many bytes tell what one costs.
const pricedLeast = 1 << 20

// add has f done, which says how many bytes it was. What was read from a disk says nothing: pages
// that are not there yet cost whoever comes first. What waits costs nothing meanwhile.
func (p *price) add(f func() int64) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	reads, began := thread.Reads(), thread.Time()
	n := f()
	if took := thread.Time() - began; thread.Reads() == reads {
		p.time += took
		p.bytes += n
	}
}

// known reports whether there is one.
func (p *price) known() bool { return p.bytes >= pricedLeast }

// aByte is what one costs, in nanoseconds.
func (p *price) aByte() float64 { return float64(p.time) / float64(p.bytes) }
