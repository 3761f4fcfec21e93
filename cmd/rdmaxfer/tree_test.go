//go:build !rxe

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// printed runs a program that is not ours and gives what it prints.
func printed(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// wantSame asks rsync what it would change to make b what a is.
func wantSame(t *testing.T, a, b string, more ...string) {
	t.Helper()
	args := append([]string{"--archive", "--no-owner", "--no-group", "--checksum", "--delete", "--dry-run", "--itemize-changes", a + "/", b + "/"}, more...)
	if diff := printed(t, "rsync", args...); diff != "" {
		t.Errorf("rsync would change:\n%.2000s", diff)
	}
}

// tree makes what trees are made of: many small files, some large ones, deep and empty
// directories, odd modes and times, holes, links.
func (tt *transferTest) tree() string {
	tt.t.Helper()
	root := filepath.Join(tt.dir, "tree")
	for _, dir := range []string{"empty", "a/b/c/d/e", "many", "closed"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			tt.t.Fatal(err)
		}
	}
	for i := range 700 {
		tt.file(fmt.Sprintf("tree/many/%03d", i), i*7%4096)
	}
	tt.file("tree/a/large", 9*mib+3)
	tt.file("tree/a/b/c/d/e/deep", 300<<10)
	tt.file("tree/closed/f", 5)
	sparse := tt.file("tree/sparse", 1)
	old := time.Date(1999, 12, 31, 23, 59, 59, 987654321, time.UTC)
	for _, err := range []error{
		os.Truncate(sparse, 64*mib),
		os.Link(filepath.Join(root, "many/007"), filepath.Join(root, "a/b/name")),
		os.Link(filepath.Join(root, "a/large"), filepath.Join(root, "closed/large")),
		os.Symlink("../large", filepath.Join(root, "a/b/link")),
		os.Symlink("nowhere", filepath.Join(root, "dangling")),
		unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(root, "dangling"), []unix.Timespec{{Sec: 5}, {Sec: 5}}, unix.AT_SYMLINK_NOFOLLOW),
		os.Chmod(filepath.Join(root, "many/007"), 0o751),
		os.Chtimes(filepath.Join(root, "many/008"), old, old),
		os.Chtimes(filepath.Join(root, "many"), old, old),
		os.Chtimes(filepath.Join(root, "empty"), old, old),
		os.Chmod(filepath.Join(root, "closed"), 0o555),
	} {
		if err != nil {
			tt.t.Fatal(err)
		}
	}
	return root
}

func TestTreeArrivesAsItWas(t *testing.T) {
	for _, args := range [][]string{{"--links"}, {"--links", "--hard-links", "--verify", "xxh3"}, {"--links", "--verify", "none", "--lanes", "3"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			tt := newTransfer(t)
			root := tt.tree()
			r := tt.recv()
			sum := tt.send(append(append([]string{"--transport", "tcp"}, args...), root)...).want(transfer.CodeOK)
			r.want(transfer.CodeOK)
			if sum["files"] != float64(708) || sum["failed"] != float64(0) {
				t.Errorf("summary: %v", sum)
			}
			if slices.Contains(args, "--hard-links") {
				wantSame(t, root, filepath.Join(tt.into, "tree"), "--hard-links")
			} else {
				wantSame(t, root, filepath.Join(tt.into, "tree"))
			}
			var st syscall.Stat_t
			if err := syscall.Stat(filepath.Join(tt.into, "tree/sparse"), &st); err != nil || st.Size != 64*mib || st.Blocks*512 > mib {
				t.Errorf("the file of holes: %d bytes, %d blocks, %v", st.Size, st.Blocks, err)
			}
			if got := tt.landed(); len(got) != 1 {
				t.Errorf("landed: %v", got)
			}
		})
	}
}

