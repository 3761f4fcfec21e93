package rdma

import (
	"fmt"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// DefaultMemory is how much is registered at the most unless told otherwise, bytes:
// half of it is for windows, which is room for one lane's three at their largest (192 MiB).
const DefaultMemory = 512 << 20

// LeastMemory is what one lane wants, bytes.
const LeastMemory = transfer.DefaultDepth * transfer.DefaultExtentSize

// Budget is how much memory a process may have registered with its devices: rings,
// pools and windows, of all its sessions. Its methods may be called from several
// goroutines.
type Budget struct {
	total int64  // bytes
	why   string // no more
	mend  string // of that

	mu      sync.Mutex
	left    int64
	windows int64 // taken for windows
}

// NewBudget makes one of so many bytes, or of fewer where the system lets this process
// have no more: half of what its control groups allow (cgroups(7)), and 15/16
// of RLIMIT_MEMLOCK (getrlimit(2)) where that binds it. The rest of that is for what is
// pinned beside: headers, and what devices have of queues.
func NewBudget(bytes int64) *Budget {
	const raise = "raise that"
	b := &Budget{total: bytes, why: "--memory", mend: raise}
	lower := func(n int64, why, mend string) {
		if n < b.total {
			b.total, b.why, b.mend = n, why, mend
		}
	}
	lower(groupMemory("/sys/fs/cgroup", "/proc/self/cgroup")/2, "half of the control group's memory", raise)
	most, limit := lockedMemory("/proc/self")
	lower(most, fmt.Sprintf("a limit of %d KiB of locked memory", limit>>10),
		"raise it (ulimit -l unlimited, or LimitMEMLOCK= in the service, or memlock in /etc/security/limits.conf)")
	b.left = b.total
	return b
}

// Total is how much that is, bytes.
func (b *Budget) Total() int64 { return b.total }

// Enough is an error when there will never be a lane, not the shallowest.
func (b *Budget) Enough() error {
	const least = leastDepth * transfer.DefaultExtentSize
	if b == nil || b.total >= least {
		return nil
	}
	return b.spent(least)
}

// lockedMemory is what NewBudget takes of RLIMIT_MEMLOCK, and that. proc is as in locksMemory.
func lockedMemory(proc string) (most, limit int64) {
	var lim unix.Rlimit
	if locksMemory(proc) || unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim) != nil || lim.Cur >= math.MaxInt64 {
		return math.MaxInt64, math.MaxInt64
	}
	limit = int64(lim.Cur)
	return limit - limit/16, limit
}

// locksMemory reports whether a process, whose directory in /proc that is, has CAP_IPC_LOCK
// in the initial user namespace: RLIMIT_MEMLOCK does not bind it (ib_umem_get in the kernel's
// drivers/infiniband/core/umem.c). Root of a container's own namespace is bound by it.
func locksMemory(proc string) bool {
	status, err := os.ReadFile(path.Join(proc, "status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if set, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			return err == nil && caps&(1<<unix.CAP_IPC_LOCK) != 0 && initialUsers(proc)
		}
	}
	return false
}

// initialUsers reports whether a process is in the initial user namespace, which has every
// user under its own number (user_namespaces(7)).
func initialUsers(proc string) bool {
	users, err := os.ReadFile(path.Join(proc, "uid_map"))
	return err == nil && slices.Equal(strings.Fields(string(users)), []string{"0", "0", "4294967295"})
}

// groupMemory is the least that this process's control group, or one of those around it, lets
// it have, bytes: memory.max of version 2, memory.limit_in_bytes of version 1 (where nothing is
// limited that is more than any host has).
func groupMemory(root, self string) int64 {
	least := int64(math.MaxInt64)
	list, err := os.ReadFile(self)
	if err != nil {
		return least
	}
	for line := range strings.Lines(string(list)) {
		// HIERARCHY:CONTROLLERS:GROUP, without controllers of version 2
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 {
			continue
		}
		dir, name := root, "memory.max"
		if f[1] != "" {
			dir, name = path.Join(root, "memory"), "memory.limit_in_bytes"
			if !slices.Contains(strings.Split(f[1], ","), "memory") {
				continue
			}
		}
		for group, more := path.Join("/", f[2]), true; more; group = path.Dir(group) {
			if b, err := os.ReadFile(path.Join(dir, group, name)); err == nil {
				if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil { // else it is "max"
					least = min(least, n)
				}
			}
			more = group != "/"
		}
	}
	return least
}

// take takes n units of so many bytes, or half of that as often as it must, but not
// fewer than least; 0 when those are not left either. A nil Budget has everything.
func (b *Budget) take(n, least, unit int) int {
	if b == nil {
		return n
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return takeFrom(&b.left, n, least, unit)
}

// Room reports whether so many lanes more can be tried: what is tried leaves half of the budget
// to the first lanes of other sessions. An extent of the sink mapped may be pinned in its file,
// too.
func (t *Transport) Room(lanes int) bool {
	b := t.Memory
	if b == nil {
		return true
	}
	if t.Sink == SinkMapped {
		lanes *= 2
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left-int64(lanes)*LeastMemory >= b.total/2
}

// takeWindows takes room for a lane's windows, when there are to be so many lanes, and
// gives the size of one; 0 for none. Half of the budget is not for windows: without them
// a lane is slower, without its pool there is none.
func (b *Budget) takeWindows(lanes int) int {
	if b == nil {
		return windowSize
	}
	n := windowSize
	for n > windowLeast && int64(n)*maxWindows*int64(lanes) > b.total/2 {
		n /= 2
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	room := min(b.left, b.total/2-b.windows)
	n = takeFrom(&room, n, windowLeast, maxWindows)
	b.left -= int64(n) * maxWindows
	b.windows += int64(n) * maxWindows
	return n
}

// takeFrom is take of what is left.
func takeFrom(left *int64, n, least, unit int) int {
	for ; n >= least; n /= 2 {
		if bytes := int64(n) * int64(unit); bytes <= *left {
			*left -= bytes
			return n
		}
	}
	return 0
}

// giveWindows gives back what takeWindows gave.
func (b *Budget) giveWindows(size int) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += int64(size) * maxWindows
	b.windows -= int64(size) * maxWindows
}

// give gives bytes back.
func (b *Budget) give(bytes int) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += int64(bytes)
}

// spent is the error of a lane that there is nothing left for.
func (b *Budget) spent(want int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Errorf("a lane wants %d KiB of registered memory, and %d KiB are left of the %d KiB that %s allows: %s, or use fewer --lanes",
		want>>10, b.left>>10, b.total>>10, b.why, b.mend)
}
