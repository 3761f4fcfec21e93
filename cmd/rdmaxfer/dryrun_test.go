//go:build !rxe

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// TestDryRun ends as the transfer would, and the one receiver waits on for that.
func TestDryRun(t *testing.T) {
	tt := newTransfer(t)
	a, b := tt.file("a", 5), tt.file("b", 6)
	r := tt.recv()
	s := tt.send("--dry-run", a, b)
	for _, want := range []float64{5, 6} {
		if e := s.await("foreseen"); e["action"] != "send" || e["bytes"] != want || e["missing_bytes"] != want {
			t.Errorf("%v", e)
		}
	}
	if sum := s.want(transfer.CodeOK); sum["dry_run"] != true || sum["files"] != float64(2) {
		t.Errorf("%v", sum)
	}
	tt.nothingLeft()
	if err := os.WriteFile(filepath.Join(tt.into, "a"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = tt.send("--dry-run", a)
	if e := s.await("foreseen"); e["action"] != "fail" || e["code"] != float64(transfer.CodeExists) {
		t.Errorf("%v", e)
	}
	s.want(transfer.CodeExists, "exists")
	tt.send("--transport", "tcp", b).want(transfer.CodeOK)
	r.want(transfer.CodeOK)
}
