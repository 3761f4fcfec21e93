package transfer

import (
	"os"
	"slices"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
)

// placeable is a Landing that may be written by others than WriteAt. file is nil when it
// is not, for now or for ever; readable says that what was written can be read again.
// failed is the error of a write that failed.
type placeable interface {
	place() (file *os.File, readable bool)
	// wrote says that n bytes at off were.
	wrote(off, n int64) error
	failed(op string, err error) error
}

// Verifying is [FileFeed].Verifying.
func (f *laneFeed) Verifying() bool { return f.l.p.verify != digest.None }

// Place is [FileFeed].Place.
func (f *laneFeed) Place(e Extent) *os.File {
	file, _ := f.l.p.placeOf(e)
	if file == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.taken, func(t taken) bool { return t.Extent == e })
	if i < 0 || f.taken[i].twin != nil { // the first of two answers lands, once it is here
		return nil
	}
	f.taken[i].placed = time.Now()
	return file
}

// Placed is [FileFeed].Placed.
func (f *laneFeed) Placed(e Extent, b []byte, writing time.Duration) error {
	if file := f.l.p.file(e.File); file != nil && file.size > streamsTurns {
		f.l.writing.Add(int64(writing))
	}
	if !f.untake(e) {
		return nil
	}
	f.count(e)
	f.lands(true)
	defer f.lands(false)
	return f.l.p.placed(e, b[:e.Len])
}

// Displaced is [FileFeed].Displaced.
func (f *laneFeed) Displaced(e Extent, err error) {
	f.untake(e)
	if _, l := f.l.p.placeOf(e); l != nil {
		err = l.failed("writing", err)
	}
	f.l.p.fail(e.File, err, true)
}

// placeOf gives the file of an extent that may be written to it without Land.
func (p *pull) placeOf(e Extent) (*os.File, placeable) {
	f := p.file(e.File)
	if f == nil || e.Count > 0 {
		return nil, nil
	}
	l, ok := p.place(f).(placeable)
	if !ok {
		return nil, nil
	}
	file, readable := l.place()
	if file == nil || !readable && p.verify != digest.None {
		return nil, nil
	}
	return file, l
}

// placed notes that the bytes of an extent are in its file, and takes their digest.
func (p *pull) placed(e Extent, b []byte) error {
	f := p.file(e.File)
	if f == nil {
		return nil
	}
	var node *digest.Node
	file, l := p.placeOf(e)
	if p.verify != digest.None {
		if l == nil {
			return nil // it was given up
		}
		if _, err := file.ReadAt(b, e.Off); err != nil {
			p.fail(e.File, l.failed("reading what landed of", err), true)
			return nil
		}
		n := p.hashing.extent(p.verify, b, e.Off)
		node = &n
	}
	if l != nil {
		if err := l.wrote(e.Off, int64(e.Len)); err != nil {
			p.fail(e.File, l.failed("writing", err), true)
			return nil
		}
	}
	if p.Progress != nil {
		p.Progress.Moved.Add(int64(e.Len))
	}
	return p.landed(f, int(e.Off/p.sched.extentSize), node)
}

// place is for extents alone whose every byte is written, by whatever way: neither a file
// with holes is, nor one that is written past the page cache.
func (p *part) place() (*os.File, bool) {
	if p.e.Sparse || p.s.store.asked == DirectAlways {
		return nil, false
	}
	file, err := p.open()
	if err != nil {
		return nil, false // WriteAt says why
	}
	return file, true
}
