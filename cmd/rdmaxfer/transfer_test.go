package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// These tests run natively over loopback, where there is TCP alone, and again in
// the testbed's pair, where transports has both.
var transports = []string{transfer.TransportTCP}

const mib = 1 << 20

func eachTransport(t *testing.T, f func(t *testing.T, transport string)) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) { f(t, transport) })
	}
}

func TestFilesArriveAsTheyWere(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		tt := newTransfer(t)
		sizes := []int{0, 1, 1023, mib - 1, mib, mib + 1, 5*mib + 12345}
		var paths []string
		for _, n := range sizes {
			paths = append(paths, tt.file(fmt.Sprintf("file-%d with space", n), n))
		}
		old := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
		if err := os.Chtimes(paths[0], old, old); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(paths[1], 0o751|os.ModeSetuid); err != nil {
			t.Fatal(err)
		}
		r := tt.recv()
		s := tt.send(append([]string{"--transport", transport}, paths...)...)
		sum := s.want(transfer.CodeOK)
		r.want(transfer.CodeOK)
		if sum["transport"] != transport || sum["files"] != float64(len(sizes)) {
			t.Errorf("summary: %v", sum)
		}
		for _, p := range paths {
			if got, want := b3sum(t, filepath.Join(tt.into, filepath.Base(p))), b3sum(t, p); got != want {
				t.Errorf("%s: %s, want %s", p, got, want)
			}
		}
		st, err := os.Stat(filepath.Join(tt.into, filepath.Base(paths[0])))
		if err != nil || !st.ModTime().Equal(old) {
			t.Errorf("mtime %v, %v; want %v", st.ModTime(), err, old)
		}
		st, err = os.Stat(filepath.Join(tt.into, filepath.Base(paths[1])))
		if err != nil || st.Mode() != 0o751 {
			t.Errorf("mode %v, %v; want 0751 without setuid", st.Mode(), err)
		}
		if n := len(tt.landed()); n != len(sizes) {
			t.Errorf("%d names in the destination: %v", n, tt.landed())
		}
	})
}

func TestReceiptIsWhatB3sumPrints(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		tt := newTransfer(t)
		src := tt.file("src", 3*mib+7)
		r := tt.recv()
		s := tt.send("--transport", transport, src)
		for _, p := range []*proc{s, r} {
			if got, want := p.await("file")["blake3"], b3sum(t, src); got != want {
				t.Errorf("%s: receipt %v, want %s", p.name, got, want)
			}
			p.want(transfer.CodeOK)
		}
	})
}

func TestDestinationExists(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		tt := newTransfer(t)
		src := tt.file("src", mib)
		dst := filepath.Join(tt.into, "src")
		if err := os.WriteFile(dst, []byte("precious"), 0o644); err != nil {
			t.Fatal(err)
		}
		try := func(overwrite string, code transfer.Code, words ...string) {
			t.Helper()
			r := tt.recv("--overwrite", overwrite)
			tt.send("--transport", transport, src).want(code, words...)
			r.want(code, words...)
		}
		try("never", transfer.CodeExists, "exists", "--overwrite")
		if b, _ := os.ReadFile(dst); string(b) != "precious" {
			t.Errorf("it was overwritten: %d bytes", len(b))
		}
		newer := time.Now().Add(time.Hour)
		os.Chtimes(dst, newer, newer)
		try("newer", transfer.CodeExists, "not older")
		older := time.Now().Add(-time.Hour)
		os.Chtimes(dst, older, older)
		try("newer", transfer.CodeOK)
		try("always", transfer.CodeOK)
		if got := tt.landed(); len(got) != 1 {
			t.Errorf("%v", got)
		}
	})
}

// TestPeerGone kills and stops either side in the middle. The other must notice
// within 10 s, which the control connection's silence limit makes 6, and patience
// bounds here; it says so and leaves nothing behind.
func TestPeerGone(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
			for _, victim := range []string{"send", "recv"} {
				t.Run(fmt.Sprint(victim, " ", sig), func(t *testing.T) {
					tt := newTransfer(t)
					src := tt.sparse("src", 64<<30)
					r := tt.recv("--discard")
					s := tt.send("--transport", transport, src)
					s.await("plan")
					r.await("plan")
					dead, alive := s, r
					if victim == "recv" {
						dead, alive = r, s
					}
					dead.signal(sig)
					began := time.Now()
					alive.want(transfer.CodeConnect, "peer")
					t.Logf("noticed after %v", time.Since(began).Round(10*time.Millisecond))
				})
			}
		}
	})
}

