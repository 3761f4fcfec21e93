package transfer

import (
	"fmt"
	"sync"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// maxAttempts is how often an extent may arrive damaged before its file is given
// up: a link that corrupts now and then is put up with, one that always does is not.
const maxAttempts = 3

// inbound is one file on its way in.
type inbound struct {
	entry   wire.Entry
	landing Landing

	mu       sync.Mutex
	settled  bool           // committed or given up; nothing more is written
	left     int            // extents that have not landed
	landed   []bool         // by extent number, as far as extents have come
	mine     []Digest       // the same; empty when nothing is verified
	theirs   map[int]Digest // as the sender said
	attempts int
}

func (f *inbound) extents(size int64) int { return int((f.entry.Size + size - 1) / size) }

// grow makes room for extent n. A manifest may claim files of any size: memory is
// taken for what has come alone. f.mu is held.
func (f *inbound) grow(n int, verify bool) {
	if more := n + 1 - len(f.landed); more > 0 {
		f.landed = append(f.landed, make([]bool, more)...)
	}
	if more := n + 1 - len(f.mine); verify && more > 0 {
		f.mine = append(f.mine, make([]Digest, more)...)
	}
}

// entry makes a place for a file of the manifest.
func (p *pull) entry(e *wire.Entry) error {
	p.mu.Lock()
	if p.manifest || int(e.File) != len(p.files) {
		p.mu.Unlock()
		return fmt.Errorf("%w: entry %d is out of order", wire.ErrMalformed, e.File)
	}
	if p.paths[e.Path] {
		p.mu.Unlock()
		return fmt.Errorf("%w: two entries of path %+q", wire.ErrMalformed, e.Path)
	}
	f := &inbound{entry: *e}
	p.files[e.File] = f
	p.paths[e.Path] = true
	p.open++
	p.mu.Unlock()

	landing, err := p.Sink.Create(e)
	if err != nil {
		p.fail(e.File, err, true)
		return nil
	}
	n := f.extents(p.sched.extentSize)
	f.mu.Lock()
	f.landing = landing
	f.left = n
	f.theirs = make(map[int]Digest)
	f.mu.Unlock()
	if p.Progress != nil {
		p.Progress.Total.Add(e.Size)
	}
	p.sched.add(e.File, e.Size)
	if n == 0 {
		return p.tellLanded(f)
	}
	return nil
}

// tellLanded asks the sender to vouch for a file.
func (p *pull) tellLanded(f *inbound) error {
	p.owe(f.entry.File)
	return p.s.Send(&wire.Landed{File: f.entry.File})
}

func (p *pull) manifestEnd(m *wire.ManifestEnd) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.manifest || int(m.Files) != len(p.files) {
		return fmt.Errorf("%w: the manifest ends with %d files of %d", wire.ErrMalformed, len(p.files), m.Files)
	}
	p.manifest = true
	p.checkDone()
	return nil
}

// checkDone closes done when every file is settled. p.mu is held.
func (p *pull) checkDone() {
	if p.manifest && p.open == 0 {
		close(p.done)
		p.open = -1 // once
	}
}

func (p *pull) file(n uint32) *inbound {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.files[n]
}

// land takes the bytes of one extent from a lane: their digest while they are
// warm, then the file.
func (p *pull) land(e Extent, b []byte) error {
	f := p.file(e.File)
	f.mu.Lock()
	settled := f.settled
	f.mu.Unlock()
	if settled {
		return nil
	}
	var d Digest
	if p.verify {
		d = hashExtent(b, e.Off, f.entry.Size)
	}
	if _, err := f.landing.WriteAt(b, e.Off); err != nil {
		p.fail(e.File, err, true)
		return nil
	}
	if p.Progress != nil {
		p.Progress.Moved.Add(int64(len(b)))
	}
	n := int(e.Off / p.sched.extentSize)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grow(n, p.verify)
	if f.landed[n] || f.settled {
		return nil
	}
	f.landed[n] = true
	if p.verify {
		f.mine[n] = d
	}
	if f.left--; f.left > 0 {
		return nil
	}
	return p.tellLanded(f)
}

