//go:build rxe

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// TestPowerCutKeepsReceipts: what a receiver has a receipt for is there, whole, after the
// power of its disk was cut in the middle of many small files, and the rest comes with the
// same command.
func TestPowerCutKeepsReceipts(t *testing.T) {
	tt := newTransfer(t)
	run(t, "../../testbed/faults", "disk", tt.into, "128M")
	t.Cleanup(func() { run(t, "../../testbed/faults", "disk-off", tt.into) })
	root := filepath.Join(tt.dir, "tree")
	const files = 1800 // packs of a MiB: the first is 700 of them
	for i := range files {
		if err := os.MkdirAll(filepath.Join(root, fmt.Sprint(i/100)), 0o755); err != nil {
			t.Fatal(err)
		}
		tt.file(fmt.Sprintf("tree/%d/%d", i/100, i), 1+i*7%3000)
	}
	landed := func(path string) {
		t.Helper()
		want, err := os.ReadFile(filepath.Join(tt.dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(tt.into, path)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes of %d, %v", path, len(got), len(want), err)
		}
	}
	r := tt.recv()
	s := tt.send("--limit", "100K", root)
	var receipts []string
	for len(receipts) < 200 {
		if e := r.await("file"); e["ok"] == true {
			receipts = append(receipts, e["path"].(string))
		}
	}
	// A busy machine may take longer for the cut than the rest of the files does.
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	run(t, "../../testbed/faults", "power-cut", tt.into)
	_ = r.cmd.Process.Kill() // if it goes on: all that comes now fails
	for e := range r.events {
		if e["event"] == "file" && e["ok"] == true {
			receipts = append(receipts, e["path"].(string))
		}
	}
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.wait()
	if len(receipts) >= files {
		t.Errorf("%d of %d files had landed: too late for a test", len(receipts), files)
	}
	for _, path := range receipts {
		landed(path)
	}

	r = tt.recv()
	tt.send(root).want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	for i := range files {
		landed(fmt.Sprintf("tree/%d/%d", i/100, i))
	}
}
