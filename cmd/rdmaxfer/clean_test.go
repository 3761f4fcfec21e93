//go:build !rxe

package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// TestClean removes what a killed receiver has left, and nothing of one that runs.
func TestClean(t *testing.T) {
	tt := newTransfer(t)
	src := tt.sparse("src", 1<<30) // it will not come to the end
	r := tt.recv()
	s := tt.send("--transport", "tcp", "--limit", "40M", src)
	tt.ledger()
	cleaned := func(args ...string) string {
		p := twoHosts[0].start(t, append([]string{"recv", "--clean", "--into", tt.into}, args...)...)
		p.want(transfer.CodeOK)
		return p.plain.String()
	}
	if out := cleaned(); !strings.Contains(out, "in use") || !strings.Contains(out, "removed what 0 ") {
		t.Errorf("while it runs: %s", out)
	}
	r.signal(syscall.SIGKILL)
	s.wait()
	r.wait()
	tt.partsLeft()
	if out := cleaned("--dry-run"); !strings.Contains(out, "would remove what 1 ") {
		t.Errorf("%s", out)
	}
	tt.partsLeft()
	if out := cleaned(); !strings.Contains(out, "removed what 1 ") {
		t.Errorf("%s", out)
	}
	tt.nothingLeft()
}
