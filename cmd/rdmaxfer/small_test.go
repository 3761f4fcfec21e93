//go:build !rxe

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// fileCalls are the system calls that look names up, or do something to a file.
const fileCalls = "trace=%file,close,fstat,fstatfs,fcntl,ftruncate,fallocate,fchmod,fchown,flock,pwrite64,fsync,fdatasync,syncfs"

// TestCallsOfSmallFiles counts what a receiver asks the kernel for a small file: one call
// each to make it, write it, set its time, look which it is, name it and close it, one that
// Go makes, and what of all else falls to a file of 900. strace slows it down
// so much that times say nothing; the count is the same.
func TestCallsOfSmallFiles(t *testing.T) {
	const files, most = 900, 9
	for _, c := range []struct {
		name string
		args []string
		made bool // the destination's directory is there
	}{{"durable", nil, false}, {"not durable", []string{"--no-sync"}, false}, {"into a directory that is there", nil, true}} {
		t.Run(c.name, func(t *testing.T) {
			tt := newTransfer(t)
			root := filepath.Join(tt.dir, "tree")
			if err := os.Mkdir(root, 0o755); err != nil {
				t.Fatal(err)
			}
			for i := range files {
				tt.file(fmt.Sprintf("tree/%04d", i), 100)
			}
			if c.made {
				if err := os.Mkdir(filepath.Join(tt.into, "tree"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			counts := filepath.Join(tt.dir, "counts")
			r := tt.recvWith([]string{"strace", "-f", "-c", "-e", fileCalls, "-o", counts}, c.args...)
			tt.send("--transport", "tcp", root).want(transfer.CodeOK)
			r.want(transfer.CodeOK)
			b, err := os.ReadFile(counts)
			if err != nil {
				t.Fatal(err)
			}
			n := callsIn(string(b))
			if n < 5*files {
				t.Errorf("%d calls for %d files: were they counted?\n%s", n, files, b)
			}
			if n > most*files {
				t.Errorf("%.1f calls a file, want no more than %d:\n%s", float64(n)/files, most, b)
			}
		})
	}
}

// callsIn reads the sum of what strace -c printed.
func callsIn(table string) (n int) {
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) >= 5 && f[len(f)-1] == "total" {
			n, _ = strconv.Atoi(f[3])
		}
	}
	return n
}
