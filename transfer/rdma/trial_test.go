package rdma

import (
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/internal/thread"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// trialOf is one whose window has come back, which costs so much an extent to make, and to read.
func trialOf(lanes int, making, reading time.Duration) *trial {
	t := &trial{lanes: lanes}
	t.begin(windowSize, windowLeast)
	t.reading = price{reading, pricedLeast}
	t.made(&window{price: price{8 * making, 8 * pricedLeast}})
	return t
}

func TestWindowsThatPay(t *testing.T) {
	for name, c := range map[string]struct {
		lanes           int
		making, reading time.Duration
		want            bool
	}{
		"cheaper":                  {1, 2, 3, true},
		"dearer":                   {1, 3, 2, false},
		"cheaper, mapped by both":  {2, 2, 3, false},
		"half price, and by both":  {2, 1, 3, true},
		"the same":                 {1, 2, 2, true},
		"a third, mapped by three": {3, 1, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			tr := trialOf(c.lanes, c.making*time.Millisecond, c.reading*time.Millisecond)
			for range 2 { // it stays so
				if got := tr.allows(false); got != c.want || tr.pays() != c.want {
					t.Errorf("allows %v, pays %v, want %v", got, tr.pays(), c.want)
				}
			}
			if tr.allows(true) {
				t.Error("a window for what is read for its digest anyway")
			}
			if n := tr.begin(windowSize, windowLeast); n != windowSize {
				t.Errorf("a window of %d bytes after the trial", n)
			}
		})
	}
}

// TestTrialsEnd: one short window at a time, and a few of them, where none tells.
func TestTrialsEnd(t *testing.T) {
	tr := &trial{lanes: 1}
	for i := range trials {
		if tr.allows(true) {
			t.Error("a window for what is read for its digest anyway")
		}
		if !tr.allows(false) || tr.pays() {
			t.Errorf("trial %d: not allowed, or known to pay", i)
		}
		if n := tr.begin(windowSize, windowLeast); n != windowLeast {
			t.Errorf("a window of %d bytes as a trial", n)
		}
		if tr.allows(false) {
			t.Error("two at a time")
		}
		tr.made(&window{err: transfer.ErrNoWindow}) // the file ends there
		tr.begin(windowSize, windowLeast)
		tr.read(true, func() int64 { return pricedLeast })
		tr.made(new(window)) // it was read from a disk
	}
	if tr.allows(false) {
		t.Errorf("trial %d", trials+1)
	}
}

// TestPacksTellNothing: there are no windows of small files, whose reads are not timed.
func TestPacksTellNothing(t *testing.T) {
	var tr trial
	tr.read(false, func() int64 { return pricedLeast })
	if tr.reading.bytes > 0 {
		t.Errorf("%d bytes in %v", tr.reading.bytes, tr.reading.time)
	}
}

// TestWhoAsksForWindows has them without a trial.
func TestWhoAsksForWindows(t *testing.T) {
	var tr *trial
	if !tr.allows(true) || !tr.pays() || tr.begin(windowSize, windowLeast) != windowSize {
		t.Error("it is not given them as they are")
	}
	tr.made(new(window))
	done := false
	tr.read(true, func() int64 { done = true; return 1 })
	if !done {
		t.Error("nothing was read")
	}
}

// TestPrice is time on a processor, and none of what was waited.
func TestPrice(t *testing.T) {
	const long = 200 * time.Millisecond
	var p price
	began := time.Now()
	p.add(func() int64 {
		time.Sleep(long)
		return pricedLeast
	})
	if waited := time.Since(began); !p.known() || p.time >= long || waited < long {
		t.Errorf("what waited for %v costs %v", waited, p.time)
	}
	p = price{}
	p.add(func() int64 {
		for began := thread.Time(); thread.Time()-began < time.Millisecond; {
		}
		return pricedLeast
	})
	if p.time < time.Millisecond || p.aByte()*pricedLeast != float64(p.time) {
		t.Errorf("1 ms costs %v; a byte of %d %v ns", p.time, p.bytes, p.aByte())
	}
}
