package transfer

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// commits is the queue of what is ready to become durable and get its name. One
// goroutine works it off, all that has gathered at a time: while a group is synced the
// next one grows.
type commits struct {
	mu     sync.Mutex
	queue  []commit
	more   sync.Cond
	closed bool
}

// commit is a file, a symbolic link, a directory whose content is complete, or the end
// of a batch.
type commit struct {
	file  *inbound
	done  *Finished // it had landed before
	dir   *inboundDir
	batch bool // every entry has settled, and the session goes on
}

// maxGroup bounds a group: its receipts wait for all of it.
const maxGroup = 2048

func (c *commits) init() { c.more.L = &c.mu }

func (c *commits) add(x ...commit) {
	if len(x) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, x...)
	c.more.Signal()
}

// next waits for a group; none when the queue is closed and empty.
func (c *commits) next() []commit {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) == 0 && !c.closed {
		c.more.Wait()
	}
	n := min(len(c.queue), maxGroup)
	group := c.queue[:n:n]
	c.queue = c.queue[n:]
	return group
}

func (c *commits) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.more.Signal()
}

// commitAll works the queue off until it is closed.
func (p *pull) commitAll() {
	for group := p.commits.next(); len(group) > 0; group = p.commits.next() {
		p.commitGroup(group)
		p.sendReceipts()
	}
}

// receipts are those of a group. It is commitAll's alone.
type receipts struct {
	digested, plain wire.Receipt
}

func (r *receipts) add(file uint32, sum *Digest) {
	if sum == nil {
		r.plain.Files = append(r.plain.Files, file)
		return
	}
	r.digested.Files = append(r.digested.Files, file)
	r.digested.Digests = append(r.digested.Digests, sum[:]...)
}

func (p *pull) sendReceipts() {
	for _, m := range []*wire.Receipt{&p.receipts.digested, &p.receipts.plain} {
		if len(m.Files) == 0 {
			continue
		}
		if err := p.s.Queue(m); err != nil {
			p.cancel(err)
		}
		m.Files, m.Digests = m.Files[:0], m.Digests[:0]
	}
	if err := p.s.Flush(); err != nil {
		p.cancel(err)
	}
}

func (p *pull) commitGroup(group []commit) {
	var files []*inbound
	var whole []Whole
	for _, c := range group {
		switch {
		case c.dir != nil:
		case c.batch:
			p.batchOver()
		case c.done != nil:
			p.committed(c.file, c.done.Digest, nil)
		case c.file.entry.Kind == wire.Symlink:
			p.committed(c.file, nil, p.dest.Symlink(&c.file.entry))
		case c.file.entry.Kind == wire.HardLink:
			p.committed(c.file, nil, p.link(&c.file.entry))
		default:
			w := Whole{Landing: c.file.landing, Kind: p.verify}
			if p.verify != digest.None {
				sum, err := c.file.digest()
				if err != nil { // a bug: everything was verified
					p.giveUp(c.file, err, true)
					continue
				}
				w.Digest = &sum
			}
			files = append(files, c.file)
			whole = append(whole, w)
		}
	}
	if len(whole) > 0 {
		for i, err := range p.dest.Commit(whole) {
			p.committed(files[i], whole[i].Digest, err)
		}
	}
	for _, c := range group {
		if c.dir != nil {
			p.finished(c.dir)
		}
	}
}

// link gives a file that has settled one more name, if it landed.
func (p *pull) link(e *wire.Entry) error {
	p.mu.Lock()
	err := p.manifest.lostFirst(e)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	return p.dest.HardLink(e)
}

// committed makes the receipt of a file that is durable and has its name.
func (p *pull) committed(f *inbound, sum *Digest, err error) {
	if err != nil {
		p.report(f, err, true)
		return
	}
	p.receipts.add(f.entry.File, sum)
	p.mu.Lock()
	p.result.Files++
	p.result.Bytes += f.size
	p.result.Resumed += f.resumed
	p.end = time.Now()
	p.mu.Unlock()
	p.tell(p.Observer, func(o Observer) {
		o.File(FileResult{Path: f.entry.Path, Size: f.size, Digest: sum, Kind: p.verify})
	})
	p.settled(f)
	p.release(f.dir)
}

// finished gives a directory its mode and times: everything in it has settled.
func (p *pull) finished(d *inboundDir) {
	f := p.file(d.entry.File)
	if f == nil || !f.settle() {
		return
	}
	if err := p.dest.Finish(&d.entry); err != nil {
		p.report(f, err, true)
		return
	}
	p.receipts.add(d.entry.File, nil)
	p.mu.Lock()
	p.end = time.Now()
	p.mu.Unlock()
	p.settled(f)
	p.release(d.parent)
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
	if f := p.file(file); f != nil && f.settle() {
		p.giveUp(f, err, tellSender)
	}
}

// giveUp is fail, for who has settled the file.
func (p *pull) giveUp(f *inbound, err error, tellSender bool) {
	p.said(f.entry.File)
	p.sched.drop(f.entry.File)
	switch {
	case f.landing == nil:
	case tellSender && f.here >= blockExtents && (CodeOf(err) == CodeLocalIO || CodeOf(err) == CodeConnect):
		f.landing.Leave() // a disk that is full may get room, a sender whose storage hangs may find its words
	default:
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
	p.manifest.lost[maphash.String(p.manifest.seed, f.entry.Path)] = CodeOf(err)
	p.failures.add(err, 1)
	p.mu.Unlock()
	r := FileResult{Path: f.entry.Path, Size: f.entry.Size, Err: err}
	if p.outlook != nil {
		dry(&f.entry, &r)
	}
	p.tell(p.Observer, func(o Observer) { o.File(r) })
	p.settled(f)
	p.release(f.dir)
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
		switch {
		case !f.settle() || f.landing == nil:
		case f.here > 0:
			f.landing.Leave()
		default:
			f.landing.Abort()
		}
	}
}
