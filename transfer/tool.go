package transfer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// ToolServer runs the receiver's end of somebody else's programs. It runs those that it
// has made up its mind about and no others, with arguments of its own making.
type ToolServer interface {
	// Serve runs the end that ask names, of a tool of RDMA's on the path rail, until done is
	// closed or ctx ends, and then until the program is gone. It calls ready once when the program listens; an error of that
	// is one of Serve.
	Serve(ctx context.Context, rail string, ask *wire.RunTool, ready func(*wire.ToolReady) error, done <-chan struct{}) (CPU, error)
}

// ToolAt is where the receiver's end of a tool can be reached.
type ToolAt struct {
	Addr  netip.AddrPort  // by the session's connection
	Local *wire.Candidate // of an RDMA tool: this host's address
	GID   [16]byte        // and the receiver's
	// Fabric is what both hosts' users want of the network.
	Fabric wire.Fabric
}

// graceToEnd is how long a tool's end may take to come up, and to end by itself when the
// other is over.
const graceToEnd = 10 * time.Second

// errNoTools is what a receiver answers that was not told to run programs.
var errNoTools = errorf(CodeUsage, "the receiver runs no programs for others: start it with recv --allow-peers")

// AllowsTools is an error that says how to mend it when the receiver runs no tools.
func (m *Meter) AllowsTools() error {
	if !m.p.welcome.Tools { // there is one since OpenMeter
		return errNoTools
	}
	return nil
}

// Tool has the receiver run its end of a tool, and calls client, which runs this host's,
// when that listens. CPU is the receiver's.
func (m *Meter) Tool(ctx context.Context, ask *wire.RunTool, client func(context.Context, ToolAt) error) (CPU, error) {
	if m.err != nil {
		return CPU{}, m.err
	}
	limit := time.Duration(ask.Nanoseconds)
	ctx, cancel := context.WithTimeoutCause(ctx, limit+3*graceToEnd, errorf(CodeConnect, "the receiver lives, and has not said for too long what became of the program that it should run"))
	defer cancel()
	if err := m.say(ask); err != nil {
		return CPU{}, err
	}
	var ran error
	for ready := false; ; ready = true {
		msg, err := m.event(ctx)
		if err != nil {
			return CPU{}, err
		}
		switch msg := msg.(type) {
		case *wire.ToolReady:
			if ready {
				return CPU{}, m.wrong(msg)
			}
			if ran, err = m.runClient(ctx, limit, ask, msg, client), m.say(&wire.ToolDone{}); err != nil {
				return CPU{}, err
			}
		case *wire.ToolEnded:
			if msg.Code != 0 {
				return CPU{}, errors.Join(ran, errorf(peerCode(msg.Code), "%s", Printable(msg.Reason)))
			}
			if !ready {
				return CPU{}, m.wrong(msg)
			}
			return cpuOf(msg.CPU), ran
		default:
			return CPU{}, m.wrong(msg)
		}
	}
}

// wrong ends the session over a message that does not belong there.
func (m *Meter) wrong(msg wire.Message) error {
	m.err = errorf(CodeOther, "%w: unexpected %T", wire.ErrMalformed, msg)
	return m.err
}

func (m *Meter) runClient(ctx context.Context, limit time.Duration, ask *wire.RunTool, ready *wire.ToolReady, client func(context.Context, ToolAt) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errorf(CodeConnect, "not finished after %v", limit))
	defer cancel()
	stop := context.AfterFunc(m.p.ctx, cancel)
	defer stop()
	peer, err := netip.ParseAddrPort(m.p.s.conn.RemoteAddr().String())
	if err != nil {
		return fmt.Errorf("the receiver's address: %w", err)
	}
	at := ToolAt{Addr: netip.AddrPortFrom(peer.Addr().Unmap(), ready.Port), GID: ready.GID}
	if ask.Tool.RDMA() {
		if at.Local, at.Fabric, err = m.p.guide.candidate(ready.Candidate); err != nil {
			return err
		}
		if ready.Fabric != nil {
			at.Fabric = at.Fabric.Or(ready.Fabric)
		}
	}
	return causeOf(ctx, client(ctx, at))
}

// runTool runs this end of a tool for the sender, and answers what became of it.
func (p *pull) runTool(ask *wire.RunTool) *wire.ToolEnded {
	ended := new(wire.ToolEnded)
	cpu, err := p.serveTool(ask)
	if err != nil && p.ctx.Err() == nil && !errors.Is(err, errNoTools) {
		err = fmt.Errorf("the receiver's end: %w", err)
	}
	if err != nil {
		ended.Code, ended.Reason = uint8(min(CodeOf(err), CodeNoRDMA)), wire.Clip(err.Error())
	}
	ended.CPU = cpu.wire()
	return ended
}

func (p *pull) serveTool(ask *wire.RunTool) (CPU, error) {
	if p.Tools == nil {
		return CPU{}, errNoTools
	}
	if rdma, tcp, reason := p.lanes.policy(); ask.Tool.RDMA() && !rdma {
		return CPU{}, errorf(CodeNoRDMA, "%s", reason)
	} else if !ask.Tool.RDMA() && !tcp {
		return CPU{}, errorf(CodeUsage, "the receiver was told to use %s", p.Transport)
	}
	ctx, cancel := context.WithTimeoutCause(p.ctx, time.Duration(ask.Nanoseconds)+2*graceToEnd, errorf(CodeConnect, "not finished %v after it should have been", 2*graceToEnd))
	defer cancel()
	select { // the word about one that was given up before
	case <-p.toolDone:
	default:
	}
	var rail string
	if ask.Tool.RDMA() {
		var err error
		if rail, err = p.measuredRail(); err != nil {
			return CPU{}, err
		}
	}
	busy, soft := hostBusy()
	told := false
	cpu, err := p.Tools.Serve(ctx, rail, ask, func(ready *wire.ToolReady) error {
		told = true
		return p.s.Send(ready)
	}, p.toolDone)
	if told && err != nil {
		// The sender's end finds that out by itself, and says that it is over.
		select {
		case <-p.toolDone:
		case <-ctx.Done():
		}
	}
	busyThen, softThen := hostBusy()
	cpu.Host, cpu.SoftIRQ = max(0, busyThen-busy), max(0, softThen-soft)
	return cpu, causeOf(ctx, err)
}
