package tcpfallback

import (
	"context"
	"math/bits"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// each is how many bytes of an extent a datagram brings.
func (d *datagramPuller) each() int { return d.payload - wire.DatagramHeaderSize }

// count is how many datagrams bring so many bytes.
func (d *datagramPuller) count(bytes int) int { return (bytes + d.each() - 1) / d.each() }

// cost is what so many bytes take of the socket's room.
func (d *datagramPuller) cost(bytes int) int { return 2*bytes + overhead*d.count(bytes) }

// ask takes as many extents as may be asked for at once, and asks for their parts.
func (d *datagramPuller) ask(ctx context.Context, f transfer.Feed) error {
	for len(d.extents) < d.depth {
		e, ok := f.TryNext()
		if !ok && len(d.extents) > 0 {
			break
		}
		if !ok {
			var err error
			if e, err = f.Next(ctx); err != nil {
				return err
			}
		}
		a := d.spare[len(d.spare)-1]
		d.spare = d.spare[:len(d.spare)-1]
		a.e, a.next, a.left = e, 0, e.Len
		d.extents = append(d.extents, a)
	}
	n := 0
	for _, a := range d.extents {
		for a.next < a.e.Len {
			bytes := min(a.e.Len-a.next, parts(d.payload)*d.each())
			if d.due > 0 && d.due+d.cost(bytes) > d.window {
				return d.send(n)
			}
			if n == len(d.out) {
				if err := d.send(n); err != nil {
					return err
				}
				n = 0
			}
			d.put(n, ask{of: a, from: a.next, bytes: bytes})
			n++
			a.next += bytes
		}
	}
	return d.send(n)
}

// put makes the nth ask of those that are sent next.
func (d *datagramPuller) put(n int, a ask) {
	a.at = time.Now()
	if len(d.flying) == 0 {
		d.heard = a.at
	}
	id := d.oldest + uint32(len(d.flying))
	w := wire.Ask{Request: a.of.e.Request(id), From: uint32(a.from), Bytes: uint32(a.bytes)}
	w.Put(d.heads[n*wire.AskSize:], &d.theirs)
	d.flying = append(d.flying, a)
	d.due += d.cost(a.bytes)
	d.asked += int64(d.count(a.bytes) - bits.OnesCount64(a.have))
}

func (d *datagramPuller) send(n int) error {
	for at := 0; at < n; {
		sent, err := d.s.batch.WriteBatch(d.out[at:n], 0)
		if err != nil && dropped(err) {
			return nil
		}
		if err != nil {
			return err
		}
		at += sent
	}
	return nil
}

// again counts what of the asks that are lost has not come, and asks for it once more: half
// as much at once, for a while, may be what gets through.
func (d *datagramPuller) again(lost func(a *ask, id uint32) bool) error {
	n := 0
	for i := 0; i < len(d.flying); i++ {
		a := d.flying[i]
		if a.of == nil || !lost(&a, d.oldest+uint32(i)) {
			continue
		}
		if n == len(d.out) {
			break // the others soon
		}
		d.lost += int64(d.count(a.bytes) - bits.OnesCount64(a.have))
		d.flying[i].of = nil
		d.due -= d.cost(a.bytes)
		d.put(n, a)
		n++
	}
	if n == 0 {
		return nil
	}
	d.window = max(d.window/2, d.cost(d.each()))
	d.settle()
	return d.send(n)
}
