package transfer

import (
	"context"
	"fmt"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// PathFinder asks a receiver how RDMA reaches it.
type PathFinder struct {
	Addr    string // host:port of the receiver
	Key     Key
	Sockets Sockets
	RDMA    ServeTransport
}

// findLimit is how long that may take: no more than a few seconds, if nothing hangs.
const findLimit = 20 * time.Second

// Find has every pair of addresses of the two hosts tried. That there is no path is no
// error, but a report that says why.
func (f *PathFinder) Find(ctx context.Context) (*PathReport, error) {
	s, err := f.Sockets.dialSession(ctx, f.Addr, f.Key)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	ctx, stop := context.WithTimeoutCause(ctx, findLimit, errorf(CodeConnect, "%s lives, and has not said within %v which paths there are: is RDMA hanging in its kernel?", f.Addr, findLimit))
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, s.hurry)()
	var report *PathReport
	p := &push{Sender: &Sender{Transport: TransportAuto, Op: TransportAuto, Verify: VerifyNone, RDMA: f.RDMA}, s: s, ctx: ctx, cancel: cancel, guide: new(guide)}
	ended, gone := s.attend(func() error {
		if err := p.greet(&wire.Hello{Version: wire.Version, Transport: p.Transport, Op: p.Op, Verify: p.Verify, PathsOnly: true}); err != nil {
			return err
		}
		p.guide.found = func(r *PathReport) { report = r }
		for report == nil {
			m, err := s.Receive()
			if err != nil {
				return err
			}
			if err := p.aboutPaths(m); err != nil {
				return err
			}
		}
		return nil
	})
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		s.abort(err, gone)
	}
	cancel(err)
	s.Close()
	<-gone // it starts what answers
	p.lanes.Wait()
	p.guide.end()
	if err != nil {
		return nil, err
	}
	return report, nil
}

// greet says Hello, with where this host's RDMA can be reached.
func (p *push) greet(hello *wire.Hello) error {
	if p.RDMA != nil && p.Transport != TransportTCP && !p.Encrypt {
		p.RDMA.Offer(hello)
	}
	p.guide = newGuide(p.s, p.RDMA, hello.RDMA, p.pathsFound)
	return p.s.Send(hello)
}

// pathsFound passes on what the receiver has found out.
func (p *push) pathsFound(r *PathReport) {
	p.tell(p.Observer, func(o Observer) { o.Paths(r) })
}

// aboutPaths handles what a receiver may say that was asked for paths.
func (p *push) aboutPaths(m wire.Message) error {
	if mine, err := p.guide.hear(m); mine {
		return err
	}
	switch m := m.(type) {
	case *wire.Welcome:
		if m.Version != wire.Version {
			return errorf(CodeOther, "the receiver speaks version %d of the protocol, this host %d: install the same rdmaxfer on both", m.Version, wire.Version)
		}
		return nil
	case *wire.Abort:
		return p.s.fromPeer(m)
	}
	return fmt.Errorf("%w: unexpected %T", wire.ErrMalformed, m)
}
