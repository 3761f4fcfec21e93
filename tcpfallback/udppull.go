package tcpfallback

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

const (
	// late is how long an ask may go unanswered before it counts as lost.
	late = 500 * time.Millisecond
	// overtaken is how many later asks must have been answered for one to be lost sooner:
	// packets seldom overtake as many others.
	overtaken = 32
	// glance is how long the socket is read at least before anything counts as lost: while
	// others had the processor it may have come.
	glance = 10 * time.Millisecond
	// deaf is how long nothing may come of what was asked for.
	deaf = 6 * late
	// overhead is what the kernel adds to what a datagram takes of a socket's room, roughly.
	overhead = 1024
)

// datagramPuller is the receiving end. It asks for extents part by part, with no more under
// way than the socket has room for, or than came through lately, and puts them together.
type datagramPuller struct {
	s       *datagrams
	theirs  [wire.TagSize]byte
	payload int // of a datagram
	depth   int // extents that are asked for at once
	window  int // bytes of the socket's room that may be expected at once
	due     int // that are

	extents []*assembly // the oldest first
	spare   []*assembly
	flying  []ask     // the oldest first; those that were answered behind it too
	oldest  uint32    // ID of flying[0]
	newest  uint32    // ID of the newest that was answered
	came    time.Time // when the socket gave something last
	heard   time.Time // the same, of what was asked for; or since when anything is

	in    []ipv4.Message
	out   []ipv4.Message
	heads []byte // room for asks

	asked, lost int64 // datagrams
}

// assembly is an extent that arrives in parts.
type assembly struct {
	e    transfer.Extent
	buf  []byte
	next int // bytes that were asked for
	left int // bytes that have not come
}

// ask is one part that was asked for.
type ask struct {
	of          *assembly // nil when all of it has come
	from, bytes int
	have        uint64 // the datagrams that have come
	at          time.Time
}

func newDatagramPuller(s *datagrams, theirs [wire.TagSize]byte, payload int, p transfer.LaneParams) *datagramPuller {
	d := &datagramPuller{s: s, theirs: theirs, payload: payload, depth: p.Depth, window: s.room, oldest: 1, in: make([]ipv4.Message, 64), heads: make([]byte, asksAtOnce*wire.AskSize)}
	size := payload
	if s.joins {
		size = 1 << 16
	}
	if size > 1<<14 {
		d.in = d.in[:8] // so large ones come alone
	}
	for i := range d.in {
		d.in[i].Buffers = [][]byte{make([]byte, size)}
		d.in[i].OOB = make([]byte, controlSize)
	}
	for range d.depth {
		d.spare = append(d.spare, &assembly{buf: make([]byte, p.ExtentSize)})
	}
	for i := range asksAtOnce {
		d.out = append(d.out, ipv4.Message{Buffers: [][]byte{d.heads[i*wire.AskSize:][:wire.AskSize]}})
	}
	return d
}

// Describe tells how large a datagram is, and whether the kernel joins them.
func (d *datagramPuller) Describe() string {
	return fmt.Sprintf("datagram=%d joined=%v", d.payload, d.s.joins)
}

// Close closes the socket.
func (d *datagramPuller) Close() error { return d.s.conn.Close() }

// Datagrams is [transfer.Lossy].
func (d *datagramPuller) Datagrams() (asked, lost int64) { return d.asked, d.lost }

// try asks for one whole datagram, and answers whether that came in time.
func (d *datagramPuller) try(limit time.Duration) (bool, error) {
	a := wire.Ask{}
	a.Put(d.heads, &d.theirs)
	if _, err := d.s.conn.Write(d.heads[:wire.AskSize]); err != nil && !unheard(err) {
		return false, err
	}
	until := time.Now().Add(limit)
	for {
		n, err := d.read(until)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		for i := range d.in[:n] {
			h, data, err := wire.ParseDatagram(d.in[i].Buffers[0][:d.in[i].N], &d.s.tag)
			if err == nil && h == (wire.Datagram{}) && len(data) == d.each() {
				return true, nil
			}
		}
	}
}

