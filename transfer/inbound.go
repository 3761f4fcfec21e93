package transfer

import (
	"fmt"
	"slices"
	"sync"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// maxAttempts is how often an extent may arrive damaged before its file is given
// up: a link that corrupts now and then is put up with, one that always does is not.
const maxAttempts = 3

// inbound is one file or stream on its way in.
type inbound struct {
	entry wire.Entry
	dir   *inboundDir // that it lands in; nil for the destination itself

	mu      sync.Mutex
	landing Landing // from the first bytes on
	settled bool    // ready to be committed, or given up; nothing more is written
	size    int64   // bytes; of a stream, as far as it has grown
	resumed int64   // bytes that had landed before
	total   int     // extents; -1 while a stream has not ended
	here    int     // extents that landed and were not found damaged
	got     bitmap  // the same, by number
	asked   int     // highest extent number that was ever asked for, plus one
	arrived map[int]*arrival
	sum     *digest.Accumulator // of extents that were verified; nil for a small file
	small   Digest              // of a small file
	below   int                 // of a stream: extents before it are here for good
	waiting int                 // vouchers that the sender owes
	stale   bool                // an extent was asked for again since a voucher was: it says nothing of that
	rounds  int                 // vouchers that came too early, or without digests
	vouched bool                // of a small file: the sender has said
	theirs  Digest              // what this is
	names   []*inbound          // that it shall have too; pull's mu guards them
}

// arrival is an extent of which one digest is known and the other is not.
type arrival struct {
	mine     *digest.Node
	theirs   *Digest
	attempts int
}

// bitmap has a bit for each number that was ever set.
type bitmap []uint64

func (b bitmap) has(n int) bool { return n/64 < len(b) && b[n/64]&(1<<(n%64)) != 0 }

func (b *bitmap) set(n int) {
	for len(*b) <= n/64 { // memory is taken for what has come, not for what a manifest claims
		*b = append(*b, 0)
	}
	(*b)[n/64] |= 1 << (n % 64)
}

func (b bitmap) clear(n int) { b[n/64] &^= 1 << (n % 64) }

func (f *inbound) whole() bool { return f.here == f.total }

func (f *inbound) extent(n int, size int64) Extent {
	off := int64(n) * size
	return Extent{File: f.entry.File, Off: off, Len: int(min(size, f.size-off))}
}

// place gives where a file lands, made when its first bytes come; nil when nobody
// wants them any more.
func (p *pull) place(f *inbound) Landing {
	f.mu.Lock()
	var err error
	switch {
	case f.settled:
		f.mu.Unlock()
		return nil
	case f.landing == nil:
		f.landing, err = p.dest.Create(&f.entry)
		f.settled = err != nil
	}
	l := f.landing
	f.mu.Unlock()
	if err != nil {
		p.giveUp(f, err, true)
		return nil
	}
	return l
}

// land takes the bytes of one extent from a lane: their digest while they are
// warm, then the file.
func (p *pull) land(e Extent, b []byte) error {
	if e.Count > 0 {
		p.landPack(e, b)
		return nil
	}
	f := p.file(e.File)
	if f == nil {
		return nil
	}
	l := p.place(f)
	if l == nil {
		return nil
	}
	var node *digest.Node
	if p.verify != digest.None {
		n := p.hashing.extent(p.verify, b, e.Off)
		node = &n
	}
	if _, err := l.WriteAt(b, e.Off); err != nil {
		p.fail(e.File, err, true)
		return nil
	}
	if p.Progress != nil {
		p.Progress.Moved.Add(int64(len(b)))
	}
	return p.landed(f, int(e.Off/p.sched.extentSize), node)
}

// landed notes that an extent is there.
func (p *pull) landed(f *inbound, n int, node *digest.Node) error {
	f.mu.Lock()
	if f.settled || f.got.has(n) {
		f.mu.Unlock()
		return nil
	}
	f.got.set(n)
	f.here++
	var err error
	if node != nil {
		a := f.arrival(n)
		a.mine = node
		err = f.compare(n, a, p.sched)
	} else {
		f.sound(n)
		if f.complete(n) {
			f.landing.Verified(uint32(n/blockExtents), Digest{})
		}
	}
	return p.step(f, err)
}

// arrival gives what is known of an extent. f.mu is held.
func (f *inbound) arrival(n int) *arrival {
	if f.arrived == nil {
		f.arrived = make(map[int]*arrival)
	}
	if f.arrived[n] == nil {
		f.arrived[n] = new(arrival)
	}
	return f.arrived[n]
}

// compare looks at both digests of an extent, if both are there. A damaged extent is
// asked for again; the error says that it was too often. f.mu is held.
func (f *inbound) compare(n int, a *arrival, sched *scheduler) error {
	switch {
	case a.mine == nil || a.theirs == nil:
		return nil
	case a.mine.Sum == *a.theirs:
		f.sound(n)
		if block, done := f.sum.Add(int64(n), *a.mine); done {
			f.landing.Verified(uint32(n/blockExtents), block.Sum)
		}
		delete(f.arrived, n)
		return nil
	}
	return f.again(n, a, sched)
}

// sound tells a landing that wants to know that an extent is here for good. f.mu is held.
func (f *inbound) sound(n int) {
	if l, ok := f.landing.(soundLanding); ok {
		l.sound(n)
	}
}

// blockExtents is how many extents a block of the ledger has.
const blockExtents = blockSize / DefaultExtentSize

// complete reports whether the block of extent n is all here.
func (f *inbound) complete(n int) bool {
	first := n / blockExtents * blockExtents
	return first/64 < len(f.got) && f.got[first/64]>>(first%64)&(1<<blockExtents-1) == 1<<blockExtents-1
}

// resume takes over the blocks that landed before the transfer was interrupted, and gives a
// bit for each extent that did.
func (f *inbound) resume(l Landing, blocks []Block) bitmap {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.landing = l
	for _, b := range blocks {
		f.sum.AddBlock(int64(b.Number), digest.Node{Sum: b.Sum, Len: blockSize})
		for n := int(b.Number) * blockExtents; n < (int(b.Number)+1)*blockExtents; n++ {
			f.got.set(n)
			f.here++
		}
		f.resumed += blockSize
	}
	return slices.Clone(f.got)
}

// again asks for a damaged extent once more. f.mu is held.
func (f *inbound) again(n int, a *arrival, sched *scheduler) error {
	if a.attempts++; a.attempts >= maxAttempts {
		return errorf(CodeIntegrity, "%s: the extent at %d arrived damaged %d times: the path between the hosts, or memory, corrupts data",
			Printable(f.entry.Path), int64(n)*sched.extentSize, a.attempts)
	}
	a.mine, a.theirs = nil, nil
	f.stale = true
	f.got.clear(n)
	f.here--
	sched.giveBack([]Extent{f.extent(n, sched.extentSize)})
	return nil
}

// step goes on with a file after something was learnt of it: f.mu is held, and
// released.
func (p *pull) step(f *inbound, err error) error {
	file := f.entry.File
	tell := err == nil && !f.settled && f.whole() && f.waiting == 0
	if tell {
		f.waiting++
		f.stale = false
	}
	kept := f.keep()
	f.mu.Unlock()
	if err != nil {
		p.fail(file, err, true)
		return nil
	}
	if kept > 0 {
		if err := p.s.Send(&wire.Kept{File: file, Below: uint32(kept)}); err != nil {
			return err
		}
	}
	if !tell {
		return nil
	}
	p.owe(file)
	return p.s.Send(&wire.Landed{File: file})
}

// keepEvery is how many extents of a stream are told of at a time.
const keepEvery = 8

// keep gives the number below which every extent of a stream is here for good, if
// there is news; else 0. f.mu is held.
func (f *inbound) keep() int {
	if f.entry.Kind != wire.Stream {
		return 0
	}
	n := f.below
	for f.got.has(n) && f.arrived[n] == nil {
		n++
	}
	if n-f.below < keepEvery {
		return 0
	}
	f.below = n
	return n
}

// refused gives back what the sender could not serve.
func (p *pull) refused(e Extent) {
	if e.Count <= 1 {
		p.sched.unpack(e)
		p.owe(e.File)
		return
	}
	for _, m := range p.sched.unpack(e) {
		if p.file(m.file) != nil {
			p.sched.again(m.file, m.size)
		}
	}
}

// digests keeps what the sender says its extents hash to.
func (p *pull) digests(m *wire.Digests) error {
	f, err := p.known(m.File)
	if err != nil || p.verify == digest.None || f != nil && f.sum == nil {
		return fmt.Errorf("%w: digests that nobody asked for", wire.ErrMalformed)
	}
	if f == nil {
		return nil
	}
	f.mu.Lock()
	if f.settled {
		f.mu.Unlock()
		return nil
	}
	var bad error
	for i, n := range m.Extents {
		n := int(n)
		if n >= f.asked {
			f.mu.Unlock()
			return fmt.Errorf("%w: a digest of extent %d, which was not asked for", wire.ErrMalformed, n)
		}
		d := Digest(m.Sums[i*wire.DigestSize : (i+1)*wire.DigestSize])
		if f.got.has(n) && f.arrived[n] == nil {
			continue // it is verified
		}
		a := f.arrival(n)
		a.theirs = &d
		if err := f.compare(n, a, p.sched); err != nil {
			bad = err
		}
	}
	return p.step(f, bad)
}

// vouched lets files have their names, or asks again for what came without a digest.
func (p *pull) vouched(m *wire.Vouch) error {
	var ready []commit
	defer func() { p.commits.add(ready...) }() // what was settled ends there, whatever else the message says
	for i, file := range m.Files {
		f, err := p.known(file)
		switch {
		case err != nil:
			return err
		case f == nil:
		case p.packed(f):
			var sum Digest
			if p.verify != digest.None && len(m.Digests) > 0 {
				sum = Digest(m.Digests[i*wire.DigestSize:])
			}
			f.mu.Lock()
			f.vouched, f.theirs = true, sum
			f.mu.Unlock()
			switch whole, err := p.compareWhole(f); {
			case err != nil:
				p.giveUp(f, err, true)
			case whole:
				ready = append(ready, commit{file: f})
			}
		case f.sum == nil:
			return fmt.Errorf("%w: a voucher for %+q, which is no file", wire.ErrMalformed, f.entry.Path)
		default:
			if err := p.vouchedFor(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// vouchedFor is vouched for a file that travelled in extents.
func (p *pull) vouchedFor(f *inbound) (err error) {
	f.mu.Lock()
	if f.settled {
		f.mu.Unlock()
		return nil
	}
	if f.waiting == 0 {
		f.mu.Unlock()
		return fmt.Errorf("%w: a voucher for a file that has not landed", wire.ErrMalformed)
	}
	f.waiting--
	p.said(f.entry.File)
	if !f.whole() || f.stale {
		return p.step(f, nil) // an extent was found damaged meanwhile: it vouches again
	}
	if len(f.arrived) == 0 {
		f.settled = true
		f.mu.Unlock()
		p.commits.add(commit{file: f})
		return nil
	}
	if f.rounds++; f.rounds >= maxAttempts {
		err = errorf(CodeIntegrity, "%s: %d extents arrived damaged %d times: the path between the hosts, or memory, corrupts data", Printable(f.entry.Path), len(f.arrived), f.rounds)
	}
	for n, a := range f.arrived {
		if err == nil {
			err = f.again(n, a, p.sched)
		}
	}
	return p.step(f, err)
}

// grown hears how far a stream has come.
func (p *pull) grown(m *wire.Grown) error {
	f, err := p.known(m.File)
	if f == nil || err != nil {
		return err
	}
	f.mu.Lock()
	if f.settled {
		f.mu.Unlock()
		return nil
	}
	if f.entry.Kind != wire.Stream || f.total >= 0 || m.Size < f.size || !m.End && m.Size%p.sched.extentSize != 0 {
		f.mu.Unlock()
		return fmt.Errorf("%w: file %d of %d bytes grows to %d", wire.ErrMalformed, m.File, f.size, m.Size)
	}
	if p.Progress != nil {
		p.Progress.Total.Add(m.Size - f.size)
	}
	f.size = m.Size
	if m.Size == 0 { // nothing will land
		f.mu.Unlock()
		if p.place(f) == nil {
			return nil
		}
		f.mu.Lock()
	}
	if m.End {
		f.total = int((m.Size + p.sched.extentSize - 1) / p.sched.extentSize)
	}
	p.sched.grow(m.File, m.Size, m.End)
	return p.step(f, nil)
}

// digest is the whole file's. Everything has landed, and was verified.
func (f *inbound) digest() (Digest, error) {
	if f.sum == nil {
		return f.small, nil
	}
	return f.sum.Sum(f.size)
}
