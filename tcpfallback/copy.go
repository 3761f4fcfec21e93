package tcpfallback

import (
	"net"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// copyOut reads an extent into a buffer (pread) and writes header and buffer in
// one call (writev): two copies by the CPU, and the digest is taken of the very
// bytes that were sent.
type copyOut struct {
	buf  []byte
	head [wire.HeaderSize]byte
	vec  [2][]byte
}

func (*copyOut) name() string { return "copy" }

func (m *copyOut) answer(conn *net.TCPConn, src *transfer.Source, r wire.Request) error {
	p := m.buf[:min(int(r.Length), len(m.buf))]
	ok, err := src.Read(r, p)
	if err != nil {
		return err
	}
	if !ok {
		return refuse(conn, r)
	}
	a := wire.Answer{ID: r.ID, Length: r.Length}
	a.Put(m.head[:])
	m.vec = [2][]byte{m.head[:], p}
	v := net.Buffers(m.vec[:])
	if _, err := v.WriteTo(conn); err != nil {
		return err
	}
	src.Sent(r, p)
	return nil
}
