package transfer

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// How long things may take. A peer that says nothing for silence is dead: it
// pings every beat, whatever else it does.
const (
	handshakeTime = 10 * time.Second // connect, TLS and proofs together
	beat          = time.Second
	silence       = 6 * time.Second
)

// Session is one authenticated control connection. Receive is for one goroutine,
// Send for any.
type Session struct {
	conn   *tls.Conn
	reader *bufio.Reader
	peer   string // as errors name it
	broken bool   // Receive has met the connection's end; the reading goroutine's

	mu       sync.Mutex // of writing
	out      []byte     // frames that were queued
	patience patience
	closed   chan struct{}
	once     sync.Once
	aborted  atomic.Bool // by the peer
	enough   atomic.Bool // this end ends: see hurry
}

// hurry has writes wait no longer than for the dead from now on.
func (s *Session) hurry() {
	s.enough.Store(true)
	_ = s.conn.SetWriteDeadline(time.Now().Add(silence)) // what is closed waits for nothing
}

// tlsConfig is the same for both ends. The certificate proves nothing and is not
// looked at: the proofs of the shared key, bound to this very TLS session, do
// that work. There are no tickets, so every session has keys of its own.
func tlsConfig() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		SessionTicketsDisabled: true,
		InsecureSkipVerify:     true, // see above
		NextProtos:             []string{"rdmaxfer/1"},
	}, nil
}

// The proofs: HMAC-SHA256 with the shared key over the TLS session's exporter
// (RFC 8446, 7.5; RFC 9266 binds channels in the same way) and the prover's
// role. A man in the middle has two TLS sessions with two exporters, so neither
// end's proof is of use to him; a role's proof can't be played back to it.
const exporterLabel = "EXPORTER-rdmaxfer-session"

// proofSize is how long a proof is, bytes, and notProven what a listener answers to a wrong one.
const proofSize = sha256.Size

var notProven [proofSize]byte

func proof(conn *tls.Conn, key Key, role string) ([]byte, error) {
	state := conn.ConnectionState()
	material, err := state.ExportKeyingMaterial(exporterLabel, nil, 32)
	if err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, key[:])
	h.Write([]byte("rdmaxfer 1 " + role))
	h.Write(material)
	return h.Sum(nil), nil
}

// ErrWrongKey says that the two ends don't share a key.
var ErrWrongKey = errors.New("the keys differ: both hosts need the same key file")

// dialSession connects to a receiver and proves the key, the dialler first.
func (k Sockets) dialSession(ctx context.Context, addr string, key Key) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	raw, err := k.dial(ctx, addr, nil)
	if e := ownWords(err); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, errorf(CodeConnect, "connecting to %s: %w (is rdmaxfer recv running there, and the port open?)", addr, err)
	}
	conf, err := tlsConfig()
	if err != nil {
		raw.Close()
		return nil, err
	}
	release, err := bind(ctx, raw)
	if err != nil {
		raw.Close()
		return nil, errorf(CodeConnect, "connecting to %s: %w", addr, err)
	}
	conn := tls.Client(raw, conf)
	if err = proveDialler(ctx, conn, key); err == nil {
		err = release()
	}
	if err != nil {
		raw.Close()
		var e *Error
		if errors.As(err, &e) {
			return nil, err
		}
		return nil, errorf(CodeConnect, "handshake with %s: %w (is that an rdmaxfer?)", addr, err)
	}
	return newSession(conn, addr), nil
}

func proveDialler(ctx context.Context, conn *tls.Conn, key Key) error {
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	mine, err := proof(conn, key, "send")
	if err != nil {
		return err
	}
	if _, err := conn.Write(mine); err != nil {
		return err
	}
	theirs, err := proof(conn, key, "recv")
	if err != nil {
		return err
	}
	got := make([]byte, len(theirs))
	if _, err := io.ReadFull(conn, got); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.New("it hung up on the proof of the key, and did not say that it is wrong: it ended, or has too many strangers to talk to; try again")
		}
		return err
	}
	if [proofSize]byte(got) == notProven {
		return errorf(CodeAuth, "%w", ErrWrongKey)
	}
	if !hmac.Equal(got, theirs) {
		return errorf(CodeAuth, "%w (and the host that answered claims to know another one)", ErrWrongKey)
	}
	return nil
}

// proveListener is the other half of proveDialler, on an accepted connection.
func proveListener(ctx context.Context, conn *tls.Conn, key Key) error {
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	theirs, err := proof(conn, key, "send")
	if err != nil {
		return err
	}
	got := make([]byte, len(theirs))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if !hmac.Equal(got, theirs) {
		_, _ = conn.Write(notProven[:])
		conn.Close() // with a TLS alert, so that the dialler sees an end and not a reset
		return errorf(CodeAuth, "%w", ErrWrongKey)
	}
	mine, err := proof(conn, key, "recv")
	if err != nil {
		return err
	}
	_, err = conn.Write(mine)
	return err
}

// bind makes the end of ctx, and its deadline, that of a connection's handshake.
// release takes that back; it is an error when ctx has ended.
func bind(ctx context.Context, conn net.Conn) (release func() error, err error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	return func() error {
		if !stop() {
			return ctx.Err()
		}
		return conn.SetDeadline(time.Time{})
	}, nil
}