// TestExcluded compares with what rsync sends by the same rules.
func TestExcluded(t *testing.T) {
	tt := newTransfer(t)
	root := tt.tree()
	rules := []string{"--include", "many/00*", "--exclude", "many/*", "--exclude", "/tree/a/b/", "--exclude", "sparse"}
	r := tt.recv()
	tt.send(append(append([]string{"--transport", "tcp", "--links"}, rules...), root)...).want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	want := filepath.Join(tt.dir, "want")
	printed(t, "rsync", append(append([]string{"--archive"}, rules...), root, want)...)
	// Not the directories around them, which are of another second now and then.
	wantSame(t, filepath.Join(want, "tree"), filepath.Join(tt.into, "tree"))
	if got := tt.landed(); len(got) != 1 {
		t.Errorf("landed: %v", got)
	}
}

// TestLinksAreLeftOut unless they are asked for, and never lead out.
func TestLinks(t *testing.T) {
	tt := newTransfer(t)
	root := filepath.Join(tt.dir, "tree")
	os.Mkdir(root, 0o755)
	tt.file("tree/f", 5)
	os.Symlink("f", filepath.Join(root, "link"))
	r := tt.recv()
	s := tt.send("--transport", "tcp", root)
	if e := s.await("skipped"); e["path"] != filepath.Join(root, "link") {
		t.Errorf("%v", e)
	}
	s.want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	if _, err := os.Lstat(filepath.Join(tt.into, "tree/link")); err == nil {
		t.Error("the link was sent")
	}
	for _, to := range []string{"/etc/passwd", "../../x", "../.."} {
		os.RemoveAll(filepath.Join(tt.into, "tree"))
		os.Remove(filepath.Join(root, "link"))
		os.Symlink(to, filepath.Join(root, "link"))
		r = tt.recv()
		tt.send("--transport", "tcp", "--links", root).want(transfer.CodePartial, "outside")
		r.want(transfer.CodePartial, "outside")
	}
}

func TestStdin(t *testing.T) {
	for _, size := range []int{0, 1, mib, 70*mib + 5} {
		tt := newTransfer(t)
		src := tt.file("src", size)
		r := tt.recv()
		s := tt.sendWith([]string{"sh", "-c", `exec "$@" <"$0"`, src}, "--transport", "tcp", "--name", "piped", "-")
		sum := s.want(transfer.CodeOK)
		r.want(transfer.CodeOK)
		if sum["bytes"] != float64(size) {
			t.Errorf("summary: %v", sum)
		}
		if got, want := b3sum(t, filepath.Join(tt.into, "piped")), b3sum(t, src); got != want {
			t.Errorf("%d bytes: %s, want %s", size, got, want)
		}
	}
}

// TestStdinIsVerified: the receipt of a stream is what b3sum prints, however long it is.
func TestStdinIsVerified(t *testing.T) {
	for _, size := range []int{0, 1, mib, 3 * mib} {
		tt := newTransfer(t)
		src := tt.file("src", size)
		r := tt.recv()
		tt.sendWith([]string{"sh", "-c", `exec "$@" <"$0"`, src}, "--transport", "tcp", "-").want(transfer.CodeOK)
		if e := r.await("file"); e["blake3"] != b3sum(t, src) {
			t.Errorf("%d bytes: receipt %v, want %s", size, e["blake3"], b3sum(t, src))
		}
		r.want(transfer.CodeOK)
	}
}

// TestIdleStdin: a transfer that ends while nothing comes does not wait for more.
func TestIdleStdin(t *testing.T) {
	tt := newTransfer(t)
	r := tt.recv()
	s := tt.sendWith([]string{"sh", "-c", `mkfifo "$0"; exec 3<>"$0"; exec "$@" <&3`, filepath.Join(tt.dir, "idle")}, "--transport", "tcp", "-")
	s.await("plan")
	r.signal(syscall.SIGINT)
	r.want(130)
	s.want(transfer.CodeConnect, "stopped by a signal")

	r = tt.recv()
	s = tt.sendWith([]string{"sh", "-c", `exec 3<>"$0"; exec "$@" <&3`, filepath.Join(tt.dir, "idle")}, "--transport", "tcp", "-")
	s.await("plan")
	s.signal(syscall.SIGINT)
	s.want(130)
	r.want(transfer.CodeConnect, "stopped by a signal")
}

