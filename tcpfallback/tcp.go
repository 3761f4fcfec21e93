// Package tcpfallback makes lanes of TCP connections, for hosts that have no RDMA
// between them. Payload travels in the clear beside 48-byte headers, unless the lane has
// a secret: then both are under TLS. What it is checked against, the digests, travels in
// the session's TLS.
//
// A method is how the sending end moves an extent from the file to the socket, a landing
// how the receiving end moves it from there into its file; each is one file of this
// package.
package tcpfallback

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/rdmaxfer/rdmaxfer/tcpfallback/compress"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Methods are the ways out that a sender can be asked for.
var Methods = []string{"auto", "copy", "mmap", "sendfile", "splice"}

// Transport makes both ends of TCP lanes.
type Transport struct {
	// Method is how the sending end moves extents: one of Methods. auto finds out which
	// is the fastest while it sends; what is compressed or encrypted goes by copy.
	Method string
	// Landing is how the receiving end moves them into files: one of Landings.
	Landing string
	// Choice is what auto has found, for all lanes that share it; nil: each for itself.
	Choice *Choice
	// Compress is what the sending end compresses: nothing, if it is empty.
	Compress compress.Mode
	// Congestion is the congestion control that the user chose for the sending end's
	// sockets. Where that is empty, a connection within this host has none that paces.
	Congestion string
}

// Name is "tcp".
func (Transport) Name() string { return transfer.TransportTCP }

// Offer says nothing: the session's own address serves the lanes too.
func (Transport) Offer(*wire.Hello) {}

// Paths is the session's own address: several lanes are several streams to it.
func (Transport) Paths(context.Context, transfer.PathQuery) ([]string, *wire.Paths, error) {
	return []string{""}, nil, nil
}

// Prepare says which kernel this is. The engine filled in the ticket.
func (t Transport) Prepare(_ context.Context, _ *wire.Hello, p transfer.LaneParams, open *wire.OpenLane) (transfer.PendingPuller, error) {
	open.TCP.Kernel = kernel(bootID, open.TCP.Ticket)
	return pending{p, cmp.Or(t.Landing, Landings[0])}, nil
}

// Answer connects to the receiver.
func (t Transport) Answer(ctx context.Context, p transfer.LaneParams, open *wire.OpenLane, answer *wire.LaneAnswer) (transfer.Server, error) {
	method, err := t.newMethod(p)
	if err != nil {
		return nil, err
	}
	var control transfer.Control
	switch {
	case t.Congestion != "":
	case sameKernel(bootID, open.TCP):
		control = unpaced
	default:
		control = withinHost
	}
	conn, err := p.Conn(ctx, control)
	if err != nil {
		return nil, fmt.Errorf("connecting a TCP lane: %w", err)
	}
	answer.Method = method.name()
	if _, ok := method.(*autoOut); ok {
		answer.Method = "auto"
	}
	if p.Secret == nil {
		return &server{conn: conn, method: method}, nil
	}
	c, err := secure(conn, p.Secret, dialler)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &server{conn: c, method: method}, nil
}

// method moves the extent that r asks for to conn, header first.
type method interface {
	name() string
	// answer reports whether the extent went, be it read and written where this method can't
	// move it; else it was refused.
	answer(conn net.Conn, src *transfer.Source, r wire.Request) (moved bool, err error)
	// release gives back what the method holds of a file. It is called after the last answer.
	release()
}

func (t Transport) newMethod(p transfer.LaneParams) (method, error) {
	extentSize, encrypted := p.ExtentSize, p.Secret != nil
	mode := t.Compress
	if mode == "" {
		mode = compress.None
	}
	switch t.Method {
	case "", "auto":
		m := newCopyOut(mode, extentSize)
		if encrypted || mode != compress.None {
			return m, nil
		}
		choice := t.Choice
		switch {
		case p.Depth == 1: // how soon an answer is off the hands says nothing of its way
			choice = &Choice{untried: true}
		case choice == nil:
			choice = new(Choice)
		}
		return newAutoOut(m, choice), nil
	case "copy":
		return newCopyOut(mode, extentSize), nil
	case "mmap", "sendfile", "splice":
		switch {
		case encrypted:
			return nil, fmt.Errorf("%s moves pages as they are: encrypt with --method copy", t.Method)
		case mode != compress.None:
			return nil, fmt.Errorf("%s moves pages as they are: compress with --method copy", t.Method)
		}
		c := newCopyOut(mode, extentSize)
		return map[string]method{"mmap": &mmapOut{copyOut: c}, "sendfile": &sendfileOut{c}, "splice": &spliceOut{copyOut: c}}[t.Method], nil
	}
	return nil, fmt.Errorf("no TCP method %q (there are %v)", t.Method, slices.Clone(Methods))
}

type pending struct {
	p       transfer.LaneParams
	landing string
}

// Connect waits for the sender's connection.
func (p pending) Connect(ctx context.Context, answer *wire.LaneAnswer) (transfer.Puller, error) {
	if !slices.Contains(Methods, answer.Method) {
		return nil, fmt.Errorf("%w: a TCP lane of method %q", wire.ErrMalformed, answer.Method)
	}
	conn, err := p.p.Conn(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("waiting for a TCP lane: %w", err)
	}
	lane := &puller{
		conn:    conn,
		depth:   p.p.Depth,
		buf:     make([]byte, p.p.ExtentSize),
		method:  answer.Method,
		landing: p.landing,
	}
	if p.p.Secret == nil {
		return lane, nil
	}
	c, err := secure(conn, p.p.Secret, listener)
	if err == nil {
		err = c.shakeHands(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	lane.conn = c
	return lane, nil
}

// Close has nothing to give up.
func (pending) Close() error { return nil }