func TestSenderKilledLeavesOnlyParts(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		tt := newTransfer(t)
		src := tt.sparse("src", 1<<30)
		r := tt.recv()
		s := tt.send("--transport", transport, src)
		r.await("plan")
		s.signal(syscall.SIGKILL)
		r.want(transfer.CodeConnect, "is gone")
		tt.partsLeft()
	})
}

// TestReaderThatEnds wants no more of what a sender prints, which is no error and no signal;
// what can't be printed is an error.
func TestReaderThatEnds(t *testing.T) {
	for how, code := range map[string]transfer.Code{
		`"$0" "$@" | head -n 1 >/dev/null; exit "${PIPESTATUS[0]}"`: transfer.CodeOK,
		`exec "$0" "$@" >/dev/full`:                                 transfer.CodeLocalIO,
	} {
		tt := newTransfer(t)
		var paths []string
		for i := range 300 { // receipts come long after the first line
			paths = append(paths, tt.file(fmt.Sprint("f", i), 5))
		}
		r := tt.recv()
		s := tt.sendWith([]string{"bash", "-c", how}, append([]string{"--transport", "tcp", "--limit", "3K"}, paths...)...)
		s.want(code)
		if sum := r.want(transfer.CodeOK); sum["files"] != 300.0 {
			t.Errorf("%v", sum)
		}
	}
}

// TestSignalAtThePrompt ends the program, and the terminal shows again what is typed.
func TestSignalAtThePrompt(t *testing.T) {
	ptm, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ptm.Close()
	n, err := unix.IoctlGetUint32(int(ptm.Fd()), unix.TIOCGPTN)
	if err = errors.Join(err, unix.IoctlSetPointerInt(int(ptm.Fd()), unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	pts, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pts.Close()
	echoes := func() bool {
		state, err := unix.IoctlGetTermios(int(pts.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return state.Lflag&unix.ECHO != 0
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "send", "/etc/hostname", "localhost")
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stdin = pts
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(2*patience, func() { cmd.Process.Kill() }).Stop()
	for began := time.Now(); echoes(); runtime.Gosched() { // until it asks
		if time.Since(began) > patience {
			t.Fatal("it does not ask for the key")
		}
	}
	cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 || !echoes() {
		t.Errorf("exit %d; the terminal shows what is typed: %v", code, echoes())
	}
}

// TestLastLineIsTheSummary of every transfer, also of one in which no file landed.
func TestLastLineIsTheSummary(t *testing.T) {
	tt := newTransfer(t)
	empty := filepath.Join(tt.dir, "empty")
	if err := os.MkdirAll(filepath.Join(empty, "inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	f := tt.file("f", 5)
	for _, c := range []struct {
		path, want string
		code       transfer.Code
	}{
		{f, "1 file, 5 B in * · blake3 verified", transfer.CodeOK},
		{f, "0 files, 0 B in * · 1 failed", transfer.CodeExists},
		{empty, "0 files, 0 B in * method=auto (*)", transfer.CodeOK},
	} {
		r := tt.recv()
		s := tt.send("--json=false", "--transport", "tcp", c.path)
		s.want(c.code)
		r.want(c.code)
		lines := strings.Split(strings.TrimSpace(s.plain.String()), "\n")
		if got := lines[len(lines)-1]; !matches("sent "+c.want, got) {
			t.Errorf("%s: %q, want sent %q", c.path, got, c.want)
		}
	}
}

// matches compares with words that have stars for what may be anything.
func matches(want, got string) bool {
	for i, w := range strings.Split(want, "*") {
		at := strings.Index(got, w)
		if at < 0 || i == 0 && at > 0 {
			return false
		}
		got = got[at+len(w):]
	}
	return got == ""
}
