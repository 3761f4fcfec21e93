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
	s.add(2, 1)
	s.add(3, kib+1)
	wantExtents(t, drain(s),
		Extent{0, 0, kib}, Extent{0, kib, kib},
		Extent{2, 0, 1},
		Extent{3, 0, kib}, Extent{3, kib, 1})
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
	wantExtents(t, drain(s), Extent{1, 0, kib})
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
		"giveBack": func(s *scheduler) { s.giveBack([]Extent{{1, 0, 5}}) },
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
			if e := <-got; e != (Extent{1, 0, 5}) {
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
