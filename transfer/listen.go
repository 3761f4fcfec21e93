package transfer

import (
	"context"
	"crypto/hmac"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// maxStrangers bounds the connections that have proved nothing yet, maxTold the calls of
// Refused at a time.
const (
	maxStrangers = 64
	maxTold      = 16
)

// Listener is a receiver's one port. Sessions and TCP lanes arrive at it; the
// first byte tells them apart, and neither gets further without its proof.
type Listener struct {
	tcp      net.Listener
	tls      *tls.Config
	key      Key
	sessions chan *Session
	// Refused is called with what a stranger did wrong, by several goroutines. Set it before
	// Serve. While it does not come back from many calls it is not called: the next that is
	// says how often.
	Refused func(addr net.Addr, err error)
	told    chan struct{} // holds a place for each call under way
	untold  atomic.Int64

	mu        sync.Mutex
	strangers []net.Conn // in their handshake, the oldest first
	tickets   map[ticketName]*ticket
}

type ticketName struct {
	session [16]byte
	lane    uint32
}

// ticket waits for the one connection that may present it.
type ticket struct {
	secret [32]byte
	conn   chan *net.TCPConn // closed when the handshake broke
	over   chan struct{}     // closed when nobody waits any more
}

// Listen opens the port. Call Serve to accept.
func Listen(ctx context.Context, addr string, key Key) (*Listener, error) {
	return Sockets{}.Listen(ctx, addr, key)
}

// Listen opens the port with sockets of that kind.
func (k Sockets) Listen(ctx context.Context, addr string, key Key) (*Listener, error) {
	tcp, err := k.listen(ctx, addr)
	if err != nil {
		return nil, err
	}
	conf, err := tlsConfig()
	if err != nil {
		tcp.Close()
		return nil, err
	}
	return &Listener{
		tcp:      tcp,
		tls:      conf,
		key:      key,
		sessions: make(chan *Session),
		Refused:  func(net.Addr, error) {},
		told:     make(chan struct{}, maxTold),
		tickets:  make(map[ticketName]*ticket),
	}, nil
}

// Addr is the address that it listens on.
func (l *Listener) Addr() net.Addr { return l.tcp.Addr() }

// Close stops listening. Sessions that were accepted live on.
func (l *Listener) Close() error { return l.tcp.Close() }

// Serve accepts until ctx ends or the listener is closed. Handshakes run side by
// side, so that a slow stranger delays nobody. Sessions that nobody has accepted by the end end
// with it.
func (l *Listener) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.tcp.Close() })
	defer stop()
	for {
		conn, err := l.tcp.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return ctx.Err()
			}
			if !passing(err) {
				return errorf(CodeConnect, "accepting: %w", err)
			}
			select { // it comes again at once
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		l.admit(conn)
		go l.welcome(ctx, conn.(*net.TCPConn))
	}
}

// acceptPause is how long a listener that can't accept leaves it.
const acceptPause = 100 * time.Millisecond

// passing reports whether accept failed for want of what others may give back.
func passing(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// admit gives a connection a place among the strangers. When there is none left
// the oldest makes room: whoever only takes places must not keep others out.
func (l *Listener) admit(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.strangers = append(l.strangers, conn)
	if len(l.strangers) > maxStrangers {
		l.strangers[0].Close()
		l.strangers = slices.Delete(l.strangers, 0, 1)
	}
}

// known takes a connection out of the strangers. It answers false when that made
// room for another before.
func (l *Listener) known(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.strangers, conn)
	if i >= 0 {
		l.strangers = slices.Delete(l.strangers, i, i+1)
	}
	return i >= 0
}

// welcome hears what a connection has to prove, and hands it to whoever waits, who hears also
// that it had to make room meanwhile.
func (l *Listener) welcome(ctx context.Context, conn *net.TCPConn) {
	handOver, err := l.greet(ctx, conn)
	known := l.known(conn)
	if handOver != nil {
		err = handOver(ctx, known)
	}
	if !known {
		err = errors.New("too many connections without a proof, and this was the oldest")
	}
	if err != nil {
		addr := conn.RemoteAddr()
		conn.Close()
		l.tell(addr, err)
	}
}

