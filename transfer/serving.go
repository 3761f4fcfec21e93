package transfer

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// maxRing bounds the memory that a receiver may make one lane pin here, bytes. It
// asks for a quarter of that.
const maxRing = 64 << 20

// beginLane makes room for a lane and opens it. A receiver that asks for more than
// any receiver does is an error.
func (p *push) beginLane(open *wire.OpenLane) error {
	if p.opened++; p.opened > maxOpened {
		return fmt.Errorf("%w: a lane too many (%d)", wire.ErrMalformed, p.opened)
	}
	ctx, cancel := context.WithCancel(p.ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.serving[open.ID] != nil {
		cancel()
		return fmt.Errorf("%w: lane %d again", wire.ErrMalformed, open.ID)
	}
	p.serving[open.ID] = cancel
	p.lanes.Go(func() { p.openLane(ctx, open) })
	return nil
}

// mayOpen says why not. What the user told this end holds, whatever the receiver
// makes of it.
func (p *push) mayOpen(open *wire.OpenLane) error {
	p.mu.Lock()
	alive := len(p.serving)
	p.mu.Unlock()
	switch {
	case open.RDMA != nil && p.Transport == TransportTCP, open.TCP != nil && p.Transport == TransportRDMA:
		return errors.New("the sender was told to use " + p.Transport)
	case open.RDMA != nil && p.Encrypt:
		return errors.New("the sender was told to encrypt, and the payload over RDMA is clear")
	case int64(open.Depth)*int64(p.welcome.ExtentSize) > maxRing:
		return fmt.Errorf("%d requests of %d bytes in flight are more than a lane may have", open.Depth, p.welcome.ExtentSize)
	case alive > maxAlive(p.Lanes):
		return fmt.Errorf("%d lanes at once are more than the sender agreed to", alive)
	}
	return nil
}

// answer opens the sending end of a lane.
func (p *push) answer(ctx context.Context, open *wire.OpenLane, answer *wire.LaneAnswer) (Server, error) {
	if err := p.mayOpen(open); err != nil {
		return nil, err
	}
	t := p.TCP
	params := LaneParams{ID: open.ID, Depth: int(open.Depth), ExtentSize: int(p.welcome.ExtentSize)}
	switch {
	case open.RDMA != nil:
		t = p.RDMA
	case open.UDP != nil:
		t = p.udp
		var err error
		if params.Here, params.There, err = p.s.addresses(); err != nil {
			return nil, err
		}
	default:
		params.Conn = func(ctx context.Context, control Control) (*net.TCPConn, error) {
			// The name may have other addresses, of other hosts: this is the session's.
			return p.Sockets.dialLane(ctx, p.s.conn.RemoteAddr().String(), p.welcome.Session, open.ID, open.TCP.Ticket, control)
		}
	}
	if t == nil {
		return nil, errors.New("a lane of a transport that is not in use")
	}
	if open.TCP != nil && p.Encrypt {
		params.Secret = laneSecret(open.TCP.Ticket, p.welcome.Session, open.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	server, err := t.Answer(ctx, params, open, answer)
	if err == nil {
		p.mu.Lock()
		p.lane[open.ID] = LaneResult{Transport: t.Name(), Detail: server.Describe()}
		p.servers[open.ID] = server
		p.mu.Unlock()
	}
	return server, err
}

// openLane opens the sending end of a lane and serves it until it ends.
func (p *push) openLane(ctx context.Context, open *wire.OpenLane) {
	defer p.endLane(open.ID)
	answer := &wire.LaneAnswer{ID: open.ID}
	server, err := p.answer(ctx, open, answer)
	if err != nil {
		answer = &wire.LaneAnswer{ID: open.ID, Reason: wire.Clip(err.Error())}
	}
	if serr := p.s.Send(answer); serr != nil {
		p.cancel(serr)
	}
	if err != nil {
		return
	}
	err = server.Serve(ctx, p.Source.until(ctx))
	server.Close()
	p.mu.Lock()
	p.redescribe()
	delete(p.servers, open.ID)
	p.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		// The receiver decides what becomes of it.
		_ = p.s.Send(&wire.LaneDown{ID: open.ID, Reason: wire.Clip(err.Error())})
	}
}

// laneDown ends a lane that the receiver has given up, so that it frees what it
// holds.
func (p *push) laneDown(id uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cancel := p.serving[id]; cancel != nil {
		cancel()
	}
}

// endLane makes room for another lane.
func (p *push) endLane(id uint32) {
	p.laneDown(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.serving, id)
}

// plan notes what carries the data and, the first time, sends the manifest.
func (p *push) plan(m *wire.Plan) {
	plan := Plan{Transport: Printable(m.Transport), Lanes: len(m.Lanes), Reason: Printable(m.Reason)}
	p.mu.Lock()
	p.running = m.Lanes
	plan.Detail = p.detail()
	first := !p.planned
	p.planned = true
	p.result.Plan = plan
	p.mu.Unlock()
	p.tell(p.Observer, func(o Observer) { o.Planned(plan) })
	if first {
		p.lanes.Go(p.manifest)
	}
}

// detail is what the lanes of the plan run on. p.mu is held.
func (p *push) detail() string {
	var details []string
	for _, id := range p.running {
		details = append(details, p.lane[id].Detail)
	}
	return joinDetails(details)
}

// redescribe asks the servers again what they are: one may have found out meanwhile what
// is best. p.mu is held.
func (p *push) redescribe() {
	for id, server := range p.servers {
		if lane, ok := p.lane[id]; ok {
			lane.Detail = server.Describe()
			p.lane[id] = lane
		}
	}
}

// carried joins what the receiver says of the lanes with what this end knows of
// them. p.mu is held.
func (p *push) carried(told []wire.LaneBytes) (list []LaneResult) {
	for _, t := range told {
		if lane, ok := p.lane[t.ID]; ok {
			lane.Bytes = t.Bytes
			list = append(list, lane)
			delete(p.lane, t.ID) // once
		}
	}
	return list
}
