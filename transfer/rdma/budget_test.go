package rdma

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
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

// TestLanesThatAreTriedHaveWindows: the first takes no more than its share of what there may be.
func TestLanesThatAreTriedHaveWindows(t *testing.T) {
	tried := min(transfer.AutoLanes, runtime.NumCPU())
	for _, c := range []struct{ asked, worth, want int }{
		{0, 0, tried}, {0, 1, tried}, {0, 64, 64}, {1, 64, 1}, {16, 1, 16},
	} {
		tr := &Transport{asked: c.asked}
		if tr.worth = c.worth; tr.lanes() != c.want {
			t.Errorf("asked for %d, ports worth %d: %d lanes, want %d", c.asked, c.worth, tr.lanes(), c.want)
		}
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
	file("memory/a/memory.limit_in_bytes", "2000\n")
	file("memory/memory.limit_in_bytes", "9223372036854771712\n")
	file("memory/a/b:c/memory.limit_in_bytes", "900\n")
	var self string
	for groups, want := range map[string]int64{
		"9:memory:/a\n0::/a/b/c\n": 1000,
		"4:cpu,memory:/a\n0::/\n":  2000,
		"4:memory:/a/b:c\n":        900,
		"4:memory:/of/the/host\n1:name=systemd:/a\n2:memory_like:/a\n": 9223372036854771712,
	} {
		self = file("self", groups)
		if got := groupMemory(root, self); got != want {
			t.Errorf("%q: %d, want %d", groups, got, want)
		}
	}
	file("self", "0::/\n")
	for _, self := range []string{self, self + "-"} {
		if got := groupMemory(root, self); got != math.MaxInt64 {
			t.Errorf("%s: %d", self, got)
		}
	}
}

// TestLockedMemory: the limit binds whoever has not the capability that counts, whoever that
// is, and leaves room for the rest.
func TestLockedMemory(t *testing.T) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &lim) })
	lower := unix.Rlimit{Cur: min(lim.Cur, 4<<20), Max: lim.Max}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &lower); err != nil {
		t.Fatal(err)
	}
	const all, identity = "000001ffffffffff", "         0          0 4294967295\n"
	for name, c := range map[string]struct {
		effective, users string
		bound            bool
	}{
		"root":                       {all, identity, false},
		"root of a container":        {"00000000a80425fb", identity, true},
		"root of a user namespace":   {all, "         0       1000          1\n", true},
		"root of a range of users":   {all, "0 100000 65536\n", true},
		"a user":                     {"0000000000000000", identity, true},
		"a user with CAP_IPC_LOCK":   {"0000000000004000", identity, false},
		"a user with all the others": {"000001ffffffbfff", identity, true},
		"nobody knows where":         {all, "", true},
	} {
		proc := t.TempDir()
		status := "Name:\trdmaxfer\nCapPrm:\t" + all + "\nCapEff:\t" + c.effective + "\nCapBnd:\t" + all + "\n"
		if err := errors.Join(os.WriteFile(filepath.Join(proc, "status"), []byte(status), 0o600),
			os.WriteFile(filepath.Join(proc, "uid_map"), []byte(c.users), 0o600)); err != nil {
			t.Fatal(err)
		}
		want := int64(math.MaxInt64)
		if c.bound {
			want = int64(lower.Cur) * 15 / 16
		}
		if got, _ := lockedMemory(proc); got != want {
			t.Errorf("%s: %d bytes, want %d", name, got, want)
		}
	}
}

// TestTriedLanesLeaveRoom for the first lanes of other sessions.
func TestTriedLanesLeaveRoom(t *testing.T) {
	const total = 8 * LeastMemory
	for taken, room := range map[int]int{0: 4, 1: 3, 4: 0, 7: 0} { // lanes
		tr := &Transport{Memory: &Budget{total: total, left: total - int64(taken)*LeastMemory}}
		for lanes := 1; lanes <= 8; lanes++ {
			if got := tr.Room(lanes); got != (lanes <= room) {
				t.Errorf("%d lanes are there, %d more: %v", taken, lanes, got)
			}
			mapped := Transport{Memory: tr.Memory, Sink: SinkMapped}
			if got := mapped.Room(lanes); got != (2*lanes <= room) {
				t.Errorf("%d lanes are there, %d more with the sink mapped: %v", taken, lanes, got)
			}
		}
	}
	if !new(Transport).Room(8) {
		t.Error("no room without a budget")
	}
}
