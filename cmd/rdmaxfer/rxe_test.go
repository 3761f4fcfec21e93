//go:build rxe

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// With the tag rxe the tests of this package run between the two hosts of the
// testbed's pair (testbed/vm --pair -- ...) and over RDMA. Where there is no pair
// they fail.

const softroce = "../../testbed/softroce"

func init() {
	transports = []string{transfer.TransportRDMA}
	twoHosts[0] = host{exec: []string{softroce, "exec", "a", "--"}, addr: "10.0.0.1"}
	twoHosts[1] = host{exec: []string{softroce, "exec", "b", "--"}, addr: "10.0.0.2"}
}

// run runs a command of the testbed.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return string(out)
}

// on runs a command on host a or b.
func on(t *testing.T, name string, argv ...string) string {
	t.Helper()
	return run(t, append([]string{softroce, "exec", name, "--"}, argv...)...)
}

// fault sets a fault and undoes it at the end of the test.
func fault(t *testing.T, verb, undo string) {
	t.Helper()
	run(t, append([]string{"../../testbed/faults"}, strings.Fields(verb)...)...)
	t.Cleanup(func() { run(t, "../../testbed/faults", undo) })
}

func packets(t *testing.T, device, counter string) int {
	t.Helper()
	b, err := os.ReadFile("/sys/class/infiniband/" + device + "/ports/1/hw_counters/" + counter)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestBytesCrossTheDevice(t *testing.T) {
	const size = 8 * mib
	for _, transport := range []string{transfer.TransportRDMA, transfer.TransportTCP} {
		tt := newTransfer(t)
		src := tt.file("src", size)
		before := packets(t, "rxe_a", "rcvd_pkts")
		r := tt.recv()
		tt.send("--transport", transport, src).want(transfer.CodeOK)
		r.want(transfer.CodeOK)
		n := packets(t, "rxe_a", "rcvd_pkts") - before
		if transport == transfer.TransportRDMA && n < size/4096 {
			t.Errorf("%d bytes over RDMA, and %d packets through the device", size, n)
		}
		if transport == transfer.TransportTCP && n > 10 {
			t.Errorf("TCP was asked for, and %d packets crossed the RDMA device", n)
		}
	}
}

func TestAutoTakesRDMA(t *testing.T) {
	tt := newTransfer(t)
	r := tt.recv()
	s := tt.send(tt.file("src", mib))
	for _, p := range []*proc{r, s} {
		if e := p.await("plan"); e["transport"] != "rdma" || e["reason"] != "" {
			t.Errorf("%s: %v", p.name, e)
		}
		p.want(transfer.CodeOK)
	}
}

func TestRDMARequired(t *testing.T) {
	tt := newTransfer(t)
	src := tt.file("src", mib)
	// The sender insists, the receiver was told otherwise.
	r := tt.recv("--transport", "tcp")
	tt.send("--transport", "rdma", src).want(transfer.CodeNoRDMA, "told to use tcp")
	r.want(transfer.CodeNoRDMA)
	tt.nothingLeft()
}

// TestRDMACutBeforeTheStart: queue pairs come up, but no packet passes.
func TestRDMACutBeforeTheStart(t *testing.T) {
	fault(t, "cut-rdma", "heal")
	tt := newTransfer(t)
	src := tt.file("src", mib)
	r := tt.recv()
	tt.send("--transport", "rdma", src).want(transfer.CodeNoRDMA, "UDP port 4791")
	r.want(transfer.CodeNoRDMA, "UDP port 4791")
	tt.nothingLeft()

	r = tt.recv()
	s := tt.send("--transport", "auto", src)
	if e := s.await("plan"); e["transport"] != "tcp" || !strings.Contains(e["reason"].(string), "UDP port 4791") {
		t.Errorf("plan: %v", e)
	}
	s.want(transfer.CodeOK)
	r.want(transfer.CodeOK)
}

// TestRDMACutInTheMiddle: auto goes on over TCP, rdma fails.
func TestRDMACutInTheMiddle(t *testing.T) {
	t.Run("auto", func(t *testing.T) {
		tt := newTransfer(t)
		src := tt.file("src", 96*mib)
		r := tt.recv()
		s := tt.send("--transport", "auto", src)
		if e := s.await("plan"); e["transport"] != "rdma" {
			t.Fatalf("plan: %v", e)
		}
		fault(t, "cut-rdma", "heal")
		sum := s.want(transfer.CodeOK)
		r.want(transfer.CodeOK)
		if sum["transport"] != "tcp" || !strings.Contains(sum["reason"].(string), "lane lost") {
			t.Errorf("summary: %v", sum)
		}
		if got, want := b3sum(t, filepath.Join(tt.into, "src")), b3sum(t, src); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
	t.Run("rdma", func(t *testing.T) {
		tt := newTransfer(t)
		src := tt.sparse("src", 1<<30)
		r := tt.recv()
		s := tt.send("--transport", "rdma", src)
		s.await("plan")
		fault(t, "cut-rdma", "heal")
		s.want(transfer.CodeNoRDMA, "lost")
		r.want(transfer.CodeNoRDMA, "lost")
		tt.partsLeft()
	})
}

func TestMemlockTooSmall(t *testing.T) {
	small := []string{"setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "prlimit", "--memlock=65536"}
	for _, side := range []string{"recv", "send"} {
		t.Run(side, func(t *testing.T) {
			tt := newTransfer(t)
			src := tt.file("src", mib)
			var rwrap, swrap []string
			if side == "recv" {
				rwrap = small
			} else {
				swrap = small
			}
			r := tt.recvWith(rwrap)
			tt.sendWith(swrap, "--transport", "rdma", src).want(transfer.CodeNoRDMA, "64 KiB of locked memory", "ulimit -l unlimited")
			r.want(transfer.CodeNoRDMA, "ulimit -l unlimited")
			r = tt.recvWith(rwrap)
			s := tt.sendWith(swrap, src)
			if e := s.await("plan"); e["transport"] != "tcp" || !strings.Contains(e["reason"].(string), "64 KiB") {
				t.Errorf("plan: %v", e)
			}
			s.want(transfer.CodeOK)
			r.want(transfer.CodeOK)
		})
	}
	// What many distributions give an ordinary user is enough for a lane with less in flight.
	small[4] = "--memlock=8388608"
	for _, side := range []string{"recv", "send"} {
		tt := newTransfer(t)
		src := tt.file("src", 20*mib)
		var rwrap, swrap []string
		if side == "recv" {
			rwrap = small
		} else {
			swrap = small
		}
		r := tt.recvWith(rwrap)
		tt.sendWith(swrap, "--transport", "rdma", src).want(transfer.CodeOK)
		r.want(transfer.CodeOK)
	}
}

// notThere expects that RDMA is required in vain on host a, for a reason, and that
// auto takes TCP. Both ends run on host a: its link may be down.
func notThere(t *testing.T, words ...string) {
	t.Helper()
	saved := twoHosts
	defer func() { twoHosts = saved }()
	twoHosts[1] = twoHosts[0]
	twoHosts[0].addr, twoHosts[1].addr = "127.0.0.1", "127.0.0.1"
	tt := newTransfer(t)
	src := tt.file("src", mib)
	r := twoHosts[0].start(t, "recv", "--json", "--transport", "rdma", "--key-file", tt.key, "--into", tt.into)
	r.want(transfer.CodeNoRDMA, words...)
	rr := tt.recv()
	s := tt.send(src)
	if e := s.await("plan"); e["transport"] != "tcp" {
		t.Errorf("plan: %v", e)
	} else {
		for _, w := range words {
			if !strings.Contains(e["reason"].(string), w) {
				t.Errorf("the reason lacks %q: %v", w, e["reason"])
			}
		}
	}
	s.want(transfer.CodeOK)
	rr.want(transfer.CodeOK)
}

// TestNoPath takes the pair apart step by step.
func TestNoPath(t *testing.T) {
	defer run(t, softroce, "pair")
	defer run(t, softroce, "down")
	on(t, "a", "ip", "link", "set", "v_a", "down")
	notThere(t, "rxe_a port 1 is DOWN", "ip link set dev")
	on(t, "a", "ip", "link", "set", "v_a", "up")
	on(t, "a", "ip", "addr", "flush", "dev", "v_a")
	notThere(t, "rxe_a port 1 has no usable GID", "ip addr add")
	run(t, "rdma", "link", "delete", "rxe_a")
	run(t, "rdma", "link", "delete", "rxe_b")
	notThere(t, "no RDMA device")
}

func TestDeviceRemovedInTheMiddle(t *testing.T) {
	tt := newTransfer(t)
	src := tt.file("src", 96*mib)
	r := tt.recv()
	s := tt.send(src)
	s.await("plan")
	run(t, "rdma", "link", "delete", "rxe_a")
	defer run(t, softroce, "pair")
	defer run(t, softroce, "down")
	s.want(transfer.CodeOK)
	r.want(transfer.CodeOK, "removed")
	if got, want := b3sum(t, filepath.Join(tt.into, "src")), b3sum(t, src); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func mount(t *testing.T, dir, opts string) {
	t.Helper()
	run(t, "mount", "-t", "tmpfs", "-o", opts, "tmpfs", dir)
	t.Cleanup(func() { run(t, "umount", dir) })
}

// TestDestinationFull: what can be seen at once is said at once; what only shows
// while writing, because others fill the disk meanwhile, is an error too.
func TestDestinationFull(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		tt := newTransfer(t)
		mount(t, tt.into, "size=32m")
		src := tt.file("src", 33*mib)
		r := tt.recv()
		tt.send("--transport", transport, src).want(transfer.CodeLocalIO, "make room")
		r.want(transfer.CodeLocalIO, "no space left")
		tt.nothingLeft()

		src = tt.file("two", 30*mib)
		r = tt.recv()
		s := tt.send("--transport", transport, src)
		r.await("plan")
		if err := os.WriteFile(filepath.Join(tt.into, "other"), make([]byte, 24*mib), 0o600); err != nil {
			t.Log(err) // full is full, whoever came first
		}
		s.want(transfer.CodeLocalIO, "make room")
		r.want(transfer.CodeLocalIO, "no space left")
		os.Remove(filepath.Join(tt.into, "other"))
		tt.partsLeft()
	})
}

// TestResumeTakesNoMoreRoom: what had landed need not fit once more.
func TestResumeTakesNoMoreRoom(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		tt := newTransfer(t)
		mount(t, tt.into, "size=50m")
		src := tt.file("src", 48*mib)
		r := tt.recv()
		s := tt.send("--transport", transport, "--limit", "8M", src)
		tt.awaitBytes(36 * mib)
		r.signal(syscall.SIGINT)
		r.want(130)
		s.want(transfer.CodeConnect, "stopped by a signal")
		r = tt.recv()
		sum := tt.send("--transport", transport, src).want(transfer.CodeOK)
		r.want(transfer.CodeOK)
		if resumed, _ := sum["resumed_bytes"].(float64); resumed < 16*mib {
			t.Errorf("summary: %v", sum)
		}
	})
}

func TestDestinationNotWritable(t *testing.T) {
	tt := newTransfer(t)
	mount(t, tt.into, "ro")
	twoHosts[0].start(t, "recv", "--json", "--key-file", tt.key, "--into", tt.into).want(transfer.CodeLocalIO, "not writable", "--into")
}

// TestManyTransfersOneReceiver opens and closes lanes again and again: what leaks
// a device's resources or a descriptor shows in the receiver's own.
func TestManyTransfersOneReceiver(t *testing.T) {
	tt := newTransfer(t)
	tt.receiver = twoHosts[0].start(t, "recv", "--json", "--listen", twoHosts[0].addr+":0", "--key-file", tt.key, "--discard")
	tt.addr = tt.receiver.await("listening")["address"].(string)
	src := tt.file("src", mib)
	open := func() int {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", tt.receiver.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	transferOnce := func() {
		tt.send("--transport", "rdma", src).want(transfer.CodeOK)
		tt.receiver.await("summary")
	}
	transferOnce()
	// The session's descriptors close after its summary: wait until they have.
	settle := func(most int) int {
		n := open()
		for end := time.Now().Add(patience); n > most && time.Now().Before(end); n = open() {
		}
		return n
	}
	base := settle(0x7fffffff)
	for range 5 {
		transferOnce()
	}
	if n := settle(base); n > base {
		t.Errorf("%d descriptors after six transfers, %d after one", n, base)
	}
	tt.receiver.signal(syscall.SIGTERM)
	tt.receiver.want(143)
}
