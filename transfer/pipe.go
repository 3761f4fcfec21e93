package transfer

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Pipe is the sink that writes one file or stream to a writer, in order, as it comes. It
// is good for one transfer. With digests on, no byte is written before the digest of its
// extent, or of its small file, was compared with the sender's: a reader never sees
// damaged bytes. What follows may still be lost, so a reader must look at how the
// transfer ended before it believes that the file is whole.
type Pipe struct {
	ctx  context.Context
	out  io.Writer
	name string

	mu    sync.Mutex
	begun bool
}

// NewPipe makes a sink of a writer, which name names in messages. When ctx ends, nothing
// waits for a writer that hangs any more; the call that hangs goes on until it returns.
func NewPipe(ctx context.Context, out io.Writer, name string) *Pipe {
	return &Pipe{ctx: ctx, out: out, name: name}
}

// Begin is for one transfer: the bytes of a second one would follow those of the first.
func (p *Pipe) Begin([16]byte) (Destination, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun {
		return nil, errorf(CodeUsage, "%s takes one transfer, and has had it: receive again", p.name)
	}
	p.begun = true
	d := &piped{p: p, held: make(map[int64]*heldExtent), ended: make(chan struct{})}
	d.changed.L = &d.mu
	return d, nil
}

// Look is not the one transfer.
func (p *Pipe) Look([16]byte) (Outlook, error) {
	return foretold(func(e *wire.Entry) error { return single(e, p.name) }), nil
}

// Describe names the writer.
func (p *Pipe) Describe() string { return "to " + p.name }

// Durable is false: what becomes of the bytes is their reader's business.
func (p *Pipe) Durable() bool { return false }

// Close does nothing: the writer is its owner's.
func (p *Pipe) Close() error { return nil }

// pipeAhead is how many extents may be asked for beyond what was written: two lanes'
// requests, and the most that is held. Nobody waits with bytes in hand: an extent is not
// asked for before there is room. An extent that comes again, because it was damaged or
// its lane died, is within what was asked for before and goes out first, so the one that
// everything waits for is always under way.
const pipeAhead = 2 * DefaultDepth

// piped is a transfer's Destination, and the Landing of its one entry.
type piped struct {
	p     *Pipe
	file  uint32
	allow func(below int64)
	fail  func(file uint32, err error)
	quit  func() bool   // forgets the end of p.ctx
	ended chan struct{} // closed when nothing is written any more

	mu      sync.Mutex
	changed sync.Cond // on mu
	held    map[int64]*heldExtent
	free    [][]byte
	next    int64 // number of the extent that is written next
	writing bool  // the one before it
	over    bool  // nobody wants the rest
	err     error // why nothing can be written
}

// heldExtent waits for its turn, or to be sound.
type heldExtent struct {
	b     []byte
	sound bool
}

// pace begins: it allows what there is room for, now and whenever something was written.
func (d *piped) pace(allow func(below int64), fail func(file uint32, err error)) {
	d.allow, d.fail = allow, fail
	d.quit = context.AfterFunc(d.p.ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.err == nil {
			d.err = causeOf(d.p.ctx, d.p.ctx.Err())
		}
		d.changed.Broadcast()
	})
	allow(pipeAhead * DefaultExtentSize)
	go d.write()
}

// write writes what is sound and has its turn, until the transfer ends.
func (d *piped) write() {
	defer close(d.ended)
	for e := d.turn(); e != nil; e = d.turn() {
		_, err := d.p.out.Write(e.b)
		if err != nil {
			err = d.failed(err)
		}
		d.mu.Lock()
		d.writing = false
		if d.err == nil {
			d.err = err
		}
		d.free = append(d.free, e.b)
		next := d.next
		d.changed.Broadcast()
		d.mu.Unlock()
		if err != nil {
			d.fail(d.file, err)
			return
		}
		d.allow((next + pipeAhead) * DefaultExtentSize)
	}
}

