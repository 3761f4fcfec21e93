//go:build rxe

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// randomFault is one thing that breaks.
type randomFault struct {
	name   string
	files  bool            // needs files: a stream can't have it
	before func(*faultRun) // the transfer starts
	strike func(*faultRun) // at the moment
	during func(*faultRun) // what follows while the transfer goes on, or ends
	mend   func(*faultRun) // when it has ended
	want   func(*faultRun) (recv, send []int)
}

// randomFaults is the contract: which exit codes each fault allows.
var randomFaults = []randomFault{
	{name: "none", want: fine},

	{name: "rdma cut", strike: faultVerb("cut-rdma"), mend: faultVerb("heal"), want: withoutRDMA},
	{name: "rdma cut for a while", strike: faultVerb("cut-rdma"), during: healed, want: fine},
	{name: "device removed", strike: (*faultRun).removeDevice, mend: (*faultRun).restoreDevice, want: withoutRDMA},
	{name: "device removed and added", strike: (*faultRun).removeDevice, during: (*faultRun).restoreDevice, want: fine},

	{name: "loss", strike: faultVerb("loss", "1%"), mend: faultVerb("netem-off"), want: fine},
	{name: "duplicates", strike: faultVerb("duplicate", "2%"), mend: faultVerb("netem-off"), want: fine},
	{name: "wrong bits", strike: faultVerb("corrupt", "0.3%"), mend: faultVerb("netem-off"), want: fine},
	// rdma_rxe goes back to the first packet that is missing, and gives up after so many
	// times within one message: with 25 % it gets nowhere.
	{name: "reorder", strike: func(x *faultRun) {
		faultVerb("delay", "1ms")(x)
		faultVerb("reorder", "1%")(x)
	}, mend: faultVerb("netem-off"), want: fine},

	{name: "killed", strike: signalled(syscall.SIGKILL), want: victimEnds(137)},
	{name: "interrupted", strike: signalled(syscall.SIGINT), want: victimEnds(130)},
	{name: "stopped for 2 s", strike: signalled(syscall.SIGSTOP), during: func(x *faultRun) {
		time.Sleep(2 * time.Second) // less than the silence that ends a session
		signalled(syscall.SIGCONT)(x)
	}, want: fine},
	{name: "stopped for too long", strike: signalled(syscall.SIGSTOP), during: func(x *faultRun) {
		select {
		case <-x.other().ended:
		case <-time.After(patience):
		}
		signalled(syscall.SIGCONT)(x)
	}, want: victimEnds(4)},

	// Every TCP connection of the host is reset: the control connection, and TCP lanes.
	{name: "tcp reset", strike: func(x *faultRun) {
		on(x.t, x.host, "ss", "--kill", "--tcp", "--no-header", "state", "established")
	}, want: both(4)},
	{name: "link down", strike: func(x *faultRun) { faultVerb("link-down", x.host)(x) }, mend: faultVerb("link-up"), want: both(4)},

	{name: "disk full", before: (*faultRun).smallDisk, strike: (*faultRun).fillDisk, mend: (*faultRun).emptyDisk, want: someFail},
	{name: "source changed", files: true, strike: (*faultRun).changeSource, want: someFail},
}

func fine(*faultRun) (recv, send []int) { return []int{0}, []int{0} }

func both(code int) func(*faultRun) (recv, send []int) {
	return func(*faultRun) (recv, send []int) { return []int{code}, []int{code} }
}

// withoutRDMA: who requires it fails, others finish over TCP.
func withoutRDMA(x *faultRun) (recv, send []int) {
	if x.transport == "rdma" {
		return both(9)(x)
	}
	return fine(x)
}

// victimEnds: the other end says that its peer is gone.
func victimEnds(code int) func(*faultRun) (recv, send []int) {
	return func(x *faultRun) (recv, send []int) {
		if x.victim == "recv" {
			return []int{code}, []int{4}
		}
		return []int{4}, []int{code}
	}
}

// someFail: of a tree, others may have landed.
func someFail(x *faultRun) (recv, send []int) {
	if x.what == "tree" {
		return []int{5, 7}, []int{5, 7}
	}
	return both(7)(x)
}

func faultVerb(args ...string) func(*faultRun) {
	return func(x *faultRun) { run(x.t, append([]string{"../../testbed/faults"}, args...)...) }
}

// healed mends RDMA: where TCP takes over, when it has.
func healed(x *faultRun) {
	if x.transport == "auto" {
		for e := x.nextPlan(x.r); e != nil && e["transport"] != "tcp"; e = x.nextPlan(x.r) {
		}
	}
	faultVerb("heal")(x)
}

func (x *faultRun) removeDevice()  { faultVerb("remove-device", x.host)(x) }
func (x *faultRun) restoreDevice() { faultVerb("restore-device", x.host)(x) }

func (x *faultRun) other() *proc {
	if x.victim == "recv" {
		return x.s
	}
	return x.r
}

// signalled sends the victim a signal, if it is still there.
func signalled(sig syscall.Signal) func(*faultRun) {
	return func(x *faultRun) {
		p := x.r
		if x.victim == "send" {
			p = x.s
		}
		_ = p.cmd.Process.Signal(sig)
	}
}

// smallDisk gives the destination a file system of its own, little larger than what it
// is to hold.
func (x *faultRun) smallDisk() {
	mount(x.t, x.into, fmt.Sprintf("size=%dk", (x.total+mib)>>10))
}

func (x *faultRun) filler() string { return filepath.Join(x.into, ".filler") }

// fillDisk takes all the room that is left.
func (x *faultRun) fillDisk() {
	f, err := os.Create(x.filler())
	if err != nil {
		return // no room for that
	}
	defer f.Close()
	for b := make([]byte, 4096); err == nil; {
		_, err = f.Write(b)
	}
}

func (x *faultRun) emptyDisk() { _ = os.Remove(x.filler()) }

// changeSource writes into the large file.
func (x *faultRun) changeSource() {
	f, err := os.OpenFile(x.large(), os.O_WRONLY, 0)
	if err != nil {
		x.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("changed"), x.size/3); err != nil {
		x.t.Fatal(err)
	}
}
