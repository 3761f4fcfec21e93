//go:build rxe

package main

import (
	"os"
	"path/filepath"
	"regexp"
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
		s := tt.sendOp(op, append(direct, "--lanes", "1", "--verify", "xxh3", src, holes)...)
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

// TestBadDisks: what a disk does not take, or makes of a file, is found before that has its
// name, also when its pages have gone to the disk, and been dropped, long before the sync.
func TestBadDisks(t *testing.T) {
	tt := newTransfer(t)
	src := tt.file("src", 36*mib)
	run(t, "../../testbed/faults", "disk", tt.into, "64M")
	t.Cleanup(func() { run(t, "../../testbed/faults", "disk-off", tt.into) })
	fails := func(code transfer.Code, words, option string) {
		t.Helper()
		r := tt.recv(option)
		tt.send("--transport", "tcp", "--verify", "xxh3", src).want(code, words)
		r.want(code, words)
		if _, err := os.Stat(filepath.Join(tt.into, "src")); err == nil {
			t.Errorf("with %s it has its name", option)
		}
	}
	for _, blocks := range tt.roomFor(40 * mib) {
		run(t, "../../testbed/faults", "write-errors", tt.into, blocks[0], blocks[1])
	}
	fails(transfer.CodeLocalIO, "input/output error", "--keep-cache")
	run(t, "../../testbed/faults", "write-errors-off", tt.into)
	run(t, "../../testbed/faults", "corrupt-writes", tt.into)
	fails(transfer.CodeIntegrity, "is not what landed", "--readback")
}

// roomFor gives the blocks of the destination, firsts and counts, that a file of so many
// bytes takes; one of much the same size must take some of them.
func (tt *transferTest) roomFor(size int) (list [][2]string) {
	tt.t.Helper()
	path := filepath.Join(tt.into, "room")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		tt.t.Fatal(err)
	}
	run(tt.t, "sync", path)
	for _, m := range regexp.MustCompile(`(?m)^ *\d+: .*: +(\d+)\.\. *\d+: +(\d+):`).FindAllStringSubmatch(run(tt.t, "filefrag", "-v", path), -1) {
		list = append(list, [2]string{m[1], m[2]})
	}
	if len(list) == 0 {
		tt.t.Fatal("filefrag tells no blocks")
	}
	if err := os.Remove(path); err != nil {
		tt.t.Fatal(err)
	}
	run(tt.t, "sync", "-f", tt.into)
	return list
}
