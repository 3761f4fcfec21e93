package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// The test binary is also the program: run with this variable set, it is rdmaxfer.
const asProgram = "RDMAXFER_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// patience bounds every wait of these tests. It asserts nothing: what takes this
// long hangs.
const patience = 2 * time.Minute

// host is where a program runs: on this machine, or in a namespace of the pair.
type host struct {
	exec []string // what runs a command there
	addr string
}

// twoHosts are the receiver's and the sender's host. The rxe build makes them the
// two of the testbed's pair.
var twoHosts = [2]host{{addr: "127.0.0.1"}, {addr: "127.0.0.1"}}

// proc is a running rdmaxfer.
type proc struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	events chan map[string]any // of --json
	ended  chan struct{}

	mu      sync.Mutex
	stderr  bytes.Buffer
	plain   bytes.Buffer // standard output that is no event
	last    map[string]any
	code    int
	started time.Time
}

// start runs the program on a host.
func (h host) start(t *testing.T, args ...string) *proc {
	t.Helper()
	return h.startWith(t, nil, args...)
}

// startWith runs it through another command, such as prlimit.
func (h host) startWith(t *testing.T, wrap []string, args ...string) *proc {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	argv := append(append(append([]string{}, h.exec...), wrap...), exe)
	argv = append(argv, args...)
	p := &proc{t: t, name: args[0], events: make(chan map[string]any, 1024), ended: make(chan struct{}), started: time.Now()}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = time.Second
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = &lockedWriter{p: p}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.follow(out)
	t.Cleanup(func() {
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
		if t.Failed() {
			t.Logf("%s (exit %d): %v\n%s%s", p.name, p.code, p.last, p.plain.String(), p.stderr.String())
		}
	})
	return p
}

type lockedWriter struct{ p *proc }

func (w *lockedWriter) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	return w.p.stderr.Write(b)
}

// follow reads events until the program ends.
func (p *proc) follow(out io.Reader) {
	defer close(p.ended)
	defer close(p.events)
	in := bufio.NewScanner(out)
	for in.Scan() {
		var e map[string]any
		if json.Unmarshal(in.Bytes(), &e) != nil {
			p.plain.WriteString(in.Text() + "\n")
			continue
		}
		p.last = e
		p.events <- e
	}
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() < 0 {
		p.code = 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
	} else {
		p.code = p.cmd.ProcessState.ExitCode()
	}
}

// await waits for an event of that name.
func (p *proc) await(name string) map[string]any {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e, ok := <-p.events:
			if !ok {
				<-p.ended
				p.t.Fatalf("%s ended with %d before the event %q", p.name, p.code, name)
			}
			if e["event"] == name {
				return e
			}
		case <-deadline:
			p.t.Fatalf("%s: no event %q", p.name, name)
		}
	}
}

// wait waits for the end and gives the exit status and the last event.
func (p *proc) wait() (int, map[string]any) {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case _, ok := <-p.events:
			if ok {
				continue
			}
			<-p.ended
			return p.code, p.last
		case <-deadline:
			p.t.Fatalf("%s hangs", p.name)
		}
	}
}

// want waits for the end and checks the exit status, and that the words are among
// what the program said.
func (p *proc) want(code transfer.Code, words ...string) map[string]any {
	p.t.Helper()
	got, last := p.wait()
	if got != int(code) {
		p.t.Errorf("%s: exit %d, want %d", p.name, got, code)
	}
	said := p.stderr.String()
	if e, ok := last["error"].(string); ok {
		said += e
	}
	for _, w := range words {
		if !strings.Contains(said, w) {
			p.t.Errorf("%s does not say %q:\n%s", p.name, w, said)
		}
	}
	return last
}

// signal sends a signal to the program alone. Under "softroce exec" and prlimit,
// which exec it in place, that is the process that was started.
func (p *proc) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// transferTest is a directory with a key, a source and a destination.
type transferTest struct {
	t        *testing.T
	dir      string
	key      string
	into     string
	receiver *proc
	addr     string
}

func newTransfer(t *testing.T) *transferTest {
	t.Helper()
	tt := &transferTest{t: t, dir: testDir(t)}
	tt.key, tt.into = filepath.Join(tt.dir, "key"), filepath.Join(tt.dir, "into")
	if err := os.Mkdir(tt.into, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := transfer.SaveKey(tt.key, transfer.NewKey()); err != nil {
		t.Fatal(err)
	}
	return tt
}

// testDir is in memory where that can be had: what is measured is not the disk.
func testDir(t *testing.T) string {
	if _, err := os.Stat("/dev/shm"); err != nil {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "rdmaxfer-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// file makes a source of random bytes.
func (tt *transferTest) file(name string, size int) string {
	tt.t.Helper()
	path := filepath.Join(tt.dir, name)
	f, err := os.Create(path)
	if err != nil {
		tt.t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{1}), int64(size)); err != nil {
		tt.t.Fatal(err)
	}
	return path
}

// sparse makes a source that takes long to send and no room: holes.
func (tt *transferTest) sparse(name string, size int64) string {
	tt.t.Helper()
	path := tt.file(name, 1)
	if err := os.Truncate(path, size); err != nil {
		tt.t.Fatal(err)
	}
	return path
}

// recv starts a receiver of one transfer and waits until it listens.
func (tt *transferTest) recv(args ...string) *proc {
	tt.t.Helper()
	return tt.recvWith(nil, args...)
}

func (tt *transferTest) recvWith(wrap []string, args ...string) *proc {
	tt.t.Helper()
	base := []string{"recv", "--json", "--once", "--listen", net.JoinHostPort(twoHosts[0].addr, "0"), "--key-file", tt.key}
	if !slices.Contains(args, "--discard") && !slices.Contains(args, "--as") {
		base = append(base, "--into", tt.into)
	}
	tt.receiver = twoHosts[0].startWith(tt.t, wrap, append(base, args...)...)
	tt.addr = tt.receiver.await("listening")["address"].(string)
	return tt.receiver
}

// send starts a sender; the last of args are its paths.
func (tt *transferTest) send(args ...string) *proc {
	tt.t.Helper()
	return tt.sendWith(nil, args...)
}

func (tt *transferTest) sendWith(wrap []string, args ...string) *proc {
	tt.t.Helper()
	args = append([]string{"send", "--json", "--key-file", tt.key}, args...)
	return twoHosts[1].startWith(tt.t, wrap, append(args, tt.addr)...)
}

// b3sum is the digest by the program of that name, which is not ours.
func b3sum(t *testing.T, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "b3sum", "--no-names", path).Output()
	if err != nil {
		t.Fatalf("b3sum %s: %v (apt install b3sum)", path, err)
	}
	return strings.TrimSpace(string(out))
}

// landed lists what is in the destination, hidden files too.
func (tt *transferTest) landed() []string {
	tt.t.Helper()
	entries, err := os.ReadDir(tt.into)
	if err != nil {
		tt.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// partsLeft checks that a transfer that was interrupted left nothing but what another
// try goes on from.
func (tt *transferTest) partsLeft() {
	tt.t.Helper()
	for _, name := range tt.landed() {
		if !strings.HasPrefix(name, ".rdmaxfer-") {
			tt.t.Errorf("left behind: %s", name)
		}
	}
}

// nothingLeft checks that a transfer that failed left nothing behind.
func (tt *transferTest) nothingLeft() {
	tt.t.Helper()
	if names := tt.landed(); len(names) > 0 {
		tt.t.Errorf("left behind: %v", names)
	}
}
