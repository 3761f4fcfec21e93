package transfer

import (
	"runtime"
	"sync"
)

// Of a pack, each packShare files are landed by one goroutine, up to packHands at once, of
// all lanes and transfers: a file system makes several files at a time, and takes a
// processor for each.
const (
	packShare = 16
	packHands = 8
)

// hands has room for each goroutine that lands files of packs.
var hands = make(chan struct{}, min(packHands, runtime.GOMAXPROCS(0)))

// landPack takes the bytes of a pack.
func (p *pull) landPack(e Extent, b []byte) {
	members := p.sched.unpack(e)
	shares := min((len(members)+packShare-1)/packShare, cap(hands))
	var others sync.WaitGroup
	for ; shares > 1; shares-- {
		n := len(members) / shares
		share, content := members[:n], b
		for _, m := range share {
			b = b[m.size:]
		}
		members = members[n:]
		others.Go(func() { p.landShare(share, content) })
	}
	p.landShare(members, b)
	others.Wait()
}

func (p *pull) landShare(members []packed, b []byte) {
	select {
	case hands <- struct{}{}:
	case <-p.ctx.Done():
		return
	}
	var ready []commit
	failed := make(map[*inbound]error)
	for _, m := range members {
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
