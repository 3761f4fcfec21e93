package transfer

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// CPU is time that processors spent meanwhile.
type CPU struct {
	User, System time.Duration // in and for the process (getrusage(2))
	// Host is what the whole host was busy (/proc/stat): it has the kernel's threads and
	// interrupts too, and whatever else ran there. SoftIRQ is the part of it that served
	// software interrupts: of network cards most of all.
	Host, SoftIRQ time.Duration
}

// Memory is what a process has, bytes.
type Memory struct {
	Anonymous int64 // resident, and of no file
	Pinned    int64 // that devices hold
	Peak      int64 // the most that was resident since the process began, files' pages too
}

// spent is what processors have spent so far.
func spent() CPU {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // EFAULT and EINVAL are all there is
	}
	busy, soft := hostBusy()
	return CPU{time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano()), busy, soft}
}

func (c CPU) since(before CPU) CPU {
	return CPU{c.User - before.User, c.System - before.System, max(0, c.Host-before.Host), max(0, c.SoftIRQ-before.SoftIRQ)}
}

func (c CPU) wire() wire.CPU {
	return wire.CPU{User: int64(c.User), System: int64(c.System), Host: int64(c.Host), SoftIRQ: int64(c.SoftIRQ)}
}

func cpuOf(c wire.CPU) CPU {
	return CPU{time.Duration(c.User), time.Duration(c.System), time.Duration(c.Host), time.Duration(c.SoftIRQ)}
}

// hostBusy adds up what the host's processors did but idle and wait. 0 where the kernel does not say.
func hostBusy() (busy, soft time.Duration) {
	busy, soft, _ = hostTicks(hostLine())
	return busy, soft
}

// hostIdle adds up how long the host's processors had nothing to do; as if one never had where
// the kernel does not say.
func hostIdle() time.Duration {
	_, _, idle := hostTicks(hostLine())
	if idle == 0 {
		return oneIdle()
	}
	return idle
}

// oneIdle is what hostIdle is of a host of which one processor never has anything to do.
func oneIdle() time.Duration { return time.Duration(time.Now().UnixNano()) }

// hostLine is the first line of /proc/stat, of all processors; nil where there is none.
func hostLine() []byte {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return line
}

// hostTicks reads that line (proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; in
// ticks, which are 10 ms for every program).
func hostTicks(line []byte) (busy, soft, idle time.Duration) {
	const tick = 10 * time.Millisecond
	for i, word := range bytes.Fields(line) {
		n, err := strconv.ParseInt(string(word), 10, 64)
		if err != nil {
			continue // the line's name
		}
		if i >= 1 && i <= 3 || i == 6 || i == 7 {
			busy += time.Duration(n) * tick
		}
		if i == 4 || i == 5 {
			idle += time.Duration(n) * tick
		}
		if i == 7 {
			soft = time.Duration(n) * tick
		}
	}
	return busy, soft, idle
}

// memoryUsed is what this process has now; zeroes where the kernel does not say.
func memoryUsed() Memory {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return Memory{}
	}
	return memoryOf(b)
}

// memoryOf reads /proc/PID/status (proc_pid_status(5)), whose sizes are in KiB.
func memoryOf(status []byte) (m Memory) {
	for line := range bytes.Lines(status) {
		words := bytes.Fields(line)
		if len(words) < 2 {
			continue
		}
		n, err := strconv.ParseInt(string(words[1]), 10, 64)
		if err != nil {
			continue
		}
		switch n <<= 10; string(words[0]) {
		case "RssAnon:":
			m.Anonymous = n
		case "VmPin:":
			m.Pinned = n
		case "VmHWM:":
			m.Peak = n
		}
	}
	return m
}