// addresses are those of the connection's ends.
func (s *Session) addresses() (here, there netip.Addr, err error) {
	local, lerr := netip.ParseAddrPort(s.conn.LocalAddr().String())
	remote, rerr := netip.ParseAddrPort(s.conn.RemoteAddr().String())
	if err := errors.Join(lerr, rerr); err != nil {
		return here, there, fmt.Errorf("the session's addresses: %w", err)
	}
	return local.Addr().Unmap(), remote.Addr().Unmap(), nil
}

func newSession(conn *tls.Conn, peer string) *Session {
	s := silentSession(conn, peer)
	go s.beat()
	return s
}

// silentSession does not ping.
func silentSession(conn *tls.Conn, peer string) *Session {
	s := &Session{
		conn:   conn,
		peer:   peer,
		closed: make(chan struct{}),
	}
	heard := func() uint32 { return segments(conn) }
	s.patience = patience{conn: conn, heard: heard, enough: &s.enough}
	s.reader = bufio.NewReaderSize(&aliveReader{conn: conn, heard: heard, last: heard(), enough: &s.enough}, 64<<10)
	return s
}

// beat pings until the session is closed or broken, which the reader reports.
func (s *Session) beat() {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-s.closed:
			return
		case <-tick.C:
			if s.Send(&wire.Ping{}) != nil {
				return
			}
		}
	}
}

// queueLimit is how much Queue keeps back, bytes.
const queueLimit = 32 << 10

// Peer is the other end as errors name it: its address and port, if it came to a listener, else
// what was dialled.
func (s *Session) Peer() string { return s.peer }

// Send writes one message, after those that were queued.
func (s *Session) Send(m wire.Message) error { return s.write(m, 0) }

// Queue keeps a message back, to be written with others: many small ones in one
// record cost little more than one. Whoever queues calls Flush in the end.
func (s *Session) Queue(m wire.Message) error { return s.write(m, queueLimit) }

// Flush writes what was queued.
func (s *Session) Flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flush()
}

func (s *Session) write(m wire.Message, keep int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.out, err = wire.Append(s.out, m); err != nil || len(s.out) < keep {
		return err
	}
	return s.flush()
}

func (s *Session) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	err := s.patience.begin()
	if err == nil {
		_, err = s.conn.Write(s.out)
	}
	s.patience.end()
	s.out = s.out[:0]
	if err != nil {
		return s.lost(err)
	}
	return nil
}

// Receive waits for the next message that is not a ping. A peer that is silent
// for too long, or that hangs up, is an error with [CodeConnect].
func (s *Session) Receive() (wire.Message, error) {
	for {
		m, err := wire.Read(s.reader)
		if err != nil {
			s.broken = !errors.Is(err, wire.ErrMalformed)
			return nil, s.lost(err)
		}
		if _, ok := m.(*wire.Ping); !ok {
			return m, nil
		}
	}
}

// lost says in words what became of the connection.
func (s *Session) lost(err error) error {
	switch {
	case errors.Is(err, wire.ErrMalformed):
		return errorf(CodeOther, "%s: %w", s.peer, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errorf(CodeConnect, "peer %s has been silent for %v: it hangs, was stopped, or the network between is cut", s.peer, silence)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return errorf(CodeConnect, "peer %s is gone: it ended or was killed before the transfer was complete", s.peer)
	}
	return errorf(CodeConnect, "control connection with %s lost: %w", s.peer, err)
}

// attend runs converse, which calls Receive, in a goroutine and gives its end. The
// goroutine then reads on, whatever comes, until the peer hangs up or the session
// is closed, and closes gone: closing with unread input would reset the
// connection, and the last message with it.
func (s *Session) attend(converse func() error) (ended <-chan error, gone <-chan struct{}) {
	end, left := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(left)
		end <- converse()
		if !s.broken {
			_, _ = io.Copy(io.Discard, s.reader)
		}
	}()
	return end, left
}

// lingerTime is how long an end waits for the other to hang up after the last
// message.
const lingerTime = 2 * time.Second

// linger waits until the peer has read the last message and hung up.
func linger(gone <-chan struct{}) {
	select {
	case <-gone:
	case <-time.After(lingerTime):
	}
}

// abort tells the peer why this end gives up, lets it read that, and closes. The
// peer may be dead; the attempt is all. A signal's code is this host's own: the
// peer sees a connection that ended.
func (s *Session) abort(err error, gone <-chan struct{}) {
	defer s.Close()
	if s.aborted.Load() {
		return // it was the peer who gave up
	}
	s.hurry()
	code := CodeOf(err)
	if code > CodeNoRDMA {
		code = CodeConnect
	}
	if s.Send(&wire.Abort{Code: uint8(code), Reason: wire.Clip(err.Error())}) == nil && s.conn.CloseWrite() == nil {
		linger(gone)
	}
}

// Close ends the session. It may be called more than once.
func (s *Session) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closed)
		err = s.conn.Close()
	})
	return err
}

// fromPeer makes an error of an Abort.
func (s *Session) fromPeer(m *wire.Abort) error {
	s.aborted.Store(true)
	return errorf(peerCode(m.Code), "peer %s: %s", s.peer, Printable(m.Reason))
}

// peerCode is the code of a failure that the peer reports. A failure is one,
// whatever number it is given.
func peerCode(c uint8) Code {
	if code := Code(c); code > CodeOK && code <= CodeNoRDMA {
		return code
	}
	return CodeOther
}
