//go:build !rxe

package main

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// TestStorageIsReported: what was direct, or why nothing was, and what was read back.
func TestStorageIsReported(t *testing.T) {
	for i, args := range [][]string{{}, {"--method", "auto"}, {"--method", "copy", "--compress", "zstd"}, {"--encrypt"}, {"--verify", "crc32c", "--lanes", "2"}} {
		tt := newTransfer(t)
		if i > 0 { // the first lies in memory
			tt.dir, tt.into = t.TempDir(), t.TempDir()
		}
		const size = 20*mib + 4096
		src := tt.file("src", size)
		small := tt.file("small", 5000)
		r := tt.recv("--direct", "always", "--keep-cache", "--readback")
		s := tt.send(append(args, "--transport", "tcp", "--direct", "always", "--keep-cache", src, small)...)
		for _, p := range []*proc{s, r} {
			sum := p.want(transfer.CodeOK)
			direct, cached := sum["direct_bytes"].(float64), sum["cached_bytes"].(float64)
			switch refused := sum["direct_refused"].(string); {
			case sum["direct"] != "always" || direct+cached < size+5000: // an extent may be read for two lanes
				t.Errorf("%s: %v", p.name, sum)
			case refused == "" && direct < size, refused != "" && direct >= size:
				t.Errorf("%s: %v bytes were direct; refused: %q", p.name, direct, refused)
			}
		}
		if sum := r.last; sum["readback_bytes"] != float64(size+5000) || sum["readback_seconds"].(float64) <= 0 {
			t.Errorf("read back: %v bytes in %v s", sum["readback_bytes"], sum["readback_seconds"])
		}
		if d := s.last["detail"].(string); s.last["direct_refused"] == "" && !strings.Contains(d, "method=copy") {
			t.Errorf("the sender says %q", d)
		}
		for _, p := range []string{src, small} {
			if b3sum(t, filepath.Join(tt.into, filepath.Base(p))) != b3sum(t, p) {
				t.Errorf("%s is not what was sent", p)
			}
		}
	}
}

// TestDirectResumes: what was written past the page cache is in the ledger when it is
// durable, and is not sent again.
func TestDirectResumes(t *testing.T) {
	tt := newTransfer(t)
	tt.dir, tt.into = t.TempDir(), t.TempDir()
	src := tt.file("src", 100*mib+5)
	storage := []string{"--direct", "always", "--keep-cache", "--readback"}
	r := tt.recv(storage...)
	s := tt.send("--transport", "tcp", "--limit", "40M", src)
	tt.ledger()
	r.signal(syscall.SIGKILL)
	r.wait()
	s.wait()
	tt.partsLeft()

	r = tt.recv(storage...)
	sum := tt.send("--transport", "tcp", "--direct", "auto", src).want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	if resumed := sum["resumed_bytes"].(float64); resumed < 16*mib || resumed > 100*mib {
		t.Errorf("%v bytes had landed before", resumed)
	}
	if b3sum(t, filepath.Join(tt.into, "src")) != b3sum(t, src) {
		t.Error("it is not what was sent")
	}
}

// TestStorageFlagsThatMakeNoSense are usage errors that name the mend.
func TestStorageFlagsThatMakeNoSense(t *testing.T) {
	tt := newTransfer(t)
	src := tt.file("src", 10)
	recv := func(args ...string) *proc {
		return twoHosts[0].start(t, append([]string{"recv", "--listen", "127.0.0.1:0", "--key-file", tt.key}, args...)...)
	}
	recv("--discard", "--readback").want(transfer.CodeUsage, "--readback", "--discard")
	recv("--stdout", "--direct", "always").want(transfer.CodeUsage, "--direct", "--stdout")
	recv("--discard", "--overwrite", "always").want(transfer.CodeUsage, "--overwrite", "--discard")
	recv("--stdout", "--no-sync").want(transfer.CodeUsage, "--no-sync", "--stdout")
	recv("--into", tt.into, "--direct", "auto").want(transfer.CodeUsage, "--direct auto", "always")
	recv("--into", tt.into, "--direct", "always", "--landing", "mmap").want(transfer.CodeUsage, "--landing", "copy")
	tt.addr = "127.0.0.1:1"
	tt.send("--direct", "yes", src).want(transfer.CodeUsage, "--direct yes", "never")
	tt.send("--direct", "always", "--method", "sendfile", src).want(transfer.CodeUsage, "sendfile", "copy")

	tt.recv("--readback")
	tt.send("--transport", "tcp", "--verify", "none", src).want(transfer.CodeUsage, "--readback", "--verify none")
	tt.receiver.want(transfer.CodeUsage, "--verify none")
	if got := tt.landed(); len(got) > 0 {
		t.Errorf("landed: %v", got)
	}
}

// TestDigestsAreReported: what they took, at both ends.
func TestDigestsAreReported(t *testing.T) {
	for _, verify := range []string{"blake3", "xxh3", "none"} {
		tt := newTransfer(t)
		r := tt.recv()
		s := tt.send("--transport", "tcp", "--verify", verify, tt.file("large", 3*mib), tt.file("small", 5000))
		for _, p := range []*proc{s, r} {
			if took := p.want(transfer.CodeOK)["digest_seconds"].(float64); took > 0 != (verify != "none") {
				t.Errorf("%s, %s: %g s", p.name, verify, took)
			}
		}
	}
}

func TestSummarySaysWhatHashingTook(t *testing.T) {
	for took, want := range map[time.Duration]string{0: "blake3 verified", 1230 * time.Millisecond: "blake3 verified (1.2 s of hashing)"} {
		line := summaryLine("send", &transfer.Result{Files: 1, Verify: transfer.VerifyBLAKE3, Hashing: took}, 1, 1)
		if !strings.HasSuffix(line, " · "+want) {
			t.Errorf("%s: %s", took, line)
		}
	}
}
