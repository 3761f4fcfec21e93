//go:build rxe

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

func eachOp(t *testing.T, f func(t *testing.T, op string)) {
	for _, op := range []string{"send", "write", "read"} {
		t.Run(op, func(t *testing.T) { f(t, op) })
	}
}

// sendOp starts a sender that insists on RDMA and on an op.
func (tt *transferTest) sendOp(op string, args ...string) *proc {
	tt.t.Helper()
	return tt.send(append([]string{"--transport", "rdma", "--op", op}, args...)...)
}

// TestOpsAreIdentical moves files of every awkward size, and one that takes several
// windows of the source.
func TestOpsAreIdentical(t *testing.T) {
	eachOp(t, func(t *testing.T, op string) {
		tt := newTransfer(t)
		var paths []string
		for _, n := range []int{0, 1, 4095, mib - 1, mib, 16*mib + 1, 97*mib + 3} {
			paths = append(paths, tt.file(fmt.Sprint("src-", n), n))
		}
		r := tt.recv()
		s := tt.sendOp(op, append([]string{"--verify", "none", "--source", "window"}, paths...)...)
		for _, p := range []*proc{s, r} {
			sum := p.want(transfer.CodeOK)
			if d, ok := sum["detail"].(string); !ok || sum["transport"] != "rdma" || !strings.Contains(d, "op="+op) {
				t.Errorf("%s: summary %v", p.name, sum)
			}
		}
		for _, p := range paths {
			if got, want := b3sum(t, filepath.Join(tt.into, filepath.Base(p))), b3sum(t, p); got != want {
				t.Errorf("%s: %s, want %s", p, got, want)
			}
		}
	})
}

// TestOpsVerify: the digests of what was sent from a window are taken of the file.
func TestOpsVerify(t *testing.T) {
	eachOp(t, func(t *testing.T, op string) {
		tt := newTransfer(t)
		src := tt.file("src", 24*mib+7)
		r := tt.recv()
		s := tt.sendOp(op, "--source", "window", src)
		if got, want := s.await("file")["blake3"], b3sum(t, src); got != want {
			t.Errorf("receipt %v, want %s", got, want)
		}
		s.want(transfer.CodeOK)
		r.want(transfer.CodeOK)
	})
}

// TestPoolIsTheSource of what is verified, whose bytes are read anyway, and of who asks for it.
func TestPoolIsTheSource(t *testing.T) {
	for _, args := range [][]string{{"--verify", "xxh3"}, {"--verify", "none", "--source", "pool"}} {
		tt := newTransfer(t)
		src := tt.file("src", 24*mib+7)
		r := tt.recv()
		s := tt.sendOp("write", append(args, src)...)
		if d := s.want(transfer.CodeOK)["detail"].(string); !strings.HasSuffix(d, "source=pool") {
			t.Errorf("%v: the sender says %q", args, d)
		}
		r.want(transfer.CodeOK)
		run(t, "cmp", src, filepath.Join(tt.into, "src"))
	}
}

// TestOpIsWhatTheSenderAsksFor: what it does not know is a matter of usage.
func TestOpIsWhatTheSenderAsksFor(t *testing.T) {
	tt := newTransfer(t)
	tt.addr = twoHosts[0].addr
	tt.send("--op", "push", tt.file("src", 1)).want(transfer.CodeUsage, "read, write, send")
	tt.send("--source", "disk", tt.file("src", 1)).want(transfer.CodeUsage, "window, pool")
}

// TestOpsPeerKilled kills either side in the middle of every op.
func TestOpsPeerKilled(t *testing.T) {
	eachOp(t, func(t *testing.T, op string) {
		for _, victim := range []string{"send", "recv"} {
			t.Run(victim, func(t *testing.T) {
				tt := newTransfer(t)
				src := tt.file("src", 96*mib)
				r := tt.recv()
				s := tt.sendOp(op, "--verify", "none", src)
				s.await("plan")
				r.await("plan")
				tt.awaitBytes(4 * mib)
				dead, alive := s, r
				if victim == "recv" {
					dead, alive = r, s
				}
				dead.signal(syscall.SIGKILL)
				alive.want(transfer.CodeConnect, "peer")
				tt.partsLeft()
			})
		}
	})
}

