package transfer

import (
	"fmt"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// A dry run is a session of Hello, Welcome and the manifest, in which every Entry is
// answered by Foreseen or FileFailed. There are no lanes, and neither end has anything
// to write to.

// expects reports whether the receiver may say that now. In a dry run it opens no lane
// and asks for no byte.
func (p *push) expects(m wire.Message) bool {
	switch m.(type) {
	case *wire.Foreseen:
		return p.DryRun
	case *wire.More, *wire.FileFailed, *wire.Done, *wire.Abort:
		return true
	}
	return !p.DryRun
}

// foreseen hears what would become of an entry that would land.
func (p *push) foreseen(m *wire.Foreseen) error {
	f, err := p.Source.file(m.File)
	if f == nil || err != nil {
		return err
	}
	if m.Here > f.entry.Size {
		return fmt.Errorf("%w: %d bytes are here of a file of %d", wire.ErrMalformed, m.Here, f.entry.Size)
	}
	if f.entry.Kind != wire.Dir {
		p.mu.Lock()
		p.landed++
		p.mu.Unlock()
	}
	p.settle(m.File, FileResult{Foreseen: &Foreseen{Here: m.Here, Done: m.Done, Replaces: m.Replaces}})
	return nil
}

// dry completes a result of a dry run.
func dry(e *wire.Entry, r *FileResult) {
	if r.Foreseen == nil {
		r.Foreseen = new(Foreseen)
	}
	if e.Kind == wire.Stream {
		r.Size = -1
	}
}

// look begins a dry run. It fails when a transport is required that can't be had.
func (p *pull) look() error {
	p.result.DryRun, p.failures.dry = true, true
	if err := (&keeper{l: &p.lanes, ctx: p.ctx}).choose(nil); err != nil {
		return err
	}
	outlook, err := p.Sink.Look(ledgerID(p.hello))
	if err != nil {
		return err
	}
	p.outlook = outlook
	return p.welcome(false)
}

// foresee answers an entry of a dry run.
func (p *pull) foresee(f *inbound) error {
	e := &f.entry
	if e.Kind == wire.HardLink {
		p.mu.Lock()
		err := p.manifest.lostFirst(e)
		p.mu.Unlock()
		if err != nil {
			return err
		}
	}
	would, err := p.outlook.Foresee(e)
	if err != nil {
		return err
	}
	// The last entry's answer must not come after Done.
	if err := p.s.Queue(&wire.Foreseen{File: e.File, Here: would.Here, Done: would.Done, Replaces: would.Replaces}); err != nil {
		p.cancel(err)
	}
	f.settle()
	if e.Kind == wire.Dir {
		p.enter(f, false)
	} else {
		r := FileResult{Path: e.Path, Size: e.Size, Kind: p.verify, Foreseen: &would}
		dry(e, &r)
		p.mu.Lock()
		p.result.Files++
		p.result.Bytes += e.Size
		p.result.Resumed += would.Here
		p.mu.Unlock()
		p.tell(p.Observer, func(o Observer) { o.File(r) })
	}
	p.settled(f)
	p.release(f.dir)
	return nil
}