// tell has Refused called, which may hang: who writes to a terminal that is stopped does.
func (l *Listener) tell(addr net.Addr, err error) {
	select {
	case l.told <- struct{}{}:
		if n := l.untold.Swap(0); n > 0 {
			err = fmt.Errorf("%w (and %d more connections, of which nobody was told)", err, n)
		}
		l.Refused(addr, err)
		<-l.told
	default:
		l.untold.Add(1)
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

// greet reads the first byte and goes on as it says. What it answers waits for the
// one whom the connection is for; with known false it has been closed.
func (l *Listener) greet(ctx context.Context, conn *net.TCPConn) (handOver func(ctx context.Context, known bool) error, err error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	release, err := bind(ctx, conn)
	if err != nil {
		return nil, err
	}
	var head [wire.PreambleSize]byte
	if _, err := io.ReadFull(conn, head[:1]); err != nil {
		return nil, err
	}
	if head[0] == wire.LaneMagic {
		if _, err := io.ReadFull(conn, head[1:]); err != nil {
			return nil, err
		}
		return l.greetLane(conn, head[:], release)
	}
	secure := tls.Server(&unreadConn{Conn: conn, head: head[:1]}, l.tls)
	if err := proveListener(ctx, secure, l.key); err != nil {
		return nil, err
	}
	if err := release(); err != nil {
		return nil, err
	}
	return func(ctx context.Context, known bool) error {
		if !known {
			return nil // nobody waits for this one
		}
		return l.handSession(ctx, secure)
	}, nil
}

func (l *Listener) handSession(ctx context.Context, conn *tls.Conn) error {
	s := newSession(conn, conn.RemoteAddr().String())
	select {
	case l.sessions <- s:
		return nil
	case <-ctx.Done():
		s.Close()
		return ctx.Err()
	}
}

// greetLane checks a lane's preamble against its ticket. A wrong proof spends
// nothing: the session's name is no secret, and a stranger who repeats it must not
// be able to undo the lane.
func (l *Listener) greetLane(conn *net.TCPConn, head []byte, release func() error) (handOver func(ctx context.Context, known bool) error, err error) {
	p, err := wire.ParsePreamble(head)
	if err != nil {
		return nil, err
	}
	t := l.spend(ticketName{p.Session, p.Lane}, func(t *ticket) bool {
		want := wire.LaneProof(t.secret, p.Session, p.Lane, "dial")
		return hmac.Equal(want[:], p.Proof[:])
	})
	if t == nil {
		return nil, errors.New("a lane that nobody waits for, or with a wrong proof")
	}
	mine := wire.LaneProof(t.secret, p.Session, p.Lane, "listen")
	if _, err = conn.Write(mine[:]); err == nil {
		err = release()
	}
	if err != nil {
		close(t.conn)
		return nil, err
	}
	return func(_ context.Context, known bool) error {
		if !known {
			close(t.conn)
			return nil
		}
		select {
		case t.conn <- conn:
			return nil
		case <-t.over:
			return errors.New("a lane that was given up meanwhile")
		}
	}, nil
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

// expect makes a ticket valid until forget is called. wait waits for the ticket's
// connection.
func (l *Listener) expect(session [16]byte, lane uint32, secret [32]byte) (wait func(context.Context) (*net.TCPConn, error), forget func()) {
	name := ticketName{session, lane}
	t := &ticket{secret: secret, conn: make(chan *net.TCPConn), over: make(chan struct{})}
	l.mu.Lock()
	l.tickets[name] = t
	l.mu.Unlock()
	wait = func(ctx context.Context) (*net.TCPConn, error) {
		select {
		case c, ok := <-t.conn:
			if !ok {
				return nil, errors.New("the lane's connection broke in its handshake")
			}
			return c, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return wait, func() {
		l.spend(name, func(*ticket) bool { return true })
		close(t.over)
	}
}

// dialLane connects a TCP lane to the receiver and proves the ticket.
func (k Sockets) dialLane(ctx context.Context, addr string, session [16]byte, lane uint32, secret [32]byte, control Control) (*net.TCPConn, error) {
	conn, err := k.dial(ctx, addr, control)
	if err != nil {
		return nil, err
	}
	release, err := bind(ctx, conn)
	if err == nil {
		err = proveLane(conn, session, lane, secret)
	}
	if err == nil {
		err = release()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// laneSecret is what a lane's encryption is bound to: it is made from the ticket, and
// nothing that is sent in the clear tells it.
func laneSecret(ticket [32]byte, session [16]byte, lane uint32) []byte {
	secret := wire.LaneProof(ticket, session, lane, "encrypt")
	return secret[:]
}

func proveLane(conn *net.TCPConn, session [16]byte, lane uint32, secret [32]byte) error {
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
	return nil
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
