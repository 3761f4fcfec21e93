package transfer

import (
	"fmt"
	"hash/maphash"
	"path"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// entriesOpen is how many entries may be under way: what either end remembers of a
// manifest, however long it is.
const entriesOpen = 8192

// mostOpen is how many entries an end lets be under way: a file of each may be open, and
// they are to leave room for what else this process has open.
func mostOpen() uint32 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return entriesOpen / 64
	}
	return uint32(max(16, min(limit.Cur/4, entriesOpen)))
}

// inboundDir is a directory in which something has not settled yet.
type inboundDir struct {
	entry   wire.Entry
	parent  *inboundDir
	pending int  // entries of it that have not settled, and itself while it may get more
	failed  bool // nothing lands in it
}

// manifest is what the receiver knows of the sender's. p.mu guards it.
type manifest struct {
	seed    maphash.Seed
	paths   map[uint64]struct{} // hashes of every path, to find one that comes twice
	entries uint32              // that have come
	granted uint32              // that may come
	most    uint32              // under way
	lost    map[uint64]Code     // the entries that failed, by hashes of their paths
	dirs    []*inboundDir       // that the next entry may be in, outermost first
	ended   bool
	paused  bool // until everything that came has settled
}

func newManifest() manifest {
	most := mostOpen()
	return manifest{seed: maphash.MakeSeed(), paths: make(map[uint64]struct{}), lost: make(map[uint64]Code), granted: most, most: most}
}

// grant says how many entries may come, of which so many are under way, and whether the sender is
// to hear of it. The directories around the next entry hold nothing open and don't count: a deep
// tree would wait for itself.
func (m *manifest) grant(open int) (entries uint32, news bool) {
	room := int64(m.entries) + int64(m.most) - int64(open-min(open, len(m.dirs)))
	if m.ended || room-int64(m.granted) < int64(m.most/4) {
		return 0, false
	}
	m.granted = uint32(room)
	return m.granted, true
}

// admit checks an entry's place in the manifest and gives the directory that it is in.
func (m *manifest) admit(e *wire.Entry) (*inboundDir, error) {
	switch {
	case m.ended || m.paused || e.File != m.entries:
		return nil, fmt.Errorf("%w: entry %d is out of order", wire.ErrMalformed, e.File)
	case e.File >= m.granted:
		return nil, fmt.Errorf("%w: entry %d, and only %d may come", wire.ErrMalformed, e.File, m.granted)
	}
	h := maphash.String(m.seed, e.Path)
	if _, twice := m.paths[h]; twice {
		return nil, fmt.Errorf("%w: two entries of path %+q", wire.ErrMalformed, e.Path)
	}
	if e.Kind == wire.HardLink {
		if _, known := m.paths[maphash.String(m.seed, e.Link)]; !known {
			return nil, fmt.Errorf("%w: %+q is another name of %+q, which did not come", wire.ErrMalformed, e.Path, e.Link)
		}
	}
	m.paths[h] = struct{}{}
	m.entries++
	parent := path.Dir(e.Path)
	if parent == "." {
		return nil, nil
	}
	for i := len(m.dirs) - 1; i >= 0; i-- {
		if m.dirs[i].entry.Path == parent {
			return m.dirs[i], nil
		}
	}
	return nil, fmt.Errorf("%w: %+q is not in a directory that is being listed", wire.ErrMalformed, e.Path)
}

// lostFirst says that the file that an entry is another name of did not land, if so.
func (m *manifest) lostFirst(e *wire.Entry) error {
	code, lost := m.lost[maphash.String(m.seed, e.Link)]
	if !lost {
		return nil
	}
	return errorf(code, "%s is another name of %s, which did not land", Printable(e.Path), Printable(e.Link))
}

// leave takes the directories off the list that nothing more comes in, the innermost
// first: all that are not dir or around it.
func (m *manifest) leave(dir *inboundDir) (left []*inboundDir) {
	for n := len(m.dirs); n > 0 && m.dirs[n-1] != dir; n = len(m.dirs) {
		left = append(left, m.dirs[n-1])
		m.dirs = m.dirs[:n-1]
	}
	return left
}

// entry makes a place for an entry of the manifest.
func (p *pull) entry(e *wire.Entry) error {
	p.mu.Lock()
	dir, err := p.manifest.admit(e)
	if err != nil {
		p.mu.Unlock()
		return err
	}
	f := &inbound{entry: *e, dir: dir, size: e.Size, total: int((e.Size + p.sched.extentSize - 1) / p.sched.extentSize)}
	switch {
	case e.Kind == wire.Stream:
		f.total = -1
		f.sum = digest.NewAccumulator(p.verify, p.sched.extentSize, blockSize)
	case p.packed(f):
		f.total = 1
	case e.Kind == wire.File:
		f.sum = digest.NewAccumulator(p.verify, p.sched.extentSize, blockSize)
	}
	p.files[e.File] = f
	p.open++
	left := p.manifest.leave(dir)
	lost := dir != nil && dir.failed
	if dir != nil {
		dir.pending++
	}
	p.mu.Unlock()
	for _, d := range left {
		p.release(d)
	}
	if lost {
		p.fail(e.File, errorf(CodeExists, "%s: its directory can't be made", Printable(e.Path)), true)
		if e.Kind == wire.Dir {
			p.enter(f, true)
		}
	} else if err := p.begin(f); err != nil {
		p.fail(e.File, err, true)
		if e.Kind == wire.Dir {
			p.enter(f, true)
		}
	}
	return nil
}

