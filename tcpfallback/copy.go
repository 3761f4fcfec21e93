package tcpfallback

import (
	"errors"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/tcpfallback/compress"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// copyOut reads an extent into a buffer (pread) and writes header and buffer in
// one call (writev): two copies by the CPU, and the digest is taken of the very
// bytes that were sent. Between the two the extent may be compressed. What was read of a
// stream is in memory, and sent from there.
type copyOut struct {
	buf     []byte
	head    [wire.HeaderSize]byte
	vec     [2][]byte
	chooser *compress.Chooser
	packed  []byte // room for a compressed extent; nil when nothing is compressed
}

func newCopyOut(mode compress.Mode, extentSize int) *copyOut {
	m := &copyOut{buf: make([]byte, extentSize), chooser: compress.NewChooser(mode)}
	if mode != compress.None {
		m.packed = make([]byte, compress.Bound(extentSize))
	}
	return m
}

func (*copyOut) name() string { return "copy" }

func (*copyOut) release() {}

func (m *copyOut) answer(conn net.Conn, src *transfer.Source, r wire.Request) (moved bool, err error) {
	p, release := src.Hold(r)
	if release != nil {
		defer release()
	} else {
		p = m.buf[:min(int(r.Length), len(m.buf))]
		ok, err := src.Read(r, p)
		if err != nil {
			return false, err
		}
		if !ok {
			return false, refuse(conn, r)
		}
	}
	m.chooser.Start()
	payload, compressed := m.chooser.Payload(m.packed, p)
	status := wire.StatusOK
	if compressed {
		status = wire.StatusCompressed
	}
	if err := m.write(conn, r, status, payload); err != nil {
		return false, err
	}
	m.chooser.Sent()
	src.Sent(r, p)
	return true, nil
}

// write sends the answer to r, header and payload in one call.
func (m *copyOut) write(conn net.Conn, r wire.Request, status wire.Status, payload []byte) error {
	a := wire.Answer{ID: r.ID, Status: status, Length: uint32(len(payload))}
	a.Put(m.head[:])
	if c, ok := conn.(*secured); ok {
		return c.writeAnswer(m.head[:], payload)
	}
	m.vec = [2][]byte{m.head[:], payload}
	v := net.Buffers(m.vec[:])
	_, err := v.WriteTo(conn)
	return err
}

// fileOf gives the file that r asks for a range of, for a method that lets the kernel
// read it. Where there is none it answers r, as copy does or with a refusal.
func (m *copyOut) fileOf(conn net.Conn, src *transfer.Source, r wire.Request) (*os.File, error) {
	if !src.Plain(r) {
		_, err := m.answer(conn, src, r)
		return nil, err
	}
	file, err := src.File(r)
	if file == nil && err == nil {
		err = refuse(conn, r)
	}
	return file, err
}

// failIn looks, when the kernel has broken off in the middle of r, whether that was the file's
// doing, and fails it then: it would break every lane, and nobody be told of it.
func (m *copyOut) failIn(src *transfer.Source, r wire.Request, file *os.File, err error) {
	if !errors.Is(err, io.ErrUnexpectedEOF) { // else it was truncated
		if ofConnection(err) {
			return
		}
		_, err = file.ReadAt(m.buf[:r.Length], r.Offset)
	}
	if err != nil {
		src.Fail(r, err)
	}
}

// ofConnection reports whether an error is surely no file's.
func ofConnection(err error) bool {
	return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed)
}

// byHand answers r from a file of which the kernel moves nothing by itself. Its header may
// have been sent.
func (m *copyOut) byHand(conn net.Conn, src *transfer.Source, r wire.Request, file *os.File, promised bool) (moved bool, err error) {
	p := m.buf[:r.Length]
	switch _, err := file.ReadAt(p, r.Offset); {
	case err != nil && promised: // the receiver waits for what there is not
		src.Fail(r, err)
		return false, err
	case err != nil:
		src.Fail(r, err)
		return false, refuse(conn, r)
	}
	if promised {
		_, err = conn.Write(p)
	} else {
		err = m.write(conn, r, wire.StatusOK, p)
	}
	if err == nil {
		src.Sent(r, p)
	}
	return err == nil, err
}
