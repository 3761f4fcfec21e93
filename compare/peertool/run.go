// Package peertool runs other people's programs that measure, on both hosts of a
// session: perftest, qperf and iperf3.
//
// The receiving host runs the listening end ([Server]). Which programs there are, where
// they are looked for (PATH) and what they are told is decided here: of the peer it takes
// numbers alone, which the wire's bounds have been applied to.
package peertool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// packages are what brings the programs.
var packages = map[string]string{"qperf": "qperf", "iperf3": "iperf3", "fio": "fio"}

// find looks a program up.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		from := packages[name]
		if from == "" {
			from = "perftest"
		}
		return "", &transfer.Error{Code: transfer.CodeUsage, Err: fmt.Errorf("%s is not installed (apt install %s)", name, from)}
	}
	return path, nil
}

// mostOutput is how much a program may say, bytes: a latency a line, and some words.
const mostOutput = 32 << 20

// output keeps what a program says, up to a bound.
type output struct{ bytes.Buffer }

func (o *output) Write(b []byte) (int, error) {
	if o.Len()+len(b) > mostOutput {
		return 0, errors.New("the program says too much")
	}
	return o.Buffer.Write(b)
}

// tail is the last of what a program said.
func (o *output) tail() string {
	lines := strings.Split(strings.TrimSpace(o.String()), "\n")
	return transfer.Printable(strings.Join(lines[max(0, len(lines)-3):], "; "))
}

// process is a program that runs.
type process struct {
	cmd   *exec.Cmd
	said  *output
	ended chan struct{} // closed when it has, and err is set
	err   error
}

// killDelay is how long output may keep coming from what a killed program left behind.
const killDelay = time.Second

// start starts a program in the root directory, startIn in any. It ends with ctx, and with
// this process: also when that is killed, which is why a thread stays for it.
func start(ctx context.Context, name string, args []string) (*process, error) {
	return startIn(ctx, "/", name, args)
}

func startIn(ctx context.Context, dir, name string, args []string) (*process, error) {
	path, err := find(name)
	if err != nil {
		return nil, err
	}
	p := &process{said: new(output), ended: make(chan struct{})}
	p.cmd = exec.CommandContext(ctx, path, args...)
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.Cancel = func() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }
	p.cmd.WaitDelay = killDelay
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the signal comes when the thread that started it ends
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return p, nil
}

// failed says what the program ended with, in its own words.
func (p *process) failed() error {
	return fmt.Errorf("%s: %w: %s", p.cmd.Args[0][strings.LastIndexByte(p.cmd.Args[0], '/')+1:], p.err, p.said.tail())
}

// cpu is what it took, once it has ended.
func (p *process) cpu() transfer.CPU {
	s := p.cmd.ProcessState
	return transfer.CPU{User: s.UserTime(), System: s.SystemTime()}
}

// run runs a program to its end, in the root directory; runIn in any.
func run(ctx context.Context, name string, args []string) (string, transfer.CPU, error) {
	return runIn(ctx, "/", name, args)
}

func runIn(ctx context.Context, dir, name string, args []string) (string, transfer.CPU, error) {
	p, err := startIn(ctx, dir, name, args)
	if err != nil {
		return "", transfer.CPU{}, err
	}
	<-p.ended
	if p.err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return "", p.cpu(), fmt.Errorf("%s: %w", name, cause)
		}
		return "", p.cpu(), p.failed()
	}
	return p.said.String(), p.cpu(), nil
}
