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
	conn   *net.TCPConn
	method method
}

// Describe names the method as the summary line does.
func (s *server) Describe() string { return "method=" + s.method.name() }

// Close closes the connection.
func (s *server) Close() error { return s.conn.Close() }

// Serve answers until the receiver closes the connection.
func (s *server) Serve(ctx context.Context, src *transfer.Source) error {
	defer interrupt(ctx, s.conn)()
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
		if err := s.method.answer(s.conn, src, r); err != nil {
			return ended(ctx, err)
		}
	}
}

// refuse answers that the file has failed.
func refuse(conn *net.TCPConn, r wire.Request) error {
	var head [wire.HeaderSize]byte
	a := wire.Answer{ID: r.ID, Status: wire.StatusFailed}
	a.Put(head[:])
	_, err := conn.Write(head[:])
	return err
}
