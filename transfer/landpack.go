package transfer

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// A pack is landed by up to packHands goroutines at once, of all lanes and transfers: a file
// system makes several files at a time, and takes a processor for each. They take as many
// files at a time as all have to do, which is made at one go, but packShare at the least.
const (
	packShare = 16
	packHands = 8
)

// hands has room for each goroutine that lands files of packs.
var hands = make(chan struct{}, min(packHands, runtime.GOMAXPROCS(0)))

// landPack takes the bytes of a pack.
func (p *pull) landPack(e Extent, b []byte) {
	shares := shareOut(p.sched.unpack(e), b)
	var next atomic.Int32
	work := func() {
		for i := int(next.Add(1)); i <= len(shares); i = int(next.Add(1)) {
			p.landShare(shares[i-1])
		}
	}
	var others sync.WaitGroup
	for range min(len(shares), cap(hands)) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
}

// share is some of the files of a pack, and their bytes.
type share struct {
	members []packed
	content []byte
}

// shareOut cuts a pack into its shares.
func shareOut(members []packed, b []byte) (shares []share) {
	n := min(max(packShare, (len(members)+cap(hands)-1)/cap(hands)), atOnce)
	for part := range slices.Chunk(members, n) {
		shares = append(shares, share{part, b})
		for _, m := range part {
			b = b[m.size:]
		}
	}
	return shares
}

func (p *pull) landShare(s share) {
	select {
	case hands <- struct{}{}:
	case <-p.ctx.Done():
		return
	}
	ready, failed := p.landTogether(s)
	<-hands
	// Without a hand: a peer that is slow to hear of it holds up nobody else's transfer.
	for f, err := range failed {
		p.giveUp(f, err, true)
	}
	p.commits.add(ready...)
}

// small is a small file with all of its bytes, and what became of them.
type small struct {
	entry   *wire.Entry
	bytes   []byte
	landing Landing
	err     error
}

// arriving is a small file and what it is to be compared with.
type arriving struct {
	small
	f   *inbound
	sum Digest
}

// landTogether takes the whole small files of a share. It gives those that are to be
// committed; those that could not be landed are settled, and the caller's to give up.
func (p *pull) landTogether(s share) (ready []commit, failed map[*inbound]error) {
	list := make([]arriving, 0, len(s.members))
	b := s.content
	for _, m := range s.members {
		if f := p.file(m.file); f != nil {
			x := small{entry: &f.entry, bytes: b[:m.size]}
			list = append(list, arriving{x, f, p.hashing.whole(p.verify, x.bytes)})
		}
		b = b[m.size:]
	}
	// Whoever has more than one file's lock takes them here, in the manifest's order.
	list = slices.DeleteFunc(list, func(x arriving) bool {
		x.f.mu.Lock()
		unwanted := x.f.settled || x.f.here > 0
		if unwanted {
			x.f.mu.Unlock()
		}
		return unwanted
	})
	p.putAll(list)
	failed = make(map[*inbound]error)
	for _, x := range list {
		switch whole, err := p.landedWhole(x); {
		case err != nil:
			failed[x.f] = err
		case whole:
			ready = append(ready, commit{file: x.f})
		}
	}
	return ready, failed
}

// together is a Destination that lands many small files for less than each by itself.
type together interface {
	putTogether(list []*small)
}

// putAll lands small files, whose locks are held.
func (p *pull) putAll(list []arriving) {
	d, many := p.dest.(together)
	var fresh []*small
	for i := range list {
		x := &list[i]
		switch x.landing = x.f.landing; {
		case x.landing != nil: // it was damaged
			_, x.err = x.landing.WriteAt(x.bytes, 0)
		case many:
			fresh = append(fresh, &x.small)
		default:
			x.landing, x.err = p.dest.Put(x.entry, x.bytes)
		}
	}
	if len(fresh) > 0 {
		d.putTogether(fresh)
	}
}

// landedWhole notes what became of a small file, whose lock is held, and released. It
// reports whether the file is to be committed.
func (p *pull) landedWhole(x arriving) (ready bool, err error) {
	f := x.f
	f.landing = x.landing
	f.settled = x.err != nil
	vouched := f.vouched
	if x.err == nil {
		f.here, f.small = 1, x.sum
	}
	f.mu.Unlock()
	if x.err != nil {
		return false, x.err
	}
	if p.Progress != nil {
		p.Progress.Moved.Add(int64(len(x.bytes)))
	}
	if !vouched {
		p.owe(f.entry.File)
		return false, nil
	}
	return p.compareWhole(f)
}

// compareWhole compares a small file that has landed with the sender's word for it. It
// reports whether that is to be committed; one that was damaged too often is settled, and
// the caller's to give up.
func (p *pull) compareWhole(f *inbound) (ready bool, err error) {
	f.mu.Lock()
	if f.settled || f.here == 0 || !f.vouched {
		f.mu.Unlock()
		return false, nil
	}
	p.said(f.entry.File)
	if f.theirs == f.small {
		f.settled = true
		f.mu.Unlock()
		return true, nil
	}
	f.vouched, f.here = false, 0
	f.rounds++
	again := f.rounds < maxAttempts
	f.settled = !again
	f.mu.Unlock()
	if !again {
		return false, errorf(CodeIntegrity, "%s arrived damaged %d times: the path between the hosts, or memory, corrupts data", Printable(f.entry.Path), maxAttempts)
	}
	p.sched.again(f.entry.File, int(f.entry.Size))
	return false, nil
}
