//go:build !rxe

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/tcpfallback"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// What is the same whatever carries the bytes is tested over TCP on this machine
// alone, where it takes a moment; the testbed's machine is for RDMA.

func TestMethods(t *testing.T) {
	for _, args := range [][]string{{"--method", "copy"}, {"--method", "mmap"}, {"--method", "mmap", "--verify", "none"},
		{"--method", "sendfile"}, {"--method", "sendfile", "--verify", "none"}, {"--method", "splice"}, {"--method", "splice", "--verify", "none"}, {"--verify", "none"},
		{"--encrypt"}, {"--encrypt", "--verify", "none", "--compress", "zstd", "--lanes", "2"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			tt := newTransfer(t)
			src := tt.file("src", 9*mib+1)
			r := tt.recv()
			tt.send(append(append([]string{"--transport", "tcp"}, args...), src)...).want(transfer.CodeOK)
			r.want(transfer.CodeOK)
			if got, want := b3sum(t, filepath.Join(tt.into, "src")), b3sum(t, src); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

// TestLandings: whatever way the bytes take into the file, seen by the program or not.
func TestLandings(t *testing.T) {
	for _, landing := range []string{"auto", "copy", "splice", "mmap"} {
		for _, verify := range []string{"blake3", "none"} {
			t.Run(landing+" "+verify, func(t *testing.T) {
				tt := newTransfer(t)
				src := tt.file("src", 9*mib+1)
				r := tt.recv("--landing", landing)
				tt.send("--transport", "tcp", "--lanes", "2", "--verify", verify, src).want(transfer.CodeOK)
				r.want(transfer.CodeOK)
				if got, want := b3sum(t, filepath.Join(tt.into, "src")), b3sum(t, src); got != want {
					t.Errorf("%s, want %s", got, want)
				}
			})
		}
	}
}

// TestCompressed: what gets shorter does, what does not travels as it is, and both land
// as they were.
func TestCompressed(t *testing.T) {
	for _, mode := range []string{"zstd", "auto"} {
		tt := newTransfer(t)
		numbers := filepath.Join(tt.dir, "numbers")
		var text bytes.Buffer
		for i := range 2_000_000 {
			fmt.Fprintln(&text, i)
		}
		if err := os.WriteFile(numbers, text.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		random := tt.file("random", 5*mib+1)
		r := tt.recv()
		tt.send("--transport", "tcp", "--compress", mode, numbers, random).want(transfer.CodeOK)
		r.want(transfer.CodeOK)
		for _, src := range []string{numbers, random} {
			if got, want := b3sum(t, filepath.Join(tt.into, filepath.Base(src))), b3sum(t, src); got != want {
				t.Errorf("%s, %s: %s, want %s", mode, src, got, want)
			}
		}
	}
}

func TestOneReceiverManySenders(t *testing.T) {
	tt := newTransfer(t)
	tt.receiver = twoHosts[0].start(t, "recv", "--json", "--listen", twoHosts[0].addr+":0", "--key-file", tt.key, "--into", tt.into)
	tt.addr = tt.receiver.await("listening")["address"].(string)
	var senders []*proc
	for i := range 4 {
		senders = append(senders, tt.send("--transport", "tcp", tt.file(fmt.Sprint("src", i), 2*mib)))
	}
	for _, s := range senders {
		s.want(transfer.CodeOK)
	}
	tt.receiver.signal(syscall.SIGTERM)
	tt.receiver.want(143)
	if n := len(tt.landed()); n != 4 {
		t.Errorf("%v", tt.landed())
	}
}

func TestWrongKey(t *testing.T) {
	tt := newTransfer(t)
	src := tt.file("src", mib)
	r := tt.recv()
	good := tt.key
	tt.key = filepath.Join(tt.dir, "other")
	if err := transfer.SaveKey(tt.key, transfer.NewKey()); err != nil {
		t.Fatal(err)
	}
	tt.send(src).want(transfer.CodeAuth, "the keys differ")
	tt.nothingLeft()
	// The receiver is still there for who holds the key.
	tt.key = good
	tt.send(src).want(transfer.CodeOK)
	r.want(transfer.CodeOK, "refused a connection", "the keys differ")
}

func TestNobodyListens(t *testing.T) {
	tt := newTransfer(t)
	src := tt.file("src", 1)
	tt.recv().signal(syscall.SIGKILL)
	tt.receiver.wait()
	for _, args := range [][]string{{src}, {"--fast-open", src}} { // that is heard of with the first bytes then
		tt.send(args...).want(transfer.CodeConnect, "connecting to", "is rdmaxfer recv running there")
	}
}

func TestSourceMissing(t *testing.T) {
	tt := newTransfer(t)
	tt.recv()
	tt.send(filepath.Join(tt.dir, "nowhere")).want(transfer.CodeLocalIO, "nowhere", "no such file")
}

// awaitOpen waits until the process has a file open: a sender that has its plan opens
// what it is asked for.
func (p *proc) awaitOpen(path string) {
	p.t.Helper()
	fds := fmt.Sprintf("/proc/%d/fd/", p.cmd.Process.Pid)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		list, err := os.ReadDir(fds)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, fd := range list {
			if to, err := os.Readlink(fds + fd.Name()); err == nil && to == path {
				return
			}
		}
		runtime.Gosched()
	}
	p.t.Fatalf("%s never opened %s", p.name, path)
}

func TestSourceTruncatedWhileItIsRead(t *testing.T) {
	for _, method := range tcpfallback.Methods {
		t.Run(method, func(t *testing.T) {
			tt := newTransfer(t)
			src := tt.sparse("src", 64<<30)
			r := tt.recv("--discard")
			s := tt.send("--transport", "tcp", "--method", method, "--verify", "none", src)
			s.await("plan")
			s.awaitOpen(src)
			if err := os.Truncate(src, mib); err != nil {
				t.Fatal(err)
			}
			// What it says of a source whose first look was after it was cut.
			words := "truncated while it was read"
			if _, last := s.wait(); strings.Contains(fmt.Sprint(last["error"]), "changed") {
				words = fmt.Sprintf("changed while it was read (it had %d bytes and has %d)", int64(64<<30), mib)
			}
			s.want(transfer.CodeLocalIO, words, "send it again")
			r.want(transfer.CodeLocalIO, words)
		})
	}
}

func TestSourceChangedWhileItIsRead(t *testing.T) {
	tt := newTransfer(t)
	src := tt.sparse("src", 1<<30)
	r := tt.recv("--discard")
	s := tt.send("--transport", "tcp", "--verify", "none", src)
	s.await("plan")
	s.awaitOpen(src)
	f, err := os.OpenFile(src, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 1<<29); err != nil {
		t.Fatal(err)
	}
	s.want(transfer.CodeLocalIO, "changed while it was read", "send it again")
	r.want(transfer.CodeLocalIO, "changed")
}

func TestInterrupted(t *testing.T) {
	tt := newTransfer(t)
	src := tt.sparse("src", 64<<30)
	r := tt.recv("--discard")
	s := tt.send("--transport", "tcp", src)
	s.await("plan")
	s.signal(syscall.SIGINT)
	s.want(130, "stopped by a signal")
	r.want(transfer.CodeConnect, "stopped by a signal")
}

// TestKilledReceiverLeavesOnlyItsPart: what a kill -9 leaves has a name that the
// next receiver of the same file uses again.
func TestKilledReceiverLeavesOnlyItsPart(t *testing.T) {
	tt := newTransfer(t)
	src := tt.sparse("src", 1<<30)
	r := tt.recv()
	s := tt.send("--transport", "tcp", src)
	r.await("plan")
	r.signal(syscall.SIGKILL)
	r.wait()
	s.want(transfer.CodeConnect, "is gone")
	tt.partsLeft()
	r = tt.recv()
	tt.send("--transport", "tcp", src).want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	if got := tt.landed(); len(got) != 1 || got[0] != "src" {
		t.Errorf("landed: %v", got)
	}
}

func TestUsage(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := transfer.SaveKey(key, transfer.NewKey()); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(t.TempDir(), "open")
	os.WriteFile(open, []byte(transfer.NewKey().Words()), 0o644)
	typo := filepath.Join(t.TempDir(), "typo")
	os.WriteFile(typo, []byte("one two three"), 0o600)
	for _, c := range []struct {
		args  string
		code  transfer.Code
		words string
	}{
		{"recv --landing zero", transfer.CodeUsage, "--landing"},
		{"frobnicate", 2, "no command"},
		{"send", 2, "at least two arguments"},
		{"send --nonsense a b", 2, "nonsense"},
		{"send --key-file - - h", 2, "name a file"},
		{"send --name x a b", 2, "recv --as"},
		{"send --transport smoke a b", 2, "auto, rdma, tcp"},
		{"send --method smoke a b", 2, "auto, copy, mmap, sendfile, splice"},
		{"send --method mmap --compress zstd a b", 2, "mmap moves pages as they are"},
		{"send --key-file " + key + " help h:", 2, "HOST[:PORT]"}, // a file's name, and a host's
		{"compare --sizes 2M h", 2, "from 1 to 1M"},
		{"compare --sizes 1M --depth 17 h", 2, "lower --depth"},
		{"compare --methods rdma,smoke h", 2, "mmap"},
		{"compare --rounds 0 h", 2, "from 1 to 1000"},
		{"compare --duration 1h h", 2, "5m"},
		{"compare --baseline /nowhere h", 7, "/nowhere"},
		{"compare --baseline " + typo + " h", 2, "not a report"},
		{"compare a h", 2, "one argument"},
		{"compare h", 2, "--key-file"},
		{"bench h", 2, "bw or lat"},
		{"bench bw --op rdma h", 2, "read, write, send"},
		{"bench lat --size 64,4K h", 2, "--size"},
		{"bench lat --op write --events h", 2, "no event"},
		{"bench lat --op send --depth 4 h", 2, "one message at a time"},
		{"bench lat --signal 4 h", 2, "one message at a time"},
		{"send --encrypt --transport rdma a b", 2, "payload over RDMA is clear"},
		{"send --encrypt --method sendfile a b", 2, "sendfile moves pages as they are"},
		{"send --encrypt --method splice a b", 2, "splice moves pages as they are"},
		{"recv --encrypt --transport rdma", 2, "payload over RDMA is clear"},
		{"send --ipv4 -6 a b", 2, "only one"},
		{"send --bind nowhere a b", 2, "ip address"},
		{"devices rxe_a", 2, "takes no arguments"},
		{"send --bind fe80::1 a b", 2, "fe80::1%eth0"},
		{"send --key-file " + key + " --bind ::ffff:169.254.1.1 /etc/hostname 127.0.0.1:1", 2, "no address of this host"},
		{"send --key-file " + key + " --bind fe80::1%nowhere /etc/hostname [::1]:1", 2, "no interface \"nowhere\""},
		{"send --key-file " + key + " --bind fe80::1%lo /etc/hostname 127.0.0.1:1", 2, "of the other kind"},
		{"send --dscp 64 a b", 2, "af43"},
		{"send --pacing fast a b", 2, "160Mbit/s"},
		{"send --send-buffer 1 a b", 2, "4M"},
		{"send --user-timeout 1us a b", 2, "24h"},
		{"recv --mss 10", 2, "32767"},
		{"recv --key-file " + key + " --congestion smoke", 2, "modprobe tcp_smoke"},
		{"send --key-file " + key + " --congestion smoke /etc/hostname 127.0.0.1:1", 2, "modprobe tcp_smoke"},
		{"send --key-file " + key + " --bind 192.0.2.1 /etc/hostname 127.0.0.1:1", 2, "no address of this host"},
		{"send --key-file " + key + " --bind ::1 /etc/hostname 127.0.0.1:1", 2, "of the other kind"},
		{"send --key-file " + key + " --ipv6 /etc/hostname 127.0.0.1:1", 4, "connecting to"},
		{"send --lanes 0 a b", 2, "from 1 to 64"},
		{"send --lanes 65 a b", 2, "from 1 to 64"},
		{"send --verify md5 a b", 2, "blake3, xxh3, crc32c, none"},
		{"send --key-file " + key + " /etc/hostname host:", 2, "HOST[:PORT]"},
		{"send /etc/hostname host", 2, "--key-file"},
		{"send --key-file /nowhere /etc/hostname host", 2, "keygen"},
		{"send --key-file " + open + " /etc/hostname host", 2, "chmod 600"},
		{"send --key-file " + typo + " /etc/hostname host", 2, "twelve words"},
		{"recv --key-file " + key + " --into /nowhere", 7, "mkdir -p"},
		{"recv --key-file " + key + " --listen 192.0.2.1:1", 4, "listening on"},
		{"recv --discard --into /tmp --key-file " + key, 2, "only one"},
		{"recv --clean --discard", 2, "only one"},
		{"recv --clean --stdout", 2, "only one"},
		{"recv --stdout --into /tmp --key-file " + key, 2, "only one"},
		{"recv --stdout --as f --key-file " + key, 2, "only one"},
		{"recv --stdout --json --key-file " + key, 2, "exit status"},
		{"recv --as /tmp --key-file " + key, 2, "--into"},
		{"recv --as /tmp/ --key-file " + key, 2, "--into"},
		{"recv --as /nowhere/f --key-file " + key, 7, "mkdir -p"},
		{"recv --dry-run --key-file " + key, 2, "--clean"},
		{"recv --memory 3M --key-file " + key, 2, "16MiB or more"},
		{"send --exclude [ a b", 2, "no pattern"},
		{"send --delete-source --verify none a b", 2, "leave out --verify none"},
		{"send --memory lots a b", 2, "16MiB or more"},
		{"recv --overwrite maybe --key-file " + key, 2, "never, newer, always"},
		{"recv", 2, "keygen"},
		{"keygen", 2, "FILE"},
		{"keygen " + key, 8, "exists"},
	} {
		t.Run(c.args, func(t *testing.T) {
			host{}.start(t, strings.Fields(c.args)...).want(c.code, c.words)
		})
	}
}

// TestSeveralStreams: both summaries tell the lanes, and what each carried. Methods are tried in what lasts.
func TestSeveralStreams(t *testing.T) {
	tt := newTransfer(t)
	const size = 1 << 30
	src := tt.sparse("src", size)
	r := tt.recv("--discard")
	s := tt.send("--transport", "tcp", "--lanes", "3", "--limit", "256MiB", src)
	for _, p := range []*proc{s, r} {
		sum := p.want(transfer.CodeOK)
		var bytes float64
		for _, l := range sum["each_lane"].([]any) {
			lane := l.(map[string]any)
			bytes += lane["bytes"].(float64)
			// The sender has found out what is fastest, and says so.
			chosen := p != s && lane["detail"] == "method=auto" || p == s && strings.Contains(lane["detail"].(string), "(auto: ")
			if lane["transport"] != "tcp" || !chosen || lane["detail"] != sum["detail"] {
				t.Errorf("%s: %v", p.name, lane)
			}
		}
		if sum["lanes"] != 3.0 || bytes != size {
			t.Errorf("%s: %v", p.name, sum)
		}
	}
}

// TestEncrypted: both ends say so, and why RDMA was not used; who must encrypt is told.
func TestEncrypted(t *testing.T) {
	tt := newTransfer(t)
	src := tt.file("src", mib)
	r := tt.recv("--encrypt")
	for _, p := range []*proc{tt.send("--encrypt", src), r} {
		sum := p.want(transfer.CodeOK)
		if sum["transport"] != "tcp" || sum["detail"] != "method=copy encrypted=tls1.3" || !strings.Contains(sum["reason"].(string), "over RDMA it is clear") {
			t.Errorf("%s: %v", p.name, sum)
		}
	}
	r = tt.recv("--encrypt")
	tt.send("--transport", "tcp", src).want(transfer.CodeUsage, "encrypted payload alone", "use send --encrypt")
	r.want(transfer.CodeUsage)
}

// TestSocketFlags: that they reach the sockets is tested beside those, here that both ends
// take them, and what they name.
func TestSocketFlags(t *testing.T) {
	tt := newTransfer(t)
	src := tt.file("src", mib)
	both := strings.Fields("-4 --send-buffer 128K --recv-buffer 64K --congestion reno --mss 1400 --dscp af11 --pacing 10Gbit/s --user-timeout 20s --notsent-lowat 128K")
	r := tt.recv(both...)
	tt.send(append(append(both, "--transport", "tcp", "--bind", "127.0.0.1", "--fast-open"), src)...).want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	for name, want := range map[string]int{"": 0, "0": 0, "63": 63, "ef": 46, "EF": 46, "le": 1, "cs7": 56, "af11": 10, "af43": 38} {
		if got, err := dscp(name); got != want || err != nil {
			t.Errorf("%q: %d, %v, want %d", name, got, err, want)
		}
	}
}

// TestSmallReceiveBuffer: a lane whose socket has room for less than is waited for moves it all.
func TestSmallReceiveBuffer(t *testing.T) {
	for _, landing := range []string{"copy", "splice"} {
		tt := newTransfer(t)
		src := tt.file("src", 9*mib+77)
		r := tt.recv("--recv-buffer", "4K", "--landing", landing)
		tt.send("--transport", "tcp", "--lanes", "1", src).want(transfer.CodeOK)
		r.want(transfer.CodeOK)
	}
}

func TestSummaryIsTheLastLine(t *testing.T) {
	tt := newTransfer(t)
	src := tt.file("src", mib)
	r := tt.recv()
	s := twoHosts[1].start(t, "send", "--transport", "tcp", "--key-file", tt.key, src, tt.addr)
	s.want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	lines := bytes.Split(bytes.TrimSpace(s.plain.Bytes()), []byte("\n"))
	last := string(lines[len(lines)-1])
	for _, w := range []string{"sent 1 file, 1.0 MiB in ", "/s · tcp streams=1 method=copy (rdma skipped: ", " · blake3 verified"} {
		if !strings.Contains(last, w) {
			t.Errorf("the last line lacks %q: %s", w, last)
		}
	}
}

// TestNobodyReadsTheReceiver: receipts that nobody reads do not hold up a transfer. The
// test reads 1,024 events before it waits for the receiver's end, and a pipe holds 64 KiB.
func TestNobodyReadsTheReceiver(t *testing.T) {
	const files = 6000
	tt := newTransfer(t)
	if err := os.Mkdir(filepath.Join(tt.dir, "tree"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range files {
		tt.file(fmt.Sprintf("tree/%04d", i), 0)
	}
	r := tt.recv("--no-sync")
	sent := tt.send("--transport", "tcp", filepath.Join(tt.dir, "tree")).want(transfer.CodeOK)
	got := r.want(transfer.CodeOK)
	if sent["files"] != float64(files) || got["files"] != float64(files) {
		t.Errorf("%v files were sent and %v received, want %d", sent["files"], got["files"], files)
	}
}
