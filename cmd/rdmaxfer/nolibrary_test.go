//go:build !rxe

package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// TestHostWithoutTheLibrary runs the program where there is no libibverbs: in a
// root directory that holds the binary, what it is linked with, and nothing else.
func TestHostWithoutTheLibrary(t *testing.T) {
	root := testDir(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(linkedWith(t, exe), exe) {
		if strings.Contains(f, "ibverbs") {
			t.Fatalf("the program is linked with %s", f)
		}
		copyInto(t, root, f)
	}
	chroot := []string{"chroot", root}
	if os.Geteuid() != 0 {
		chroot = append([]string{"unshare", "--map-root-user"}, chroot...)
	}
	here := host{exec: chroot}
	here.start(t, "devices").want(transfer.CodeNoRDMA, noVerbs...)

	key := transfer.NewKey()
	if err := transfer.SaveKey(filepath.Join(root, "key"), key); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"into", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "src"), make([]byte, 3*mib), 0o644); err != nil {
		t.Fatal(err)
	}
	r := here.start(t, "recv", "--json", "--once", "--listen", "127.0.0.1:0", "--key-file", "/key", "--into", "/into")
	addr := r.await("listening")["address"].(string)
	// Required, it fails; the receiver is still there for the next.
	here.start(t, "recv", "--transport", "rdma", "--key-file", "/key", "--into", "/into").want(transfer.CodeNoRDMA, noVerbs...)
	s := here.start(t, "send", "--json", "--key-file", "/key", "/src", addr)
	if e := s.await("plan"); e["transport"] != "tcp" || !strings.Contains(e["reason"].(string), noVerbs[0]) {
		t.Errorf("plan: %v", e)
	}
	s.want(transfer.CodeOK)
	r.want(transfer.CodeOK)
}

// linkedWith lists the shared libraries of a program, by ldd.
func linkedWith(t *testing.T, exe string) []string {
	t.Helper()
	out, err := exec.Command("ldd", exe).CombinedOutput()
	if strings.Contains(string(out), "not a dynamic executable") {
		return nil
	}
	if err != nil {
		t.Fatalf("ldd %s: %v\n%s", exe, err, out)
	}
	return regexp.MustCompile(`(?m)/\S+`).FindAllString(strings.ReplaceAll(string(out), exe, ""), -1)
}

func copyInto(t *testing.T, root, file string) {
	t.Helper()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	to := filepath.Join(root, file)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
