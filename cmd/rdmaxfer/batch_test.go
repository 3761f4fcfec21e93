package main

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// policyOf is the scheduling policy of all the threads of a process.
func policyOf(t *testing.T, pid int) uint32 {
	t.Helper()
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil || len(threads) < 2 {
		t.Fatalf("%d threads: %v", len(threads), err)
	}
	policies := make(map[uint32]int)
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		if attr, err := unix.SchedGetAttr(id, 0); err == nil { // else it has ended
			policies[attr.Policy]++
		}
	}
	for policy := range policies {
		if len(policies) == 1 {
			return policy
		}
	}
	t.Fatalf("threads by policy: %v", policies)
	return 0
}

// TestBatchWhileTransfersRun: and no longer than the last, unless it was batch work before.
func TestBatchWhileTransfersRun(t *testing.T) {
	for _, before := range []uint32{unix.SCHED_NORMAL, unix.SCHED_BATCH} {
		if before == unix.SCHED_BATCH {
			reschedule(unix.SCHED_NORMAL, before)
		}
		var b batch
		for _, step := range []struct {
			do   func()
			want uint32
		}{{b.begin, unix.SCHED_BATCH}, {b.begin, unix.SCHED_BATCH}, {b.end, unix.SCHED_BATCH}, {b.end, before}} {
			step.do()
			if got := policyOf(t, os.Getpid()); got != step.want {
				t.Errorf("policy %d before, %d with %d transfers, want %d", before, got, b.n, step.want)
			}
		}
	}
	reschedule(unix.SCHED_BATCH, unix.SCHED_NORMAL)
}

// TestBatch: both ends are batch work, with all their threads, old and new; who asked for
// less has that.
func TestBatch(t *testing.T) {
	for name, c := range map[string]struct {
		wrap []string
		want uint32
	}{
		"as it comes":    {nil, unix.SCHED_BATCH},
		"what is idling": {[]string{"chrt", "-i", "0"}, unix.SCHED_IDLE},
	} {
		t.Run(name, func(t *testing.T) {
			tt := newTransfer(t)
			r := tt.recvWith(c.wrap)
			s := tt.sendWith(c.wrap, "--transport", "tcp", "--limit", "8MB/s", tt.file("src", 8*mib))
			s.await("plan")
			for _, p := range []*proc{s, r} {
				if got := policyOf(t, p.cmd.Process.Pid); got != c.want {
					t.Errorf("%s: threads have policy %d, want %d", p.name, got, c.want)
				}
			}
			s.want(transfer.CodeOK)
			r.want(transfer.CodeOK)
		})
	}
}