// awaitBytes waits until so much of a file has landed: its part takes room.
func (tt *transferTest) awaitBytes(n int64) {
	tt.t.Helper()
	for end := time.Now().Add(patience); ; {
		parts, err := filepath.Glob(filepath.Join(tt.into, ".rdmaxfer-*", "*.part"))
		if err != nil {
			tt.t.Fatal(err)
		}
		for _, name := range parts {
			var st syscall.Stat_t
			if err := syscall.Stat(name, &st); err == nil && st.Blocks*512 >= n {
				return
			}
		}
		if time.Now().After(end) {
			tt.t.Fatal("nothing lands")
		}
	}
}

// TestOpsPathCut cuts RDMA in the middle of every op: rdma fails and leaves its parts.
func TestOpsPathCut(t *testing.T) {
	eachOp(t, func(t *testing.T, op string) {
		tt := newTransfer(t)
		src := tt.file("src", 96*mib)
		r := tt.recv()
		s := tt.sendOp(op, "--verify", "none", "--limit", "8MB/s", src) // it takes longer than a fault takes to come
		tt.awaitBytes(32 * mib)
		fault(t, "cut-rdma", "heal")
		s.want(transfer.CodeNoRDMA, "lost")
		r.want(transfer.CodeNoRDMA, "lost")
		tt.partsLeft()
	})
}

// TestOpsSourceChanges writes to the source while it is sent from windows.
func TestOpsSourceChanges(t *testing.T) {
	eachOp(t, func(t *testing.T, op string) {
		for name, change := range map[string]func(string) error{
			"written":   func(path string) error { return os.WriteFile(path, make([]byte, 96*mib), 0o600) },
			"truncated": func(path string) error { return os.Truncate(path, 48*mib) },
		} {
			t.Run(name, func(t *testing.T) {
				tt := newTransfer(t)
				src := tt.file("src", 96*mib)
				r := tt.recv()
				s := tt.sendOp(op, "--verify", "none", "--source", "window", src)
				tt.awaitBytes(24 * mib)
				if err := change(src); err != nil {
					t.Fatal(err)
				}
				s.want(transfer.CodeLocalIO, "at rest")
				r.want(transfer.CodeLocalIO, "at rest")
				tt.nothingLeft()
			})
		}
	})
}

// TestCompareOverTheDevice measures every op and method between the two hosts.
func TestCompareOverTheDevice(t *testing.T) {
	tt := newTransfer(t)
	r := tt.recv("--discard", "--allow-peers")
	tt.compare("--sizes", "64,64K", "--rounds", "1", "--duration", "100ms", "--peers").want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	report := tt.report()
	ops := make(map[string]int)
	for _, c := range report.Cells {
		ops[c.Transport+" "+c.Method]++
		if c.Rate.Median <= 0 || c.Trip.Median <= 0 || c.Transport == "rdma" && !strings.Contains(c.Here, "rxe_b") {
			t.Errorf("%+v", c)
		}
	}
	for _, m := range []string{"rdma read", "rdma write", "rdma send", "tcp copy", "tcp sendfile", "tcp mmap", "tcp splice"} {
		if ops[m] != 2 {
			t.Errorf("%d sizes of %s", ops[m], m)
		}
	}
	peers := make(map[string]int)
	for _, c := range report.Peers {
		peers[c.Program+" beside "+c.Beside]++
		if c.Rate == nil || c.Rate.Median <= 0 || c.RateRatio == nil || (c.Trip == nil) != (c.Program == "iperf3") || c.Version == "" {
			t.Errorf("%+v", c)
		}
	}
	for _, p := range []string{"ib_write beside rdma write", "ib_read beside rdma read", "ib_send beside rdma send", "qperf rc beside rdma send"} {
		if peers[p] != 2 {
			t.Errorf("%d sizes of %s", peers[p], p)
		}
	}
	if !report.Complete || !report.Soft || len(report.Skipped) != 0 || len(report.Peers) != 12 {
		t.Errorf("%+v", report)
	}
}
