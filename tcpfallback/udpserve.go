package tcpfallback

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/net/ipv4"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// asksAtOnce is how many asks are taken, and answered, in one system call.
const asksAtOnce = 16

// datagramServer is the sending end: it answers each ask with the datagrams that it takes.
type datagramServer struct {
	s       *datagrams
	theirs  [wire.TagSize]byte
	payload int  // of a datagram
	segment bool // the kernel makes the datagrams
	asks    []ipv4.Message
	parts   []part
	out     []ipv4.Message
}

// part is what one ask is answered with.
type part struct {
	data  []byte
	heads []byte
	bufs  [][]byte
	oob   []byte
}

func newDatagramServer(s *datagrams, theirs [wire.TagSize]byte, payload int) *datagramServer {
	d := &datagramServer{s: s, theirs: theirs, payload: payload, segment: true, asks: make([]ipv4.Message, asksAtOnce), parts: make([]part, asksAtOnce)}
	n := parts(payload)
	for i := range d.asks {
		d.asks[i].Buffers = [][]byte{make([]byte, wire.AskSize+1)} // what has one more is no ask
		d.parts[i] = part{make([]byte, n*(payload-wire.DatagramHeaderSize)), make([]byte, n*wire.DatagramHeaderSize), make([][]byte, 0, 2*n), make([]byte, controlSize)}
	}
	return d
}

// Describe tells how large a datagram is, and whether the kernel makes them of larger pieces.
func (d *datagramServer) Describe() string {
	return fmt.Sprintf("datagram=%d segmented=%v", d.payload, d.segment && parts(d.payload) > 1)
}

// Close closes the socket.
func (d *datagramServer) Close() error { return d.s.conn.Close() }

// Serve answers until ctx ends, or the other end's socket is gone.
func (d *datagramServer) Serve(ctx context.Context, src *transfer.Source) error {
	defer interrupt(ctx, d.s.conn)()
	for {
		n, err := d.s.batch.ReadBatch(d.asks, 0)
		if err == nil {
			err = d.answer(src, d.asks[:n])
		}
		if err != nil && unheard(err) {
			return nil
		}
		if err != nil {
			return ended(ctx, err)
		}
	}
}

// answer answers all at once. What is no ask of the other end's is dropped: anybody may
// send that.
func (d *datagramServer) answer(src *transfer.Source, asks []ipv4.Message) error {
	d.out = d.out[:0]
	for i := range asks {
		a, err := wire.ParseAsk(asks[i].Buffers[0][:asks[i].N], &d.s.tag)
		if err != nil || int(a.Bytes) > len(d.parts[i].data) || a.Count != 0 {
			continue
		}
		if err := d.fill(src, &a, &d.parts[i]); err != nil {
			return err
		}
	}
	return d.send()
}

// fill makes the datagrams that are asked for.
func (d *datagramServer) fill(src *transfer.Source, a *wire.Ask, p *part) error {
	each := d.payload - wire.DatagramHeaderSize
	data := p.data[:each]
	if a.Length > 0 {
		data = p.data[:a.Bytes]
		file, err := src.File(a.Request)
		if err != nil {
			return err
		}
		if file == nil {
			return errors.New("what is measured with can't be read")
		}
		if _, err := file.ReadAt(data, a.Offset+int64(a.From)); err != nil {
			return err
		}
	}
	p.bufs = p.bufs[:0]
	for i := 0; len(data) > 0; i++ {
		head := p.heads[i*wire.DatagramHeaderSize:][:wire.DatagramHeaderSize]
		wire.Datagram{ID: a.ID, Index: uint32(i)}.Put(head, &d.theirs)
		n := min(each, len(data))
		p.bufs = append(p.bufs, head, data[:n])
		data = data[n:]
	}
	d.push(p)
	return nil
}

// push has the datagrams of one ask sent, in one piece or one by one.
func (d *datagramServer) push(p *part) {
	switch {
	case len(p.bufs) == 2:
		d.out = append(d.out, ipv4.Message{Buffers: p.bufs})
	case d.segment:
		d.out = append(d.out, ipv4.Message{Buffers: p.bufs, OOB: segments(p.oob, d.payload)})
	default:
		for i := 0; i < len(p.bufs); i += 2 {
			d.out = append(d.out, ipv4.Message{Buffers: p.bufs[i : i+2]})
		}
	}
}

func (d *datagramServer) send() error {
	for at := 0; at < len(d.out); {
		n, err := d.s.batch.WriteBatch(d.out[at:], 0)
		at += max(n, 0)
		switch {
		case err == nil:
		case d.segment && cantSegment(err):
			d.segment = false
			d.out = apart(d.out[at:])
			at = 0
		case dropped(err):
			return nil // what is lost is asked for again
		default:
			return err
		}
	}
	return nil
}

// apart makes single datagrams of those that the kernel was to cut.
func apart(list []ipv4.Message) (all []ipv4.Message) {
	for _, m := range list {
		for i := 0; i < len(m.Buffers); i += 2 {
			all = append(all, ipv4.Message{Buffers: m.Buffers[i : i+2]})
		}
	}
	return all
}
