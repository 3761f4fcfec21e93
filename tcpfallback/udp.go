package tcpfallback

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Datagrams makes both ends of lanes over UDP, which are for measuring alone: what a question
// and its answer take on this network without TCP. The receiver asks, as over every lane;
// what an ask is answered with are as many datagrams as it takes, several to a system call
// (sendmmsg(2), recvmmsg(2)) and, where the kernel can, to a trip through its network stack
// (UDP_SEGMENT and UDP_GRO, udp(7)). What does not come in time is asked for again, and
// counted.
type Datagrams struct {
	// Most is how large a datagram may be, bytes, even where the path's MTU allows more; 0:
	// as large as that. The sender's end goes by it.
	Most int
}

// Name is "udp".
func (Datagrams) Name() string { return transfer.TransportUDP }

// Offer says nothing: the session's own address serves.
func (Datagrams) Offer(*wire.Hello) {}

// Paths is the session's own address.
func (Datagrams) Paths(context.Context, transfer.PathQuery) ([]string, *wire.Paths, error) {
	return []string{""}, nil, nil
}

// Prepare opens the receiver's socket.
func (Datagrams) Prepare(_ context.Context, _ *wire.Hello, p transfer.LaneParams, open *wire.OpenLane) (transfer.PendingPuller, error) {
	s, err := openDatagrams(p.Here)
	if err != nil {
		return nil, err
	}
	if err := s.join(); err != nil {
		s.conn.Close()
		return nil, err
	}
	open.UDP = &wire.UDPLane{Port: s.port(), Tag: s.tag}
	return &pendingDatagrams{s, p}, nil
}

// Answer opens the sender's.
func (d Datagrams) Answer(_ context.Context, p transfer.LaneParams, open *wire.OpenLane, answer *wire.LaneAnswer) (transfer.Server, error) {
	s, err := openDatagrams(p.Here)
	if err != nil {
		return nil, err
	}
	payload, err := s.connect(netip.AddrPortFrom(p.There, open.UDP.Port))
	if err != nil {
		s.conn.Close()
		return nil, err
	}
	if d.Most > 0 {
		payload = max(wire.MinDatagram, min(d.Most, payload))
	}
	answer.UDP = &wire.UDPLane{Port: s.port(), Tag: s.tag, Payload: uint16(payload)}
	return newDatagramServer(s, open.UDP.Tag, payload), nil
}

// datagrams is one end's socket.
type datagrams struct {
	conn  *net.UDPConn
	batch batcher
	tag   [wire.TagSize]byte // what datagrams to it begin with
	room  int                // bytes of what has come and was not read, as the kernel counts them
	joins bool               // the kernel may join datagrams that come
}

// batcher is an [ipv4.PacketConn] or an ipv6.PacketConn.
type batcher interface {
	ReadBatch([]ipv4.Message, int) (int, error)
	WriteBatch([]ipv4.Message, int) (int, error)
}

// openDatagrams opens a socket at this host's address of the session.
func openDatagrams(here netip.Addr) (*datagrams, error) {
	if !here.IsValid() {
		return nil, errors.New("a lane over UDP needs the session's address")
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(here, 0)))
	if err != nil {
		return nil, fmt.Errorf("opening a socket for datagrams: %w", err)
	}
	s := &datagrams{conn: conn}
	rand.Read(s.tag[:])
	if err := s.setUp(here.Is4()); err != nil {
		conn.Close()
		return nil, fmt.Errorf("setting up a socket for datagrams: %w", err)
	}
	return s, nil
}

func (s *datagrams) port() uint16 { return uint16(s.conn.LocalAddr().(*net.UDPAddr).Port) }

// parts is how many datagrams answer one ask at the most: as many as one system call
// hands to the kernel in one piece (UDP_MAX_SEGMENTS and 64 KiB with headers).
func parts(payload int) int { return max(1, min(64, 65000/payload)) }

// pendingDatagrams is the receiver's end that waits for the sender's.
type pendingDatagrams struct {
	s *datagrams
	p transfer.LaneParams
}

// Close gives it up.
func (p *pendingDatagrams) Close() error { return p.s.conn.Close() }

// Tries of a path, each with a whole datagram.
const (
	tries     = 10
	trialTime = 200 * time.Millisecond
)

// Connect connects to the sender's socket, and has it answer with a whole datagram.
func (p *pendingDatagrams) Connect(ctx context.Context, answer *wire.LaneAnswer) (transfer.Puller, error) {
	lane, err := p.connect(ctx, answer.UDP)
	if err != nil {
		p.s.conn.Close()
		return nil, err
	}
	return lane, nil
}

func (p *pendingDatagrams) connect(ctx context.Context, theirs *wire.UDPLane) (*datagramPuller, error) {
	if theirs == nil || theirs.Payload == 0 {
		return nil, fmt.Errorf("%w: a lane of datagrams without their size", wire.ErrMalformed)
	}
	if _, err := p.s.connect(netip.AddrPortFrom(p.p.There, theirs.Port)); err != nil {
		return nil, err
	}
	defer interrupt(ctx, p.s.conn)()
	lane := newDatagramPuller(p.s, theirs.Tag, int(theirs.Payload), p.p)
	for range tries {
		ok, err := lane.try(trialTime)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if ok || err != nil {
			return lane, err
		}
	}
	return nil, fmt.Errorf("no datagram of %d bytes comes from %v over UDP in %v (here port %d, there %d): is UDP filtered on the way, or the path MTU smaller?",
		theirs.Payload, p.p.There, tries*trialTime, p.s.port(), theirs.Port)
}
