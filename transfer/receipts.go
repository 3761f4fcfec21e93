package transfer

import (
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// What the sender hears of what landed.

func (p *push) receipts(m *wire.Receipt) error {
	for i, file := range m.Files {
		var sum *Digest
		if len(m.Digests) > 0 {
			sum = (*Digest)(m.Digests[i*wire.DigestSize:])
		}
		if err := p.receipt(file, sum); err != nil {
			return err
		}
	}
	return nil
}

func (p *push) receipt(file uint32, sum *Digest) error {
	f, err := p.Source.file(file)
	if err != nil {
		return err
	}
	if f != nil && f.entry.Kind != wire.Dir {
		p.mu.Lock()
		p.landed++
		if p.DeleteSource && f.entry.Kind != wire.Stream {
			p.arrived = append(p.arrived, f)
		}
		p.mu.Unlock()
	}
	p.settle(file, FileResult{Digest: sum})
	return nil
}

// settle reports one entry's end, once.
func (p *push) settle(file uint32, r FileResult) {
	f := p.Source.settle(file)
	if f == nil {
		return
	}
	p.mu.Lock()
	p.settled++
	if r.Err != nil {
		p.failures.add(r.Err, 1)
		if f.entry.Kind == wire.Dir && p.DeleteSource {
			p.lostDirs = append(p.lostDirs, f.entry.Path)
		}
	}
	p.mu.Unlock()
	if f.entry.Kind == wire.Dir && r.Err == nil {
		return
	}
	r.Path, r.Size, r.Kind = f.path, f.size(), p.Source.verify
	if p.DryRun {
		dry(&f.entry, &r)
	}
	p.tell(p.Observer, func(o Observer) { o.File(r) })
}

// plausible reports whether so many files may have landed that this end has no receipts for:
// no more than it gave up itself meanwhile.
func plausible(more, failedHere int) bool { return more >= 0 && more <= failedHere }

func (p *push) done(m *wire.Done) error {
	entries := p.Source.entries()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.result.Files = int(m.Files)
	p.result.Bytes = m.Bytes
	p.result.Resumed = m.Resumed
	p.result.Elapsed = time.Duration(m.Nanoseconds)
	p.redescribe()
	p.result.Plan.Detail = p.detail()
	p.result.Lanes = p.carried(m.Lanes)
	if !p.complete || p.settled != entries {
		return errorf(CodeOther, "%w: done after %d of %d entries", wire.ErrMalformed, p.settled, entries)
	}
	if !plausible(p.result.Files-p.landed, p.failedHere) {
		return errorf(CodeOther, "%w: %d files landed, and there are receipts for %d", wire.ErrMalformed, p.result.Files, p.landed)
	}
	return nil
}