// TestFilesThatClaimNothing have content all the same.
func TestFilesThatClaimNothing(t *testing.T) {
	tt := newTransfer(t)
	r := tt.recv()
	tt.send("--transport", "tcp", "/proc/version").want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	want, _ := os.ReadFile("/proc/version")
	if got, err := os.ReadFile(filepath.Join(tt.into, "version")); !bytes.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

// ledger waits until the receiver has written down that something landed.
func (tt *transferTest) ledger() {
	tt.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		list, err := filepath.Glob(filepath.Join(tt.into, ".rdmaxfer-*.ledger"))
		if err != nil {
			tt.t.Fatal(err)
		}
		for _, path := range list {
			if st, err := os.Stat(path); err == nil && st.Size() > 0 {
				return
			}
		}
	}
	tt.t.Fatal("there is no ledger")
}

// TestResume kills and stops either end in the middle. The same command goes on, sends
// again no more than what had not landed, and what lands is what was sent.
func TestResume(t *testing.T) {
	for _, c := range []struct {
		victim string
		sig    syscall.Signal
	}{{"recv", syscall.SIGKILL}, {"recv", syscall.SIGINT}, {"send", syscall.SIGKILL}, {"send", syscall.SIGINT}} {
		for _, how := range []string{"--verify blake3", "--verify none", "--encrypt"} {
			t.Run(fmt.Sprint(c.victim, " ", c.sig, " ", how), func(t *testing.T) {
				tt := newTransfer(t)
				src := tt.file("src", 200*mib+5)
				args := append([]string{"--transport", "tcp"}, strings.Fields(how)...)
				r := tt.recv()
				s := tt.send(append(args, "--limit", "30M", src)...)
				tt.ledger()
				victim := map[string]*proc{"recv": r, "send": s}[c.victim]
				victim.signal(c.sig)
				r.wait()
				s.wait()
				tt.partsLeft()

				r = tt.recv()
				sum := tt.send(append(args, src)...).want(transfer.CodeOK)
				r.want(transfer.CodeOK)
				if resumed := sum["resumed_bytes"].(float64); resumed < 16*mib || resumed > 200*mib {
					t.Errorf("%v bytes had landed before", resumed)
				}
				if got, want := b3sum(t, filepath.Join(tt.into, "src")), b3sum(t, src); got != want {
					t.Errorf("%s, want %s", got, want)
				}
				if got := tt.landed(); len(got) != 1 {
					t.Errorf("landed: %v", got)
				}
			})
		}
	}
}

// TestResumeNoticesAnotherSource: what changed meanwhile is sent anew.
func TestResumeNoticesAnotherSource(t *testing.T) {
	tt := newTransfer(t)
	src := tt.file("src", 200*mib)
	r := tt.recv()
	s := tt.send("--transport", "tcp", "--limit", "30M", src)
	tt.ledger()
	s.signal(syscall.SIGKILL)
	r.wait()
	st, err := os.Stat(src)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(src, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("changed"), 5); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(src, st.ModTime(), st.ModTime()); err != nil { // as if nothing had happened
		t.Fatal(err)
	}
	r = tt.recv()
	sum := tt.send("--transport", "tcp", src).want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	if sum["resumed_bytes"] != float64(0) {
		t.Errorf("summary: %v", sum)
	}
	if got, want := b3sum(t, filepath.Join(tt.into, "src")), b3sum(t, src); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestResumeOfATree: what has its name is not sent again, and is no file in the way.
func TestResumeOfATree(t *testing.T) {
	tt := newTransfer(t)
	root := tt.tree()
	tt.file("tree/zlast", 100*mib)
	r := tt.recv()
	s := tt.send("--transport", "tcp", "--links", "--limit", "40M", root)
	for r.await("file")["bytes"] == float64(0) {
	}
	r.signal(syscall.SIGKILL)
	s.wait()
	r = tt.recv()
	sum := tt.send("--transport", "tcp", "--links", root).want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	if sum["resumed_bytes"].(float64) == 0 {
		t.Errorf("summary: %v", sum)
	}
	wantSame(t, root, filepath.Join(tt.into, "tree"))
}
