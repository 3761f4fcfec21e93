package rdma

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBudgetGivesLessWhenItIsShort(t *testing.T) {
	const mib = 1 << 20
	b := NewBudget(25 * mib)
	for i, c := range []struct{ n, least, want int }{
		{16, 2, 16}, // 9 left
		{16, 16, 0},
		{16, 2, 8}, // 1 left
		{16, 2, 0},
		{2, 1, 1},
		{1, 1, 0},
	} {
		if got := b.take(c.n, c.least, mib); got != c.want {
			t.Errorf("%d: took %d of %d to %d, want %d", i, got, c.least, c.n, c.want)
		}
	}
	if err := b.spent(2 * mib); !strings.Contains(err.Error(), "2048 KiB") || !strings.Contains(err.Error(), "0 KiB are left of the 25600 KiB that --memory") {
		t.Error(err)
	}
	b.give(16 * mib)
	if got := b.take(16, 16, mib); got != 16 {
		t.Errorf("what was given back is not there: %d", got)
	}
	var none *Budget
	if got := none.take(16, 2, mib); got != 16 {
		t.Errorf("no budget allows %d", got)
	}
	none.give(mib)
}

// TestWindowsLeaveRoomForLanes, however many there are.
func TestWindowsLeaveRoomForLanes(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ lanes, window int }{
		{1, 64 * mib}, {2, 32 * mib}, {4, 16 * mib}, {8, 8 * mib}, {16, 0},
	} {
		b := NewBudget(512 * mib)
		last := 0
		for range c.lanes {
			if b.take(16, 16, mib) == 0 {
				t.Fatalf("%d lanes: no pool", c.lanes)
			}
			last = b.takeWindows(c.lanes)
		}
		if last != c.window {
			t.Errorf("%d lanes: the last has windows of %d bytes, want %d", c.lanes, last, c.window)
		}
	}
	var none *Budget
	if got := none.takeWindows(9); got != windowSize {
		t.Errorf("%d", got)
	}
}

func TestGroupMemoryIsTheLeastAround(t *testing.T) {
	root := t.TempDir()
	file := func(name, words string) string {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(words), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	file("a/memory.max", "1000\n")
	file("a/b/memory.max", "max\n")
	file("a/b/c/memory.max", "3000\n")
	self := file("self", "9:memory:/a\n0::/a/b/c\n")
	if got := groupMemory(root, self); got != 1000 {
		t.Errorf("%d", got)
	}
	file("self", "0::/\n")
	for _, self := range []string{self, self + "-"} {
		if got := groupMemory(root, self); got != math.MaxInt64 {
			t.Errorf("%s: %d", self, got)
		}
	}
}
