package tcpfallback

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/tcpfallback/compress"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// sends moves n extents as lanes do, each at its method's rate (bytes a second), and gives
// how many went by each.
func sends(c *Choice, now *time.Time, n int, rate map[string]float64) map[string]int {
	by := make(map[string]int)
	for range n {
		m := c.next(c.first == "copy")
		by[m]++
		*now = now.Add(time.Duration(float64(extent) / rate[m] * 1e9))
		c.moved(m, extent, *now)
	}
	return by
}

// uptoTrials sends all that goes before the first trial, and gives how many went by each method.
func uptoTrials(c *Choice, now *time.Time, rate map[string]float64) map[string]int {
	by := sends(c, now, 1, rate)
	*now = now.Add(trialsAfter)
	for m, n := range sends(c, now, toTry-1, rate) {
		by[m] += n
	}
	return by
}

const toTry, tried = beforeTrials / extent, trialRounds * 3 * trialSize / extent

func TestAutoChoosesWhatIsClearlyFaster(t *testing.T) {
	for _, c := range []struct {
		verifying          bool
		copy, mmap, splice float64
		want               string
		rounds             map[string]int // of trials
	}{
		{true, 1e9, 1e9, 1e9, "copy (auto: 1.0 GB/s against mmap 1.0, splice 1.0)", map[string]int{"copy": 5, "mmap": 5, "splice": 5}},
		{true, 1e9, 1.09e9, 1.05e9, "copy (auto: 1.0 GB/s against mmap 1.1, splice 1.1)", map[string]int{"copy": 5, "mmap": 5, "splice": 5}},
		{true, 1e9, 1.12e9, 1e9, "mmap (auto: 1.1 GB/s against copy 1.0, splice 1.0)", map[string]int{"copy": 2, "mmap": 2, "splice": 2}},
		{true, 1e9, 1.2e9, 3e9, "splice (auto: 3.0 GB/s against copy 1.0, mmap 1.2)", map[string]int{"copy": 2, "mmap": 2, "splice": 2}},
		{true, 1e9, 3e9, 1.2e9, "mmap (auto: 3.0 GB/s against copy 1.0, splice 1.2)", map[string]int{"copy": 2, "mmap": 2, "splice": 2}},
		{true, 1e9, 2e9, 1.9e9, "mmap (auto: 2.0 GB/s against copy 1.0, splice 1.9)", map[string]int{"copy": 2, "mmap": 5, "splice": 5}},
		{false, 1e9, 1e9, 1e9, "splice (auto: 1.0 GB/s against copy 1.0, mmap 1.0)", map[string]int{"copy": 5, "mmap": 5, "splice": 5}},
		{false, 1.09e9, 1e9, 1e9, "splice (auto: 1.0 GB/s against copy 1.1, mmap 1.0)", map[string]int{"copy": 5, "mmap": 5, "splice": 5}},
		{false, 2e9, 2.1e9, 1e9, "mmap (auto: 2.1 GB/s against copy 2.0, splice 1.0)", map[string]int{"copy": 5, "mmap": 5, "splice": 2}},
		{false, 1e9, 1e9, 5e9, "splice (auto: 5.0 GB/s against copy 1.0, mmap 1.0)", map[string]int{"copy": 2, "mmap": 2, "splice": 2}},
		{true, 3e9, 1e9, 1e9, "copy (auto: 3.0 GB/s against mmap 1.0, splice 1.0)", map[string]int{"copy": 2, "mmap": 2, "splice": 2}},
		{true, 14.3e6, 1e6, 1e6, "copy (auto: 14.3 MB/s against mmap 1.0, splice 1.0)", map[string]int{"copy": 2, "mmap": 2, "splice": 2}},
	} {
		choice, now := new(Choice), time.Unix(1, 0)
		before := first(c.verifying)
		rate := map[string]float64{"copy": c.copy, "mmap": c.mmap, "splice": c.splice}
		if got := choice.String(); got != "auto" {
			t.Errorf("before anything was sent: %s", got)
		}
		choice.next(c.verifying)
		if by := uptoTrials(choice, &now, rate); by[before] != toTry || choice.String() != "auto" {
			t.Errorf("before the trials: %v, %s", by, choice)
		}
		by := make(map[string]int)
		for choice.String() == "auto" {
			for m, n := range sends(choice, &now, trialSize/extent, rate) {
				by[m] += n
			}
		}
		for m, n := range c.rounds {
			if by[m] != n*trialSize/extent {
				t.Errorf("%v: trials %v", c, by)
			}
		}
		if got := choice.String(); got != c.want {
			t.Errorf("%v: %s, want %s", c, got, c.want)
		}
		chosen := choice.next(c.verifying)
		if by := sends(choice, &now, 1000, rate); by[chosen] != 1000 {
			t.Errorf("after the trials: %v", by)
		}
	}
}

// TestAutoTriesNothingSmall: what is over before a connection is up to speed, or lanes were tried.
func TestAutoTriesNothingSmall(t *testing.T) {
	for n, rate := range map[int]float64{toTry - 1: 1e6, int(10 * trialsAfter.Seconds() * 1e9 / extent): 10e9} {
		choice, now := new(Choice), time.Unix(1, 0)
		if by := sends(choice, &now, n, map[string]float64{"splice": rate}); by["splice"] != n || choice.String() != "splice" {
			t.Errorf("%v, %s", by, choice)
		}
	}
	choice := new(Choice)
	choice.disturb() // a stream, say
	if choice.String() != "copy" {
		t.Errorf("what went by copy alone: %s", choice)
	}
}

