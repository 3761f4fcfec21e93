//go:build !rxe

package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// TestMeasuringIsNoTransfer for a receiver of one: it waits on, and what comes then lands.
func TestMeasuringIsNoTransfer(t *testing.T) {
	tt := newTransfer(t)
	a, b := tt.file("a", 5), tt.file("b", 6)
	bench := func(code transfer.Code, words ...string) {
		t.Helper()
		twoHosts[1].start(t, "bench", "lat", "--key-file", tt.key, "--op", "copy", "--size", "100", "--duration", "50ms", tt.addr).want(code, words...)
	}
	r := tt.recv()
	bench(transfer.CodeOK)
	if sum := r.await("summary"); sum["measured"] != 1.0 || sum["ok"] != true {
		t.Errorf("of what was measured: %v", sum)
	}
	tt.send("--transport", "tcp", a).want(transfer.CodeOK)
	if sum := r.want(transfer.CodeOK); sum["files"] != 1.0 {
		t.Errorf("%v", sum)
	}

	r = tt.recv("--encrypt")
	bench(transfer.CodeUsage, "encrypted payload alone")
	tt.send("--encrypt", b).want(transfer.CodeOK)
	r.want(transfer.CodeOK, "encrypted payload alone")

	piped := filepath.Join(tt.dir, "piped")
	r, code := tt.recvInto("cat >'" + piped + "'")
	bench(transfer.CodeOK)
	tt.send("--transport", "tcp", a).want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	if c := code(); c != "0" || b3sum(t, piped) != b3sum(t, a) {
		t.Errorf("exit %s, or not what was sent", c)
	}
}

// TestSummaryOfWhatNeverBegan: programs hear why there was no transfer, too.
func TestSummaryOfWhatNeverBegan(t *testing.T) {
	tt := newTransfer(t)
	told := func(p *proc, code transfer.Code) {
		t.Helper()
		if e := p.want(code); e["event"] != "summary" || e["ok"] != false || e["code"] != float64(code) || e["error"] == nil {
			t.Errorf("%s ended with %v", p.name, e)
		}
	}
	for args, code := range map[string]transfer.Code{
		"send --json --key-file " + tt.key + " /nowhere 127.0.0.1:1":                           transfer.CodeLocalIO,
		"send --json --key-file /nowhere /etc/hostname 127.0.0.1:1":                            transfer.CodeUsage,
		"send --json --key-file " + tt.key + " /etc/hostname 127.0.0.1:1":                      transfer.CodeConnect,
		"recv --json --once --key-file " + tt.key + " --into /nowhere":                         transfer.CodeLocalIO,
		"recv --json --once --key-file " + tt.key + " --discard --listen 192.0.2.1:1":          transfer.CodeConnect,
		"recv --json --once --key-file /nowhere --discard --listen " + twoHosts[0].addr + ":0": transfer.CodeUsage,
	} {
		told(host{}.start(t, strings.Fields(args)...), code)
	}
	r := tt.recv("--discard")
	r.signal(syscall.SIGTERM)
	told(r, 143)
	for _, args := range []string{"send --json --nonsense a b", "send --json /etc/hostname h", "recv --json --once --discard --into ."} {
		if e := (host{}).start(t, strings.Fields(args)...).want(transfer.CodeUsage); e != nil {
			t.Errorf("%s: %v", args, e)
		}
	}
}

