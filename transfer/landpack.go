package transfer

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// A pack is landed by up to packHands goroutines at once, of all lanes and transfers, who take
// packShare files of it at a time: a file system makes several files at a time, and takes a
// processor for each.
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
	for part := range slices.Chunk(members, packShare) {
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
	var ready []commit
	failed := make(map[*inbound]error)
	b := s.content
	for _, m := range s.members {
		if f := p.file(m.file); f != nil {
			switch whole, err := p.landWhole(f, b[:m.size]); {
			case err != nil:
				failed[f] = err
			case whole:
				ready = append(ready, commit{file: f})
			}
		}
		b = b[m.size:]
	}
	<-hands
	// Without a hand: a peer that is slow to hear of it holds up nobody else's transfer.
	for f, err := range failed {
		p.giveUp(f, err, true)
	}
	p.commits.add(ready...)
}

// landWhole takes a whole small file. It reports whether that is to be committed; one that
// could not be landed is settled, and the caller's to give up.
func (p *pull) landWhole(f *inbound, b []byte) (ready bool, err error) {
	sum := p.verify.Whole(b)
	f.mu.Lock()
	if f.settled || f.here > 0 {
		f.mu.Unlock()
		return false, nil
	}
	err = f.put(p.dest, b)
	vouched := f.vouched
	if err == nil {
		f.here, f.small = 1, sum
	}
	f.mu.Unlock()
	if err != nil {
		return false, err
	}
	if p.Progress != nil {
		p.Progress.Moved.Add(int64(len(b)))
	}
	if !vouched {
		p.owe(f.entry.File)
		return false, nil
	}
	return p.compareWhole(f)
}

// put writes a file that is small as a whole. f.mu is held; one that can't be written is
// settled, and the caller's to give up.
func (f *inbound) put(dest Destination, b []byte) (err error) {
	if f.landing == nil {
		f.landing, err = dest.Put(&f.entry, b)
	} else {
		_, err = f.landing.WriteAt(b, 0)
	}
	f.settled = err != nil
	return err
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