func (d *datagramPuller) read(until time.Time) (int, error) {
	if err := d.s.conn.SetReadDeadline(until); err != nil {
		return 0, err
	}
	n, err := d.s.batch.ReadBatch(d.in, 0)
	if err != nil && unheard(err) {
		err = errors.New("the sender's socket for datagrams is gone")
	}
	return n, err
}

// Pull asks and lands until the feed ends.
func (d *datagramPuller) Pull(ctx context.Context, f transfer.Feed) error {
	defer interrupt(ctx, d.s.conn)()
	for {
		err := d.ask(ctx, f)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = d.hear(ctx, f)
		}
		if err != nil {
			return ended(ctx, err)
		}
	}
}

// hear takes what has come, and gives up what has not.
func (d *datagramPuller) hear(ctx context.Context, f transfer.Feed) error {
	if ctx.Err() != nil { // a new deadline would hide that
		return ctx.Err()
	}
	until := d.flying[0].at.Add(late)
	if soon := time.Now().Add(glance); until.Before(soon) {
		until = soon
	}
	n, err := d.read(until)
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
		if time.Since(d.heard) > deaf {
			return fmt.Errorf("no datagram has come from the sender for %v: is UDP filtered on the way?", deaf)
		}
		return d.again(func(a *ask, _ uint32) bool { return time.Since(a.at) >= late })
	}
	if err != nil {
		return err
	}
	d.came = time.Now()
	for i := range d.in[:n] {
		m := &d.in[i]
		b := m.Buffers[0][:m.N]
		size := joined(m.OOB[:m.NN], m.N)
		for len(b) > 0 {
			one := b[:min(size, len(b))]
			b = b[len(one):]
			if err := d.take(one, f); err != nil {
				return err
			}
		}
	}
	return d.again(func(_ *ask, id uint32) bool { return int32(d.newest-id) >= overtaken })
}

// take takes one datagram. What was not asked for, or came before, is dropped: anybody may
// send it, or it was too late.
func (d *datagramPuller) take(b []byte, f transfer.Feed) error {
	h, data, err := wire.ParseDatagram(b, &d.s.tag)
	nth := h.ID - d.oldest
	if err != nil || nth >= uint32(len(d.flying)) || d.flying[nth].of == nil {
		return nil
	}
	a := &d.flying[nth]
	count := uint32(d.count(a.bytes))
	if h.Index >= count || a.have&(1<<h.Index) != 0 || len(data) != min(d.each(), a.bytes-int(h.Index)*d.each()) {
		return nil
	}
	d.heard = d.came
	a.have |= 1 << h.Index
	of := a.of
	of.left -= len(data)
	whole := len(data) == of.e.Len // needs no putting together
	if !whole {
		copy(of.buf[a.from+int(h.Index)*d.each():], data)
	}
	if a.have == 1<<count-1 {
		d.answered(a, h.ID)
	}
	if of.left > 0 {
		return nil
	}
	d.over(of)
	if whole {
		return f.Land(of.e, data)
	}
	return f.Land(of.e, of.buf[:of.e.Len])
}

// answered makes room for others.
func (d *datagramPuller) answered(a *ask, id uint32) {
	a.of = nil
	cost := d.cost(a.bytes)
	d.due -= cost
	d.window = min(d.s.room, d.window+cost/8)
	if int32(id-d.newest) > 0 {
		d.newest = id
	}
	d.settle()
}

// settle forgets the oldest asks that have been answered.
func (d *datagramPuller) settle() {
	n := 0
	for n < len(d.flying) && d.flying[n].of == nil {
		n++
	}
	d.flying = append(d.flying[:0], d.flying[n:]...)
	d.oldest += uint32(n)
}

// over takes an extent that is whole out of those that are under way.
func (d *datagramPuller) over(a *assembly) {
	for i, other := range d.extents {
		if other == a {
			d.extents = append(d.extents[:i], d.extents[i+1:]...)
			break
		}
	}
	d.spare = append(d.spare, a)
}
