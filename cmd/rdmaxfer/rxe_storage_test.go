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
		src, holes := tt.file("src", 12*mib+4096), tt.sparse("holes", 3*mib)
		r := tt.recv(append(direct, "--sink", "mapped", "--readback")...)
		s := tt.sendOp(op, append(direct, src, holes)...)
		sent, received := s.want(transfer.CodeOK), r.want(transfer.CodeOK)
		want := map[string]string{"send": "sink=ring", "write": "sink=mapped", "read": "sink=mapped"}[op]
		if d := received["detail"].(string); !strings.HasSuffix(d, want) {
			t.Errorf("the receiver says %q", d)
		}
		if n := received["readback_bytes"]; n != float64(15*mib+4096) {
			t.Errorf("%v bytes were read back", n)
		}
		if op == "send" {
			if d := sent["detail"].(string); !strings.HasSuffix(d, "source=pool") {
				t.Errorf("the sender says %q", d)
			}
			for _, sum := range []map[string]any{sent, received} {
				if n, _ := sum["direct_bytes"].(float64); n < 12*mib+4096 || sum["direct_refused"] != "" {
					t.Errorf("not all was direct: %v", sum)
				}
			}
		}
		for _, p := range []string{src, holes} {
			if b3sum(t, filepath.Join(tt.into, filepath.Base(p))) != b3sum(t, p) {
				t.Errorf("%s is not what was sent", p)
			}
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
