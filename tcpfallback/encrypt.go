package tcpfallback

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// The roles of a lane's ends in TLS: the sender dials.
const (
	dialler  = "dial"
	listener = "listen"
)

// secured is an end of a lane under TLS 1.3. What is written is encrypted from the
// caller's buffer; records are gathered, since a system call and a segment for each of
// them cost more than the copy.
type secured struct {
	*tls.Conn
	raw *net.TCPConn
	out *gather
}

// secure puts TLS on a lane's connection that has proved its ticket. The secret, which
// only the two ends have, makes both ends' keys: a certificate with another one is
// somebody else's, who stands in between. The handshake is yet to be made; which cipher
// it finds (RFC 8446) is AES-GCM where both processors have instructions for that.
func secure(conn *net.TCPConn, secret []byte, role string) (*secured, error) {
	peer := map[string]string{dialler: listener, listener: dialler}[role]
	conf, err := laneConfig(laneKey(secret, role), laneKey(secret, peer).Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	out := &gather{Conn: conn}
	if role == dialler {
		return &secured{tls.Client(out, conf), conn, out}, nil
	}
	return &secured{tls.Server(out, conf), conn, out}, nil
}

// laneKey is the key of one end: not the other's, so that nothing can be played back.
func laneKey(secret []byte, role string) ed25519.PrivateKey {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("rdmaxfer lane key " + role))
	return ed25519.NewKeyFromSeed(h.Sum(nil))
}

func laneConfig(mine ed25519.PrivateKey, theirs ed25519.PublicKey) (*tls.Config, error) {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, mine.Public(), mine)
	if err != nil {
		return nil, fmt.Errorf("making a lane's certificate: %w", err)
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: mine}},
		SessionTicketsDisabled: true,
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // no name and no authority counts, the key does:
		VerifyConnection: func(s tls.ConnectionState) error {
			// There is one: TLS 1.3 servers must have one, and clients are asked for it.
			if !theirs.Equal(s.PeerCertificates[0].PublicKey) {
				return errStranger
			}
			return nil
		},
		NextProtos:                  []string{"rdmaxfer-lane/1"},
		DynamicRecordSizingDisabled: true, // 16 KiB from the first on
	}, nil
}

var errStranger = &transfer.Error{Code: transfer.CodeAuth, Err: errors.New("whoever answers does not know the session's secret: somebody stands between the two hosts")}

// shakeHands makes the handshake. The receiving end bounds it by its openLimit.
func (s *secured) shakeHands(ctx context.Context) error {
	if err := s.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("encrypting a TCP lane: %w", err)
	}
	return nil
}

// writeAnswer writes a header and its payload.
func (s *secured) writeAnswer(head, payload []byte) error {
	s.out.hold = true
	_, err := s.Write(head)
	if err == nil {
		_, err = s.Write(payload)
	}
	s.out.hold = false
	if err == nil {
		err = s.out.flush()
	}
	return err
}

// hangUp closes the connection without a word: the peer may not read what would say so.
func (s *secured) hangUp() error { return s.raw.Close() }

// gathered is how much is written at once, bytes. On loopback 64 KiB moved more than
// single records and than 128 KiB (docs/performance.md).
const gathered = 64 << 10

// gather keeps records back while it is held.
type gather struct {
	net.Conn
	hold bool
	buf  []byte
}

// Write takes one record.
func (g *gather) Write(p []byte) (int, error) {
	if !g.hold {
		return g.Conn.Write(p)
	}
	g.buf = append(g.buf, p...)
	if len(g.buf) < gathered {
		return len(p), nil
	}
	return len(p), g.flush()
}

func (g *gather) flush() error {
	if len(g.buf) == 0 {
		return nil
	}
	_, err := g.Conn.Write(g.buf)
	g.buf = g.buf[:0]
	return err
}