// TestAutoTriesNothingAtOnce: with one request in flight there is no rate to go by.
func TestAutoTriesNothingAtOnce(t *testing.T) {
	p := params(nil)
	for depth, untried := range map[int]bool{1: true, 2: false} {
		p.Depth = depth
		m, err := Transport{}.newMethod(p)
		if err != nil {
			t.Fatal(err)
		}
		choice, now := m.(*autoOut).choice, time.Unix(1, 0)
		uptoTrials(choice, &now, map[string]float64{"splice": 1e9})
		if by := sends(choice, &now, tried, map[string]float64{"splice": 1e9, "copy": 9e9, "mmap": 1e9}); (by["splice"] == tried) != untried || (choice.String() == "splice") != untried {
			t.Errorf("%d requests in flight: %v, %s", depth, by, choice)
		}
	}
}

// TestAutoForgivesOddTrials of a method: one that was quick, and several that were slow,
// unless they were all that it had.
func TestAutoForgivesOddTrials(t *testing.T) {
	choice, now := new(Choice), time.Unix(1, 0)
	const round = tried / trialRounds
	rate := map[string]float64{"copy": 1e9, "mmap": 0.1e9, "splice": 9e9}
	uptoTrials(choice, &now, rate)
	sends(choice, &now, round, rate)
	rate["splice"] = 1e9
	for _, mmap := range []float64{2e9, 0.1e9, 0.1e9, 2e9} {
		rate["mmap"] = mmap
		sends(choice, &now, round, rate)
	}
	if got := choice.next(true); got != "mmap" {
		t.Errorf("chose %s", choice)
	}
}

// TestAutoIsNotDisturbedForEver by packs between the extents of files: a trial that was cut
// short begins again, and when all are it goes on as it began.
func TestAutoIsNotDisturbedForEver(t *testing.T) {
	rate := map[string]float64{"copy": 1e9, "mmap": 2e9, "splice": 1e9}
	choice, now := new(Choice), time.Unix(1, 0)
	uptoTrials(choice, &now, rate)
	sends(choice, &now, 1, rate)
	now = now.Add(time.Hour) // of packs
	choice.disturb()
	sends(choice, &now, tried, rate)
	if choice.String() != "mmap (auto: 2.0 GB/s against copy 1.0, splice 1.0)" {
		t.Errorf("%s", choice)
	}
	choice = new(Choice)
	uptoTrials(choice, &now, rate)
	for range maxDisturbed + 1 {
		sends(choice, &now, 10, rate)
		choice.disturb()
	}
	if by := sends(choice, &now, 100, rate); by["splice"] != 100 || choice.String() != "splice" {
		t.Errorf("%v, %s", by, choice)
	}
}

// TestAutoCountsWhatMoves, be it by hand, as a file with holes does by mmap, and not what is
// refused, which takes no time.
func TestAutoCountsWhatMoves(t *testing.T) {
	path, _ := file(t, 1)
	if err := os.Truncate(path, extent); err != nil {
		t.Fatal(err)
	}
	for _, settled := range []bool{false, true} {
		src := open(t, path)
		if settled {
			src.Close()
		}
		choice := &Choice{first: "copy", trying: true, turn: slices.Index(trials(), "mmap")}
		mine, theirs := pair(t)
		go io.Copy(io.Discard, mine)
		moved, err := newAutoOut(newCopyOut(compress.None, extent), choice).answer(theirs, src, wire.Request{Length: extent})
		if moved == settled || err != nil || choice.sent == 0 != settled || choice.disturbed == 1 != settled {
			t.Errorf("settled %v: moved: %v, %v; %d bytes of a trial, %d were cut short", settled, moved, err, choice.sent, choice.disturbed)
		}
	}
}

// TestAutoKeepsNothingOfAMethod when another has its turn.
func TestAutoKeepsNothingOfAMethod(t *testing.T) {
	path, _ := file(t, extent)
	src := open(t, path)
	choice := &Choice{first: "copy", trying: true, turn: slices.Index(trials(), "mmap")}
	mine, theirs := pair(t)
	go io.Copy(io.Discard, mine)
	out := newAutoOut(newCopyOut(compress.None, extent), choice)
	defer out.release()
	mapping := func() []byte { return out.methods["mmap"].(*mmapOut).win.pages }
	for _, turn := range []string{"mmap", "splice"} {
		choice.turn = slices.Index(trials(), turn)
		if moved, err := out.answer(theirs, src, wire.Request{Length: extent}); !moved || err != nil {
			t.Fatalf("%s: %v, %v", turn, moved, err)
		}
		if mapped := mapping() != nil; mapped != (turn == "mmap") {
			t.Errorf("after %s: the file is mapped: %t", turn, mapped)
		}
	}
}

// TestFilesThatTheKernelWontMove arrive nevertheless, over the same lane.
func TestFilesThatTheKernelWontMove(t *testing.T) {
	proc, err := os.Open("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	want := make([]byte, 100)
	if _, err := proc.ReadAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if pages, err := new(window).of(proc, 0, 100); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("%d bytes of it can be mapped", len(pages))
	}
	if _, err := new(spliceOut).fill(proc, 0, 100); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("it can be spliced: %v", err)
	}
	_, theirs := pair(t)
	if err := sendRange(theirs, int(proc.Fd()), 0, 100); !errors.Is(err, errNoSendfile) {
		t.Fatalf("sendfile: %v", err)
	}
	eachMethod(t, func(t *testing.T, method string) {
		path, _ := file(t, 100)
		src := open(t, path)
		r := wire.Request{ID: 1, Length: 100}
		f, err := src.File(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Dup3(int(proc.Fd()), int(f.Fd()), unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		s := startServing(t, method, src)
		for range 2 {
			s.ask(r)
			if a, p := s.answer(); a.Status != wire.StatusOK || !bytes.Equal(p, want) {
				t.Errorf("%+v: %q", a, p)
			}
		}
	})
}
