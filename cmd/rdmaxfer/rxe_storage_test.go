//go:build rxe

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// TestStorageOverRDMA lands in the file's own pages, of memory (write) and of a disk
// (read); and past the page cache, from the pool to the ring, with send, where pages can't
// be told beforehand.
func TestStorageOverRDMA(t *testing.T) {
	eachOp(t, func(t *testing.T, op string) {
		tt := newTransfer(t)
		if op != "write" {
			tt.ext4(t)
		}
		var direct []string
		if op == "send" {
			tt.dir, tt.into = tt.into, filepath.Join(tt.into, "into")
			if err := os.Mkdir(tt.into, 0o755); err != nil {
				t.Fatal(err)
			}
			direct = []string{"--direct", "always", "--keep-cache"}
		}
		src, holes := tt.file("src", 6*mib+4096), tt.sparse("holes", 2*mib)
		r := tt.recv(append(direct, "--sink", "mapped", "--readback")...)
		s := tt.sendOp(op, append(direct, "--verify", "xxh3", src, holes)...)
		sent, received := s.want(transfer.CodeOK), r.want(transfer.CodeOK)
		want := map[string]string{"send": "sink=ring", "write": "sink=mapped", "read": "sink=mapped"}[op]
		if d := received["detail"].(string); !strings.HasSuffix(d, want) {
			t.Errorf("the receiver says %q", d)
		}
		if n := received["readback_bytes"]; n != float64(8*mib+4096) {
			t.Errorf("%v bytes were read back", n)
		}
		if op == "send" {
			if d := sent["detail"].(string); !strings.HasSuffix(d, "source=pool") {
				t.Errorf("the sender says %q", d)
			}
			for _, sum := range []map[string]any{sent, received} {
				if n, _ := sum["direct_bytes"].(float64); n < 6*mib+4096 || sum["direct_refused"] != "" {
					t.Errorf("not all was direct: %v", sum)
				}
			}
		}
		for _, p := range []string{src, holes} {
			run(t, "cmp", p, filepath.Join(tt.into, filepath.Base(p)))
		}
	})
}

// ext4 has what comes land on a small disk.
func (tt *transferTest) ext4(t *testing.T) {
	t.Helper()
	dir := tt.into
	run(t, "../../testbed/faults", "smallfs", dir, "64M", "ext4")
	t.Cleanup(func() { run(t, "../../testbed/faults", "smallfs-off", dir) })
}

// TestReadbackOfABadDisk: what its disk makes of a file is found before it has its name.
func TestReadbackOfABadDisk(t *testing.T) {
	tt := newTransfer(t)
	src := tt.file("src", 3*mib+7)
	run(t, "../../testbed/faults", "disk", tt.into, "64M")
	t.Cleanup(func() { run(t, "../../testbed/faults", "disk-off", tt.into) })
	r := tt.recv("--readback")
	run(t, "../../testbed/faults", "corrupt-writes", tt.into)
	tt.send("--transport", "tcp", src).want(transfer.CodeIntegrity, "read back", "is not what landed")
	r.want(transfer.CodeIntegrity, "is not what landed")
	if _, err := os.Stat(filepath.Join(tt.into, "src")); err == nil {
		t.Error("it has its name")
	}
}