// TestSignalWhileTheKeyIsRead from a pipe ends the program.
func TestSignalWhileTheKeyIsRead(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "key")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	stdin := []string{"sh", "-c", `exec "$@" <"$0"`, fifo}
	for _, c := range []struct {
		wrap []string
		args string
		sig  syscall.Signal
	}{
		{nil, "send --json --key-file " + fifo + " /etc/hostname 127.0.0.1:1", syscall.SIGINT},
		{stdin, "send --json --key-file - /etc/hostname 127.0.0.1:1", syscall.SIGTERM},
		{stdin, "recv --json --once --discard --key-file -", syscall.SIGINT},
	} {
		p := host{}.startWith(t, c.wrap, strings.Fields(c.args)...)
		if _, err := writer.WriteString("one "); err != nil {
			t.Fatal(err)
		}
		for began := time.Now(); ; runtime.Gosched() { // until it has read that, and waits for more
			n, err := unix.IoctlGetInt(int(writer.Fd()), unix.TIOCINQ)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			if time.Since(began) > patience {
				t.Fatalf("%s: it does not read the key", c.args)
			}
		}
		p.signal(c.sig)
		code := 128 + transfer.Code(c.sig)
		if e := p.want(code, "stopped by a signal"); e["event"] != "summary" || e["code"] != float64(code) {
			t.Errorf("%s ended with %v", c.args, e)
		}
	}
}

// fullPipe makes a named pipe that nobody reads, and has no room left.
func (tt *transferTest) fullPipe() string {
	tt.t.Helper()
	path := filepath.Join(tt.dir, "full")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		tt.t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		tt.t.Fatal(err)
	}
	tt.t.Cleanup(func() { unix.Close(fd) })
	for err == nil {
		_, err = unix.Write(fd, make([]byte, 4096))
	}
	if err != unix.EAGAIN {
		tt.t.Fatal(err)
	}
	return path
}

// TestNobodyReadsTheSummary: a receiver whose standard output nobody reads serves more senders
// than it does at once, and ends when it is told to.
func TestNobodyReadsTheSummary(t *testing.T) {
	for args, senders := range map[string]int{"--discard --no-sync": maxTransfers + 1, "--discard --once": 1} {
		tt := newTransfer(t)
		src := tt.file("src", 5)
		argv := append([]string{"recv", "--json", "--listen", twoHosts[0].addr + ":0", "--key-file", tt.key}, strings.Fields(args)...)
		r := twoHosts[0].startWith(t, []string{"sh", "-c", `exec "$@" 1<>"$0"`, tt.fullPipe()}, argv...)
		tt.addr = r.listensAt()
		for range senders {
			tt.send("--transport", "tcp", src).want(transfer.CodeOK)
		}
		r.signal(syscall.SIGTERM)
		r.want(143, "stopped by a signal")
	}
}

// TestEventsTellTheirSession: those of two senders at once can be told apart.
func TestEventsTellTheirSession(t *testing.T) {
	tt := newTransfer(t)
	r := twoHosts[0].start(t, "recv", "--json", "--listen", twoHosts[0].addr+":0", "--key-file", tt.key, "--discard")
	listening := r.await("listening")
	if listening["session"] != nil || listening["peer"] != nil {
		t.Errorf("%v", listening)
	}
	tt.addr = listening["address"].(string)
	senders := []*proc{tt.send("--transport", "tcp", tt.file("a", 5)), tt.send("--transport", "tcp", tt.file("b", 5))}
	peers, files := make(map[any]any), make(map[any]any)
	for over := 0; over < len(senders); {
		select {
		case e, ok := <-r.events:
			if !ok {
				t.Fatal("the receiver has ended")
			}
			session, peer := e["session"], e["peer"]
			if before, known := peers[session]; peer == nil || known && before != peer {
				t.Errorf("%v, and its session's peer was %v", e, before)
			}
			peers[session] = peer
			switch e["event"] {
			case "file":
				files[e["path"]] = session
			case "summary":
				over++
			}
		case <-time.After(patience):
			t.Fatal("the receiver hangs")
		}
	}
	if len(peers) != 2 || peers[1.0] == nil || peers[1.0] == peers[2.0] || len(files) != 2 || files["a"] == files["b"] {
		t.Errorf("peers by session: %v; sessions by file: %v", peers, files)
	}
	for _, s := range senders {
		s.want(transfer.CodeOK)
	}
	r.signal(syscall.SIGTERM)
	r.want(143)
}