// digests keeps what the sender says its extents hash to.
func (p *pull) digests(m *wire.Digests) error {
	f := p.file(m.File)
	if f == nil || !p.verify {
		return fmt.Errorf("%w: digests that nobody asked for", wire.ErrMalformed)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.settled {
		return nil
	}
	if f.left > 0 {
		return fmt.Errorf("%w: digests of a file that has not landed", wire.ErrMalformed)
	}
	for i, n := range m.Extents {
		if int64(n) >= int64(len(f.mine)) {
			return fmt.Errorf("%w: a digest of extent %d of %d", wire.ErrMalformed, n, len(f.mine))
		}
		f.theirs[int(n)] = Digest(m.Sums[i*wire.DigestSize : (i+1)*wire.DigestSize])
	}
	return nil
}

// vouched compares digests and lets the file have its name, or asks again for
// what arrived damaged.
func (p *pull) vouched(file uint32) error {
	f := p.file(file)
	if f == nil {
		return fmt.Errorf("%w: a voucher for file %d", wire.ErrMalformed, file)
	}
	f.mu.Lock()
	if f.settled {
		f.mu.Unlock()
		return nil
	}
	if f.left > 0 {
		f.mu.Unlock()
		return fmt.Errorf("%w: a voucher for a file that has not landed", wire.ErrMalformed)
	}
	p.said(file)
	damaged := f.damaged(p.sched.extentSize)
	if len(damaged) > 0 {
		f.attempts++
	}
	attempts := f.attempts
	f.settled = len(damaged) == 0
	f.mu.Unlock()

	switch {
	case len(damaged) == 0:
		p.commits.Go(func() { p.commit(f) })
	case attempts >= maxAttempts:
		p.fail(file, errorf(CodeIntegrity, "%s: %d extents arrived damaged %d times: the path between the hosts, or memory, corrupts data", Printable(f.entry.Path), len(damaged), attempts), true)
	default:
		p.sched.giveBack(damaged)
	}
	return nil
}

// damaged lists the extents whose digests differ and makes them wanted again.
// f.mu is held.
func (f *inbound) damaged(extentSize int64) (list []Extent) {
	for n := range f.mine {
		if d, ok := f.theirs[n]; ok && d == f.mine[n] {
			continue
		}
		off := int64(n) * extentSize
		list = append(list, Extent{File: f.entry.File, Off: off, Len: int(min(extentSize, f.entry.Size-off))})
		f.landed[n] = false
		f.left++
	}
	return list
}

// digest is the whole file's. Everything has landed.
func (f *inbound) digest() *Digest {
	var d Digest
	switch len(f.mine) {
	case 0:
		d = hashExtent(nil, 0, 0)
	case 1:
		d = f.mine[0]
	default:
		d = mergeExtents(f.mine)
	}
	return &d
}

// commit makes a file that is settled durable, names it, and sends its receipt.
func (p *pull) commit(f *inbound) {
	if err := f.landing.Commit(); err != nil {
		p.report(f, err, true)
		return
	}
	var digest *Digest
	receipt := &wire.Receipt{File: f.entry.File}
	if p.verify {
		digest = f.digest()
		receipt.Digest = digest[:]
	}
	if err := p.s.Send(receipt); err != nil {
		p.cancel(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.result.Files++
	p.result.Bytes += f.entry.Size
	p.finished = time.Now()
	p.Observer.File(FileResult{Path: f.entry.Path, Size: f.entry.Size, Digest: digest})
	p.open--
	p.checkDone()
}

// settle reports whether it is the caller who ends the file.
func (f *inbound) settle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.settled
	f.settled = true
	return !was
}

// fail gives a file up: it leaves nothing behind, the others go on.
func (p *pull) fail(file uint32, err error, tellSender bool) {
	f := p.file(file)
	if f == nil || !f.settle() {
		return
	}
	p.said(file)
	p.sched.drop(file)
	if f.landing != nil {
		f.landing.Abort()
	}
	p.report(f, err, tellSender)
}

// report counts a file that did not land, and tells whoever must know.
func (p *pull) report(f *inbound, err error, tellSender bool) {
	if tellSender {
		msg := &wire.FileFailed{File: f.entry.File, Code: uint8(CodeOf(err)), Reason: wire.Clip(err.Error())}
		if serr := p.s.Send(msg); serr != nil {
			p.cancel(serr)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures.add(err)
	p.Observer.File(FileResult{Path: f.entry.Path, Size: f.entry.Size, Err: err})
	p.open--
	p.checkDone()
}

// abandon gives up every file that is not settled, after the lanes have ended.
func (p *pull) abandon() {
	p.mu.Lock()
	files := make([]*inbound, 0, len(p.files))
	for _, f := range p.files {
		files = append(files, f)
	}
	p.mu.Unlock()
	for _, f := range files {
		if f.settle() && f.landing != nil {
			f.landing.Abort()
		}
	}
}
