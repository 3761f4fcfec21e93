package peertool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Server is the listening end of the tools: a [transfer.ToolServer].
type Server struct {
	// Rail gives the RDMA addresses of both hosts, of a path that was found, and what is
	// wanted of it.
	Rail func(name string) (mine wire.Candidate, remote uint16, f wire.Fabric, err error)
}

// listenLimit is how long a program may take until it listens; endLimit how long one that
// ends by itself may take to do so after the other end has.
const (
	listenLimit = 10 * time.Second
	endLimit    = 5 * time.Second
)

// Serve is [transfer.ToolServer].Serve.
func (s Server) Serve(ctx context.Context, rail string, ask *wire.RunTool, ready func(*wire.ToolReady) error, done <-chan struct{}) (transfer.CPU, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var told wire.ToolReady
	var mine wire.Candidate
	var fabric wire.Fabric
	var err error
	if ask.Tool.RDMA() {
		if mine, told.Candidate, fabric, err = s.Rail(rail); err != nil {
			return transfer.CPU{}, &transfer.Error{Code: transfer.CodeNoRDMA, Err: err}
		}
		told.GID = mine.GID
		if fabric != (wire.Fabric{}) {
			told.Fabric = &fabric
		}
	}
	if told.Port, err = freePort(); err != nil {
		return transfer.CPU{}, err
	}
	name, args, endsItself := serverCommand(ask, &mine, &fabric, told.Port)
	p, err := start(ctx, name, args)
	if err != nil {
		return transfer.CPU{}, err
	}
	defer func() {
		cancel()
		<-p.ended
	}()
	if err := awaitListening(ctx, p, told.Port); err != nil {
		return transfer.CPU{}, fmt.Errorf("%s: %w", name, err)
	}
	if err := ready(&told); err != nil {
		return transfer.CPU{}, err
	}
	select {
	case <-done:
	case <-ctx.Done():
		return transfer.CPU{}, fmt.Errorf("%s: %w", name, context.Cause(ctx))
	}
	late := time.NewTimer(endLimit)
	defer late.Stop()
	if endsItself {
		select {
		case <-p.ended:
			if p.err != nil {
				return p.cpu(), p.failed()
			}
			return p.cpu(), nil
		case <-late.C:
			return transfer.CPU{}, fmt.Errorf("%s: still here %v after the sender's end was over: %s", name, endLimit, p.said.tail())
		case <-ctx.Done():
			return transfer.CPU{}, context.Cause(ctx)
		}
	}
	// It would serve for ever. What it forked for this run has to end first: until then
	// that one's CPU time is not the program's.
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for forked(p.cmd.Process.Pid) {
		select {
		case <-tick.C:
			continue
		case <-late.C:
		case <-ctx.Done():
		}
		break
	}
	cancel()
	<-p.ended
	return p.cpu(), nil
}

// forked says whether a process has children.
func forked(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	return err == nil && len(b) > 0
}

// freePort is one that nothing listens on. (What takes it in between has the program
// fail, which is reported.)
func freePort() (uint16, error) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		return 0, fmt.Errorf("a port to measure at: %w", err)
	}
	return uint16(l.Addr().(*net.TCPAddr).Port), l.Close()
}

// awaitListening waits until the program listens at a port. Nothing tells when: the
// kernel's table is read until it does.
func awaitListening(ctx context.Context, p *process, port uint16) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(listenLimit)
	defer late.Stop()
	for {
		if found, err := listening(port); found || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return fmt.Errorf("ended before it listened (%v): %s", p.err, p.said.tail())
		case <-late.C:
			return fmt.Errorf("does not listen after %v: %s", listenLimit, p.said.tail())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// listening looks for a socket in the state LISTEN (0A) in /proc/net/tcp and tcp6
// (proc_net_tcp(5): sl, local_address, rem_address, st, …, numbers in hexadecimal).
func listening(port uint16) (bool, error) {
	suffix := fmt.Sprintf(":%04X", port)
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		f, err := os.Open(table)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return false, err
		}
		found := false
		for lines := bufio.NewScanner(f); lines.Scan() && !found; {
			words := strings.Fields(lines.Text())
			found = len(words) > 3 && strings.HasSuffix(words[1], suffix) && words[3] == "0A"
		}
		f.Close()
		if found {
			return true, nil
		}
	}
	return false, nil
}
