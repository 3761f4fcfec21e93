package tcpfallback

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/rdmaxfer/rdmaxfer/tcpfallback/compress"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// puller is the receiving end: up to depth requests are on their way, answers
// come in the order of the requests.
type puller struct {
	conn   net.Conn // a *net.TCPConn or a *secured
	depth  int
	method string
	// landing is how the user wants extents to land, one of Landings; way what that is for
	// this feed.
	landing string
	way     landing

	buf      []byte // the extent that is arriving
	packed   []byte // the same, compressed; nil when none was
	decoder  compress.Decoder
	out      []byte // request headers that wait to be written
	inFlight []transfer.Extent
	low      lowWater
	arrived  atomic.Uint64
	still    atomic.Int32 // how often nothing more had arrived
	unfit    atomic.Bool  // a file could not be written in the way that was asked for
	nextID   uint32       // of the next request
	oldestID uint32       // of inFlight[0]
}

// Describe names the method as the summary line does, and the landing, if it is not up to
// this lane: as it was used, where it can't be what was asked for.
func (p *puller) Describe() string {
	landing := p.landing
	switch _, clear := p.conn.(*net.TCPConn); {
	case landing == "auto":
		return describe(p.conn, p.method)
	case !clear || p.unfit.Load():
		landing = "copy"
	}
	return describe(p.conn, p.method) + " landing=" + landing
}

// Close closes the connection; the sender's end sees an end.
func (p *puller) Close() error { return p.conn.Close() }

// Pull asks and lands until the feed ends.
func (p *puller) Pull(ctx context.Context, f transfer.Feed) error {
	defer interrupt(ctx, p.conn)()
	p.low.TCPConn, _ = p.conn.(*net.TCPConn)
	var err error
	if p.way, err = p.wayIn(f); err != nil {
		return err
	}
	defer func() {
		if p.way != nil {
			p.way.close()
		}
	}()
	for {
		err := p.ask(ctx, f)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = p.landOne(f)
		}
		if err != nil {
			return ended(ctx, err)
		}
	}
}

// ask requests as many extents as may be in flight, in one write, once there is room for a
// quarter of them: each write wakes the sender. It waits for an extent only when nothing is in
// flight; io.EOF means that there are no more.
func (p *puller) ask(ctx context.Context, f transfer.Feed) error {
	if len(p.inFlight) > p.depth-max(p.depth/4, 1) {
		return nil
	}
	p.out = p.out[:0]
	for len(p.inFlight) < p.depth {
		e, ok := f.TryNext()
		if !ok && len(p.inFlight) > 0 {
			break
		}
		if !ok {
			var err error
			if e, err = f.Next(ctx); err != nil {
				return err
			}
		}
		r := e.Request(p.nextID)
		var head [wire.HeaderSize]byte
		r.Put(head[:])
		p.out = append(p.out, head[:]...)
		p.inFlight = append(p.inFlight, e)
		p.nextID++
	}
	if len(p.out) == 0 {
		return nil
	}
	_, err := p.conn.Write(p.out)
	return err
}

// landOne reads the answer to the oldest request and lands it.
func (p *puller) landOne(f transfer.Feed) error {
	var head [wire.HeaderSize]byte
	if err := p.fill(head[:]); err != nil {
		return err
	}
	a, err := wire.ParseAnswer(head[:])
	if err != nil {
		return err
	}
	e := p.inFlight[0]
	if a.ID != p.oldestID || a.Status == wire.StatusOK && int(a.Length) != e.Len || a.Status == wire.StatusCompressed && int(a.Length) >= e.Len {
		return fmt.Errorf("%w: an answer of %d bytes to request %d, expected %d bytes to %d", wire.ErrMalformed, a.Length, a.ID, e.Len, p.oldestID)
	}
	if err := p.low.expect(int(a.Length)); err != nil {
		return err
	}
	if p.way != nil && a.Status == wire.StatusOK {
		files := f.(transfer.FileFeed)
		if file := files.Place(e); file != nil {
			return p.place(files, e, file)
		}
	}
	if err := p.read(a, p.buf[:e.Len]); err != nil {
		return err
	}
	p.answered()
	if a.Status == wire.StatusFailed {
		f.Refuse(e)
		return nil
	}
	return f.Land(e, p.buf[:e.Len])
}

// answered moves on to the next request.
func (p *puller) answered() {
	p.inFlight = append(p.inFlight[:0], p.inFlight[1:]...)
	p.oldestID++
}

// read takes an answer's payload off the connection and makes b, the extent, of it.
func (p *puller) read(a wire.Answer, b []byte) error {
	switch a.Status {
	case wire.StatusOK:
		return p.fill(b)
	case wire.StatusCompressed:
		if p.packed == nil {
			p.packed = make([]byte, len(p.buf))
		}
		packed := p.packed[:a.Length]
		if err := p.fill(packed); err != nil {
			return err
		}
		return p.decoder.Decode(b, packed)
	}
	return nil
}

// interrupt makes the end of ctx end every read and write of conn. The function
// that it answers takes that back.
func interrupt(ctx context.Context, conn net.Conn) func() bool {
	return context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
}

// ended says why a connection's operation failed.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the TCP lane was closed by the peer")
	}
	return err
}
