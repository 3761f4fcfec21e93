//go:build !rxe

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// recvInto starts a receiver that writes to a reader, a shell command, and waits until it
// listens. Its own exit status, not the reader's, is what code gives when both have ended.
func (tt *transferTest) recvInto(reader string) (r *proc, code func() string) {
	tt.t.Helper()
	status := filepath.Join(tt.dir, "status")
	r = twoHosts[0].startWith(tt.t, []string{"sh", "-c", `{ "$@"; echo $? >"$0"; } | ` + reader, status},
		"recv", "--stdout", "--listen", net.JoinHostPort(twoHosts[0].addr, "0"), "--key-file", tt.key)
	tt.addr = r.listensAt()
	return r, func() string {
		r.wait()
		b, err := os.ReadFile(status)
		if err != nil {
			tt.t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
}

// listensAt waits until a receiver says so on standard error.
func (p *proc) listensAt() string {
	p.t.Helper()
	p.awaitText("listening on ")
	p.mu.Lock()
	defer p.mu.Unlock()
	_, after, _ := strings.Cut(p.stderr.String(), "listening on ")
	addr, _, _ := strings.Cut(after, ",")
	return addr
}

// TestStdout pipes a tree from one tar to another.
func TestStdout(t *testing.T) {
	tt := newTransfer(t)
	root := tt.tree()
	tt.file("tree/large", 70*mib+5)
	r, code := tt.recvInto("tar x -C '" + tt.into + "'")
	tt.sendWith([]string{"sh", "-c", `tar c -C "$0" tree | "$@"`, tt.dir}, "--transport", "tcp", "-").want(transfer.CodeOK)
	r.want(transfer.CodeOK, "received 1 file", "stdin\n")
	if c := code(); c != "0" {
		t.Errorf("exit %s", c)
	}
	wantSame(t, root, filepath.Join(tt.into, "tree"), "--hard-links")
}

// TestStdoutOfAReaderThatEnds is an error of both ends, and no signal.
func TestStdoutOfAReaderThatEnds(t *testing.T) {
	tt := newTransfer(t)
	src := tt.file("src", 70*mib)
	r, code := tt.recvInto("head -c 10 >/dev/null")
	tt.send("--transport", "tcp", src).want(transfer.CodeLocalIO, "its reader ended")
	if c := code(); c != "7" {
		t.Errorf("exit %s", c)
	}
	r.want(transfer.CodeOK, "its reader ended") // head's own
}

// TestAs lands a file under another name, also when it was interrupted.
func TestAs(t *testing.T) {
	tt := newTransfer(t)
	src := tt.file("src", 100*mib+5)
	name := filepath.Join(tt.into, "another name")
	r := tt.recv("--as", name)
	s := tt.send("--transport", "tcp", "--limit", "40M", src)
	tt.ledger()
	r.signal(syscall.SIGKILL)
	r.wait()
	s.wait()
	tt.partsLeft()

	r = tt.recv("--as", name)
	sum := tt.send("--transport", "tcp", src).want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	if resumed := sum["resumed_bytes"].(float64); resumed < 16*mib || resumed > 100*mib {
		t.Errorf("%v bytes had landed before", resumed)
	}
	if got := tt.landed(); len(got) != 1 || b3sum(t, name) != b3sum(t, src) {
		t.Errorf("landed: %v, and not what was sent", got)
	}
	tt.recv("--as", name+" again")
	tt.send("--transport", "tcp", tt.dir).want(transfer.CodeUsage, "takes one file")
	tt.receiver.want(transfer.CodeUsage, "takes one file")
	if got := tt.landed(); len(got) != 1 {
		t.Errorf("landed: %v", got)
	}
}