// begin starts the landing of an entry.
func (p *pull) begin(f *inbound) error {
	e := &f.entry
	if p.outlook != nil {
		return p.foresee(f)
	}
	if p.Progress != nil {
		p.Progress.Total.Add(e.Size)
	}
	if e.Kind == wire.HardLink {
		p.afterFirst(f)
		return nil
	}
	done, err := p.dest.Check(e)
	if err != nil {
		return err
	}
	if done != nil {
		f.settle()
		f.resumed = e.Size
		p.hadLanded(f)
		p.commits.add(commit{file: f, done: done})
		return nil
	}
	switch e.Kind {
	case wire.Dir:
		if err := p.dest.Mkdir(e); err != nil {
			return err
		}
		p.enter(f, false)
	case wire.Symlink:
		f.settle()
		p.commits.add(commit{file: f})
	case wire.Stream:
	default:
		if e.Size > blockSize {
			if l, blocks, err := p.dest.Resume(e); l != nil || err != nil {
				if err != nil {
					return err
				}
				p.sched.resume(e.File, e.Size, f.resume(l, blocks))
				p.hadLanded(f)
				f.mu.Lock() // nothing may be missing
				if err := p.step(f, nil); err != nil {
					p.cancel(err)
				}
				return nil
			}
		}
		p.sched.add(e.File, e.Size)
		if e.Size > 0 {
			return nil
		}
		f.mu.Lock()
		if f.settled {
			f.mu.Unlock()
			return nil
		}
		var err error
		f.landing, err = p.dest.Put(&f.entry, nil)
		f.settled = err != nil
		if err != nil {
			f.mu.Unlock()
			p.giveUp(f, err, true)
			return nil // and it was said why
		}
		if err := p.step(f, nil); err != nil {
			p.cancel(err)
		}
		return nil
	}
	p.sched.add(e.File, 0)
	return nil
}

// afterFirst makes another name of a file when that has settled.
func (p *pull) afterFirst(f *inbound) {
	p.sched.add(f.entry.File, 0)
	f.settle()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch first := p.files[f.entry.First]; {
	case first == nil:
		p.commits.add(commit{file: f})
	case first.entry.Kind == wire.Dir || first.entry.Path != f.entry.Link:
		// A directory would wait for what is in it.
		p.cancel(fmt.Errorf("%w: entry %d is another name of entry %d, which is not %+q", wire.ErrMalformed, f.entry.File, f.entry.First, f.entry.Link))
	default:
		first.names = append(first.names, f)
	}
}

// hadLanded counts what need not move.
func (p *pull) hadLanded(f *inbound) {
	if p.Progress != nil {
		p.Progress.Moved.Add(f.resumed)
	}
}

// enter puts a directory on the list of those that the next entry may be in.
func (p *pull) enter(f *inbound, failed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.manifest.dirs = append(p.manifest.dirs, &inboundDir{entry: f.entry, parent: f.dir, pending: 1, failed: failed})
}

// release takes one from what a directory waits for. When nothing is left it gets its
// mode and times.
func (p *pull) release(d *inboundDir) {
	if d == nil {
		return
	}
	p.mu.Lock()
	d.pending--
	done := d.pending == 0 && !d.failed
	p.mu.Unlock()
	if done {
		p.commits.add(commit{dir: d})
	}
}

func (p *pull) manifestEnd(m *wire.ManifestEnd) error {
	p.mu.Lock()
	if p.manifest.ended || m.Files != p.manifest.entries {
		p.mu.Unlock()
		return fmt.Errorf("%w: the manifest ends with %d entries of %d", wire.ErrMalformed, p.manifest.entries, m.Files)
	}
	if p.manifest.paused {
		p.mu.Unlock()
		return fmt.Errorf("%w: the manifest ends again before there was a Done", wire.ErrMalformed)
	}
	p.manifest.ended, p.manifest.paused = !m.More, m.More
	if m.Unsent > 0 {
		p.failures.add(errorf(CodeLocalIO, "the sender could not send %d of its files", m.Unsent), int(m.Unsent))
	}
	left := p.manifest.leave(nil)
	p.checkDone()
	p.mu.Unlock()
	for _, d := range left {
		p.release(d)
	}
	return nil
}

// listing reports whether the sender may name more files, without waiting for some to settle.
func (p *pull) listing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := &p.manifest
	return !m.ended && !m.paused && m.entries < m.granted
}

// checkDone closes done when every entry is settled, or has the end of a batch told
// behind the last receipt. p.mu is held.
func (p *pull) checkDone() {
	switch {
	case p.open != 0:
	case p.manifest.ended:
		close(p.done)
		p.open = -1 // once
	case p.manifest.paused:
		p.commits.add(commit{batch: true})
	}
}

// file gives an entry that has not settled.
func (p *pull) file(n uint32) *inbound {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.files[n]
}

// known is file, for a message of the sender's: one about an entry that never was is
// an error.
func (p *pull) known(n uint32) (*inbound, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n >= p.manifest.entries {
		return nil, fmt.Errorf("%w: a word about entry %d of %d", wire.ErrMalformed, n, p.manifest.entries)
	}
	return p.files[n], nil
}

// packed reports whether a file travels in a pack.
func (p *pull) packed(f *inbound) bool {
	return f.entry.Kind == wire.File && p.sched.small(f.entry.Size)
}

// settled forgets an entry, and lets more come. It is called once for each.
func (p *pull) settled(f *inbound) {
	p.mu.Lock()
	delete(p.files, f.entry.File)
	p.open--
	names := f.names
	room, more := p.manifest.grant(p.open)
	p.checkDone()
	p.mu.Unlock()
	for _, name := range names {
		p.commits.add(commit{file: name})
	}
	if more {
		if err := p.s.Send(&wire.More{Entries: room}); err != nil {
			p.cancel(err)
		}
	}
}