// turn waits for the extent that is written next; nil when there will be none.
func (d *piped) turn() *heldExtent {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.over && d.err == nil {
		if e := d.held[d.next]; e != nil && e.sound {
			delete(d.held, d.next)
			d.next++
			d.writing = true
			return e
		}
		d.changed.Wait()
	}
	return nil
}

func (d *piped) failed(err error) error {
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
		return errorf(CodeLocalIO, "%s: its reader ended before everything had come: %w", d.p.name, err)
	}
	return errorf(CodeLocalIO, "writing to %s: %w", d.p.name, err)
}

// Check refuses all but one file or stream.
func (d *piped) Check(e *wire.Entry) (*Finished, error) { return nil, single(e, d.p.name) }

// Mkdir is never reached: Check refuses directories.
func (d *piped) Mkdir(e *wire.Entry) error { return single(e, d.p.name) }

// Finish is never reached either.
func (d *piped) Finish(e *wire.Entry) error { return single(e, d.p.name) }

// Symlink is never reached either.
func (d *piped) Symlink(e *wire.Entry) error { return single(e, d.p.name) }

// HardLink is refused.
func (d *piped) HardLink(e *wire.Entry) error { return single(e, d.p.name) }

// Resume has nothing: what was written is gone.
func (d *piped) Resume(*wire.Entry) (Landing, []Block, error) { return nil, nil, nil }

// Create makes the place of the one entry.
func (d *piped) Create(e *wire.Entry) (Landing, error) {
	d.file = e.File
	return d, nil
}

// Put is Create and WriteAt.
func (d *piped) Put(e *wire.Entry, b []byte) (Landing, error) {
	d.file = e.File
	_, err := d.WriteAt(b, 0)
	return d, err
}

// WriteAt keeps an extent until it is sound and has its turn. One that was damaged is
// replaced; what is sound already stays.
func (d *piped) WriteAt(b []byte, off int64) (int, error) {
	n := off / DefaultExtentSize
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return 0, d.err
	}
	e := d.held[n]
	if d.over || n < d.next || e != nil && e.sound {
		return len(b), nil
	}
	if e == nil {
		e = new(heldExtent)
		if last := len(d.free) - 1; last >= 0 {
			e.b, d.free = d.free[last], d.free[:last]
		}
		d.held[n] = e
	}
	e.b = append(e.b[:0], b...)
	return len(b), nil
}

// sound lets an extent be written.
func (d *piped) sound(extent int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.held[int64(extent)]; e != nil {
		e.sound = true
		d.changed.Broadcast()
	}
}

// Verified says nothing new: sound has said it of every extent.
func (d *piped) Verified(uint32, Digest) {}

// Storage has nothing to say: a pipe is not on a disk.
func (*piped) Storage() Storage { return Storage{} }

// Commit waits until everything is written. The sender has vouched for all of it; of a
// small file this is the first word.
func (d *piped) Commit(list []Whole) []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.held {
		e.sound = true
	}
	d.changed.Broadcast()
	for d.err == nil && (len(d.held) > 0 || d.writing) {
		d.changed.Wait()
	}
	if err := closeTwin(d.p.out); d.err == nil && err != nil {
		d.err = d.failed(err)
	}
	errs := make([]error, len(list))
	spread(errs, d.err)
	return errs
}

// closeTwin closes a copy of a file's descriptor: some file systems, of a network, say only
// then that they could not keep what was written (close(2)).
func closeTwin(w io.Writer) error {
	file, ok := w.(*os.File)
	if !ok {
		return nil
	}
	return control(file, func(fd int) error {
		twin, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			err = unix.Close(twin)
		}
		return err
	})
}

// Abort writes no more. What was written can't be taken back.
func (d *piped) Abort() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	clear(d.held)
	d.changed.Broadcast()
}

// Leave is Abort: nothing is kept.
func (d *piped) Leave() { d.Abort() }

// Close waits for the write that is under way.
func (d *piped) Close(bool) error {
	d.Abort()
	select {
	case <-d.ended:
	case <-d.p.ctx.Done():
	}
	d.quit()
	return nil
}
