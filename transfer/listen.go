package transfer

import (
	"context"
	"crypto/hmac"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// maxStrangers bounds the connections that have proved nothing yet.
const maxStrangers = 64

// Listener is a receiver's one port. Sessions and TCP lanes arrive at it; the
// first byte tells them apart, and neither gets further without its proof.
type Listener struct {
	tcp       net.Listener
	tls       *tls.Config
	key       Key
	strangers chan struct{} // a place for each connection in its handshake
	sessions  chan *Session
	// Refused is called with what a stranger did wrong. Set it before Serve.
	Refused func(addr net.Addr, err error)

	mu      sync.Mutex
	tickets map[ticketName]*ticket
}

type ticketName struct {
	session [16]byte
	lane    uint32
}

// ticket waits for the one connection that may present it.
type ticket struct {
	secret [32]byte
	conn   chan *net.TCPConn // of capacity 1
}

// Listen opens the port. Call Serve to accept.
func Listen(ctx context.Context, addr string, key Key) (*Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // Go listens with MPTCP unless told not to
	tcp, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, errorf(CodeConnect, "listening on %s: %w (choose another with --listen)", addr, err)
	}
	conf, err := tlsConfig()
	if err != nil {
		tcp.Close()
		return nil, err
	}
	return &Listener{
		tcp:       tcp,
		tls:       conf,
		key:       key,
		strangers: make(chan struct{}, maxStrangers),
		sessions:  make(chan *Session),
		Refused:   func(net.Addr, error) {},
		tickets:   make(map[ticketName]*ticket),
	}, nil
}

// Addr is the address that it listens on.
func (l *Listener) Addr() net.Addr { return l.tcp.Addr() }

// Close stops listening. Sessions that were accepted live on.
func (l *Listener) Close() error { return l.tcp.Close() }

// Serve accepts until ctx ends or the listener is closed. Handshakes run side by
// side, so that a slow stranger delays nobody.
func (l *Listener) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.tcp.Close() })
	defer stop()
	for {
		conn, err := l.tcp.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return ctx.Err()
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			return errorf(CodeConnect, "accepting: %w", err)
		}
		select {
		case l.strangers <- struct{}{}:
		default:
			conn.Close()
			l.Refused(conn.RemoteAddr(), errors.New("too many connections without a proof"))
			continue
		}
		go func() {
			defer func() { <-l.strangers }()
			if err := l.greet(ctx, conn.(*net.TCPConn)); err != nil {
				conn.Close()
				l.Refused(conn.RemoteAddr(), err)
			}
		}()
	}
}

// Accept waits for the next session that proved the key.
func (l *Listener) Accept(ctx context.Context) (*Session, error) {
	select {
	case s := <-l.sessions:
		return s, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// greet reads the first byte and goes on as it says.
func (l *Listener) greet(ctx context.Context, conn *net.TCPConn) error {
	hctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if err := setDeadline(hctx, conn); err != nil {
		return err
	}
	var head [wire.PreambleSize]byte
	if _, err := io.ReadFull(conn, head[:1]); err != nil {
		return err
	}
	if head[0] == wire.LaneMagic {
		if _, err := io.ReadFull(conn, head[1:]); err != nil {
			return err
		}
		return l.greetLane(conn, head[:])
	}
	s, err := acceptSession(hctx, &unreadConn{Conn: conn, head: head[:1]}, l.tls, l.key)
	if err != nil {
		return err
	}
	select {
	case l.sessions <- s:
		return nil
	case <-ctx.Done():
		s.Close()
		return ctx.Err()
	}
}

// greetLane checks a lane's preamble against its ticket and hands the connection
// to whoever waits for it. A wrong proof spends nothing: the session's name is no
// secret, and a stranger who repeats it must not be able to undo the lane.
func (l *Listener) greetLane(conn *net.TCPConn, head []byte) error {
	p, err := wire.ParsePreamble(head)
	if err != nil {
		return err
	}
	name := ticketName{p.Session, p.Lane}
	t := l.spend(name, func(t *ticket) bool {
		want := wire.LaneProof(t.secret, p.Session, p.Lane, "dial")
		return hmac.Equal(want[:], p.Proof[:])
	})
	if t == nil {
		return errors.New("a lane that nobody waits for, or with a wrong proof")
	}
	mine := wire.LaneProof(t.secret, p.Session, p.Lane, "listen")
	if _, err = conn.Write(mine[:]); err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		close(t.conn)
		return err
	}
	t.conn <- conn
	return nil
}

// spend takes a ticket out of the table, if there is one and it is valid.
func (l *Listener) spend(name ticketName, valid func(*ticket) bool) *ticket {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tickets[name]
	if t == nil || !valid(t) {
		return nil
	}
	delete(l.tickets, name)
	return t
}

// expect makes a ticket valid and answers a function that waits for its
// connection. The ticket ends with ctx.
func (l *Listener) expect(session [16]byte, lane uint32, secret [32]byte) func(context.Context) (*net.TCPConn, error) {
	name := ticketName{session, lane}
	t := &ticket{secret: secret, conn: make(chan *net.TCPConn, 1)}
	l.mu.Lock()
	l.tickets[name] = t
	l.mu.Unlock()
	return func(ctx context.Context) (*net.TCPConn, error) {
		select {
		case c, ok := <-t.conn:
			if !ok {
				return nil, errors.New("the lane's connection broke in its handshake")
			}
			return c, nil
		case <-ctx.Done():
			if l.spend(name, func(*ticket) bool { return true }) == nil { // presented just now
				if c, ok := <-t.conn; ok {
					c.Close()
				}
			}
			return nil, ctx.Err()
		}
	}
}

// dialLane connects a TCP lane to the receiver and proves the ticket.
func dialLane(ctx context.Context, addr string, session [16]byte, lane uint32, secret [32]byte) (*net.TCPConn, error) {
	var d net.Dialer
	d.SetMultipathTCP(false)
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conn := raw.(*net.TCPConn)
	if err := proveLane(ctx, conn, session, lane, secret); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func proveLane(ctx context.Context, conn *net.TCPConn, session [16]byte, lane uint32, secret [32]byte) error {
	if err := setDeadline(ctx, conn); err != nil {
		return err
	}
	var head [wire.PreambleSize]byte
	p := wire.Preamble{Session: session, Lane: lane, Proof: wire.LaneProof(secret, session, lane, "dial")}
	p.Put(head[:])
	if _, err := conn.Write(head[:]); err != nil {
		return err
	}
	want := wire.LaneProof(secret, session, lane, "listen")
	var got [wire.ProofSize]byte
	if _, err := io.ReadFull(conn, got[:]); err != nil {
		return err
	}
	if !hmac.Equal(got[:], want[:]) {
		return errors.New("the host that answered a lane does not know its ticket")
	}
	return conn.SetDeadline(time.Time{})
}

// unreadConn gives back the bytes that were read to tell what a connection is.
type unreadConn struct {
	net.Conn
	head []byte
}

func (c *unreadConn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}
