package transfer

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
)

const kib = 1 << 10

// drain takes everything that there is.
func drain(s *scheduler) (list []Extent) {
	for {
		e, ok := s.tryNext()
		if !ok {
			return list
		}
		list = append(list, e)
	}
}

func wantExtents(t *testing.T, got []Extent, want ...Extent) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("extent %d is %v, want %v", i, got[i], want[i])
		}
	}
}

func TestExtentsCoverFilesInOrder(t *testing.T) {
	s := newScheduler(kib)
	s.add(0, 2*kib)
	s.add(1, 0)
	s.add(2, kib-1)
	s.add(3, kib+1)
	wantExtents(t, drain(s),
		Extent{File: 0, Off: 0, Len: kib}, Extent{File: 0, Off: kib, Len: kib},
		Extent{File: 2, Off: 0, Len: kib - 1},
		Extent{File: 3, Off: 0, Len: kib}, Extent{File: 3, Off: kib, Len: 1})
	wantExtents(t, drain(s))
}

func TestWhatCameBackGoesFirst(t *testing.T) {
	s := newScheduler(kib)
	s.add(0, 4*kib)
	first, _ := s.tryNext()
	second, _ := s.tryNext()
	s.giveBack([]Extent{first, second})
	s.giveBack(nil)
	got := drain(s)
	if len(got) != 4 {
		t.Fatalf("%v", got)
	}
	seen := map[Extent]bool{got[0]: true, got[1]: true}
	if !seen[first] || !seen[second] {
		t.Errorf("%v and %v come first, want %v and %v", got[0], got[1], first, second)
	}
}

func TestDroppedFileIsNeverHandedOut(t *testing.T) {
	s := newScheduler(kib)
	s.add(0, 2*kib)
	s.add(1, kib)
	lost, _ := s.tryNext()
	s.drop(0)
	s.giveBack([]Extent{lost})
	wantExtents(t, drain(s), Extent{File: 1, Off: 0, Len: kib})
}

func TestEndEndsEveryWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(kib)
		ended := make(chan error, 3)
		for range 3 {
			go func() {
				_, err := s.next(context.Background())
				ended <- err
			}()
		}
		synctest.Wait() // all three wait
		s.end()
		for range 3 {
			if err := <-ended; err != io.EOF {
				t.Errorf("%v, want EOF", err)
			}
		}
		s.add(0, kib)
		if e, ok := s.tryNext(); ok {
			t.Errorf("%v after the end", e)
		}
	})
}

// TestNextWakes: each of what may bring an extent ends the wait for one.
func TestNextWakes(t *testing.T) {
	for name, wake := range map[string]func(*scheduler){
		"add":      func(s *scheduler) { s.add(1, 5) },
		"giveBack": func(s *scheduler) { s.giveBack([]Extent{{File: 1, Len: 5}}) },
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newScheduler(kib)
			got := make(chan Extent, 1)
			go func() {
				e, err := s.next(context.Background())
				if err != nil {
					t.Error(name, err)
				}
				got <- e
			}()
			synctest.Wait()
			wake(s)
			if e := <-got; e.File != 1 || e.Off != 0 || e.Len != 5 {
				t.Errorf("%s: %v", name, e)
			}
		})
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(kib)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			_, err := s.next(ctx)
			ended <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestSmallFilesArePacked: as many as follow each other, fit, and have only what has
