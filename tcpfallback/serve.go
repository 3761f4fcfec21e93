package tcpfallback

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// server is the sending end: it answers requests one after the other.
type server struct {
	conn   net.Conn // a *net.TCPConn or a *secured
	method method
}

// Describe names the method as the summary line does.
func (s *server) Describe() string { return describe(s.conn, s.method.name()) }

func describe(conn net.Conn, method string) string {
	if _, ok := conn.(*secured); ok {
		return "method=" + method + " encrypted=tls1.3"
	}
	return "method=" + method
}

// Close closes the connection.
func (s *server) Close() error {
	s.method.release()
	if c, ok := s.conn.(*secured); ok {
		return c.hangUp()
	}
	return s.conn.Close()
}

// Serve answers until the receiver closes the connection.
func (s *server) Serve(ctx context.Context, src *transfer.Source) error {
	defer interrupt(ctx, s.conn)()
	if c, ok := s.conn.(*secured); ok {
		if err := c.shakeHands(ctx); err != nil {
			return ended(ctx, err)
		}
	}
	in := bufio.NewReaderSize(s.conn, 64*wire.HeaderSize)
	for {
		var head [wire.HeaderSize]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return ended(ctx, err)
		}
		r, err := wire.ParseRequest(head[:])
		if err != nil {
			return err
		}
		if _, err := s.method.answer(s.conn, src, r); err != nil {
			return ended(ctx, err)
		}
	}
}

// refuse answers that the file has failed.
func refuse(conn net.Conn, r wire.Request) error {
	var head [wire.HeaderSize]byte
	a := wire.Answer{ID: r.ID, Status: wire.StatusFailed}
	a.Put(head[:])
	_, err := conn.Write(head[:])
	return err
}