// no bytes between them.
func TestSmallFilesArePacked(t *testing.T) {
	for name, c := range map[string]struct {
		sizes []int64 // -1 is a stream, which nothing reaches over
		want  []Extent
	}{
		"one":                {[]int64{5}, []Extent{{File: 0, Len: 5, Count: 1}}},
		"three":              {[]int64{5, 6, 7}, []Extent{{File: 0, Len: 18, Count: 3}}},
		"empty ones between": {[]int64{5, 0, 0, 7, 0}, []Extent{{File: 0, Len: 12, Count: 4}}},
		"an empty one first": {[]int64{0, 5, 6}, []Extent{{File: 1, Len: 11, Count: 2}}},
		"too much":           {[]int64{512, 512, 1}, []Extent{{File: 0, Len: 1024, Count: 2}, {File: 2, Len: 1, Count: 1}}},
		"a large one between": {[]int64{5, 600, 7}, []Extent{{File: 0, Len: 5, Count: 1},
			{File: 1, Len: 600}, {File: 2, Len: 7, Count: 1}}},
		"a stream between": {[]int64{5, -1, 7}, []Extent{{File: 0, Len: 5, Count: 1}, {File: 2, Len: 7, Count: 1}}},
	} {
		s := newScheduler(kib)
		for n, size := range c.sizes {
			if size >= 0 {
				s.add(uint32(n), size)
			}
		}
		t.Log(name)
		wantExtents(t, drain(s), c.want...)
	}
}

func TestPackIsUnpackedOnce(t *testing.T) {
	s := newScheduler(kib)
	s.add(0, 5)
	s.add(1, 6)
	e, _ := s.tryNext()
	if got := s.unpack(e); len(got) != 2 || got[1] != (packed{1, 6}) {
		t.Errorf("%v", got)
	}
	if got := s.unpack(e); got != nil {
		t.Errorf("%v, the second time", got)
	}
	s.again(1, 6)
	wantExtents(t, drain(s), Extent{File: 1, Len: 6, Count: 1})
	if got := s.unpack(Extent{File: 1, Len: 6, Count: 1}); len(got) != 1 {
		t.Errorf("%v, when it was asked for again", got)
	}
}

// TestStreamsGrow: whole extents alone are asked for before the end.
func TestStreamsGrow(t *testing.T) {
	s := newScheduler(kib)
	s.grow(3, kib, false)
	wantExtents(t, drain(s), Extent{File: 3, Len: kib})
	wantExtents(t, drain(s))
	s.grow(3, 3*kib, false)
	s.grow(3, 3*kib+5, true)
	wantExtents(t, drain(s), Extent{File: 3, Off: kib, Len: kib}, Extent{File: 3, Off: 2 * kib, Len: kib}, Extent{File: 3, Off: 3 * kib, Len: 5})
	s.grow(6, 5, true) // short ones are no small files
	s.add(7, 5)
	wantExtents(t, drain(s), Extent{File: 6, Len: 5}, Extent{File: 7, Len: 5, Count: 1})
	s.grow(4, kib, false)
	drain(s)
	s.grow(4, kib, true)
	wantExtents(t, drain(s))
	if len(s.files) != 0 {
		t.Errorf("%d files are left", len(s.files))
	}
}

// TestResumedFileIsHandedOutWithoutWhatLanded, and takes no memory for a size that is only said.
func TestResumedFileIsHandedOutWithoutWhatLanded(t *testing.T) {
	s := newScheduler(mib)
	var have bitmap
	for _, n := range []int{0, 1, 4, 6} {
		have.set(n)
	}
	s.resume(1, 6*mib+5, have)
	s.resume(2, 1<<52, have)
	s.resume(3, mib, have) // nothing is missing
	for _, want := range []Extent{{File: 1, Off: 2 * mib, Len: mib}, {File: 1, Off: 3 * mib, Len: mib}, {File: 1, Off: 5 * mib, Len: mib},
		{File: 2, Off: 2 * mib, Len: mib}, {File: 2, Off: 3 * mib, Len: mib}, {File: 2, Off: 5 * mib, Len: mib}, {File: 2, Off: 7 * mib, Len: mib}} {
		if e, ok := s.tryNext(); !ok || e != want {
			t.Fatalf("%+v, %v, want %+v", e, ok, want)
		}
	}
	s.drop(2)
	if e, ok := s.tryNext(); ok {
		t.Errorf("%+v of nothing", e)
	}
}
