package transfer

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

var (
	fates     = flag.Uint64("fates", 30_000, "how many lives of lanes TestFates goes through")
	firstFate = flag.Uint64("fate", 0, "the seed of the first of them")
)

// TestFates plays what can befall the lanes of a receiver, a life for each seed: they come
// up and die with extents in flight, are slow, answer in any order, refuse, are taken over
// from. Every byte must land once, where it belongs, from a lane that lives; and when the
// misfortunes end, so must the transfer.
func TestFates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // for its clock alone
		content := make([]byte, 1<<16)
		rand.NewChaCha8([32]byte{1}).Read(content)
		var all fateCounts
		for seed := *firstFate; seed < *firstFate+*fates; seed++ {
			l := newFate(seed, content)
			if err := l.live(); err != nil {
				t.Fatalf("-fate=%d -fates=1: %v", seed, err)
			}
			all.add(l.fateCounts)
		}
		t.Logf("%d lives: %+v", *fates, all)
		for name, n := range map[string]int{"deaths": all.deaths, "refusals": all.refusals, "overtaken": all.overtaken, "late": all.late, "packs": all.packs} {
			if n == 0 && *fates > 1000 {
				t.Errorf("no %s in all of them", name)
			}
		}
	})
}

// fateExtent is the extent size of these lives, bytes.
const fateExtent = 1 << 10

// fate is one life: a receiver's engine, and lanes that are a list of what they took.
type fate struct {
	fateCounts
	dice    *rand.Rand
	p       *pull
	content []byte // file n begins at its nth byte
	lanes   []*fateLane
	last    uint32
	landed  map[Extent]bool
	left    int64 // bytes
	wrong   error
}

// fateCounts are what a life had.
type fateCounts struct{ deaths, refusals, overtaken, late, packs int }

func (c *fateCounts) add(d fateCounts) {
	c.deaths += d.deaths
	c.refusals += d.refusals
	c.overtaken += d.overtaken
	c.late += d.late
	c.packs += d.packs
}

type fateLane struct {
	*laneFeed
	flying []Extent
}

func newFate(seed uint64, content []byte) *fate {
	l := &fate{dice: rand.New(rand.NewPCG(seed, 0)), content: content, landed: make(map[Extent]bool)}
	l.p = &pull{
		Receiver: &Receiver{}, ctx: context.Background(), sched: newScheduler(fateExtent),
		files: make(map[uint32]*inbound), dest: fateDest{l: l}, verify: digest.None, owed: make(map[uint32]time.Time),
	}
	l.p.lanes.init(l.p)
	for n := range uint32(1 + l.dice.IntN(8)) {
		size := int64(l.dice.IntN(6 * fateExtent))
		if l.dice.IntN(2) == 0 {
			size = int64(l.dice.IntN(fateExtent / 2)) // for a pack
		}
		f := &inbound{entry: wire.Entry{File: n, Size: size}, size: size, total: 1 << 30} // it never ends: there is no sender to vouch
		if l.p.packed(f) {
			f.total = 1
		}
		l.p.files[n] = f
		l.p.sched.add(n, size)
		l.left += size
	}
	return l
}

// live goes through a life.
func (l *fate) live() error {
	for range 10 + l.dice.IntN(60) {
		if l.step(); l.wrong != nil || l.left == 0 {
			break
		}
	}
	// Now all goes well, with what lanes there are and one more.
	l.born()
	for range 10_000 {
		if l.left == 0 || l.wrong != nil {
			break
		}
		time.Sleep(10 * time.Second) // nobody is patient any more
		for _, ln := range l.lanes {
			l.take(ln)
			l.answer(ln)
		}
	}
	if l.wrong == nil && l.left != 0 {
		return fmt.Errorf("%d bytes never landed", l.left)
	}
	for _, ln := range l.lanes { // what still flies comes late
		for len(ln.flying) > 0 && l.wrong == nil {
			l.late++
			l.answer(ln)
		}
	}
	if e, ok := l.p.sched.tryNext(); ok && l.wrong == nil && e.Count == 0 && l.landed[e] {
		return fmt.Errorf("%+v has landed, and is asked for again", e)
	}
	return l.wrong
}

func (l *fate) step() {
	if len(l.lanes) == 0 || len(l.lanes) < 4 && l.dice.IntN(8) == 0 {
		l.born()
		return
	}
	ln := l.lanes[l.dice.IntN(len(l.lanes))]
	switch l.dice.IntN(12) {
	case 0:
		l.die(ln)
	case 1:
		// Of a pack: any other extent is refused for a file that has failed.
		if i := slices.IndexFunc(ln.flying, func(e Extent) bool { return e.Count > 1 }); i >= 0 {
			l.refusals++
			e := ln.flying[i]
			ln.flying = slices.Delete(ln.flying, i, i+1)
			ln.Refuse(e)
		}
	case 2, 3:
		time.Sleep(time.Duration(l.dice.IntN(3000)) * time.Millisecond)
	case 4, 5, 6, 7:
		l.take(ln)
	default:
		l.answer(ln)
	}
}

func (l *fate) born() {
	l.last++
	ln := &fateLane{laneFeed: &laneFeed{l: &l.p.lanes, id: l.last, kill: func(error) {}}}
	l.p.lanes.up[l.last] = ln.laneFeed
	l.lanes = append(l.lanes, ln)
}

// die ends a lane as lanes.run does: nothing of it lands any more, and then what it had
// goes back.
func (l *fate) die(ln *fateLane) {
	l.deaths++
	delete(l.p.lanes.up, ln.id)
	l.lanes = slices.DeleteFunc(l.lanes, func(o *fateLane) bool { return o == ln })
	l.p.sched.giveBack(ln.rest())
}

func (l *fate) take(ln *fateLane) {
	for len(ln.flying) < 1+l.dice.IntN(4) {
		e, ok := ln.TryNext()
		if !ok {
			return
		}
		if slices.ContainsFunc(l.lanes, func(o *fateLane) bool { return slices.Contains(o.flying, e) }) {
			l.overtaken++
		}
		if e.Count > 1 {
			l.packs++
		}
		ln.flying = append(ln.flying, e)
	}
}

// land takes one of the extents that fly, in no order.
func (l *fate) land(ln *fateLane) Extent {
	i := l.dice.IntN(len(ln.flying))
	e := ln.flying[i]
	ln.flying = slices.Delete(ln.flying, i, i+1)
	return e
}

func (l *fate) answer(ln *fateLane) {
	if len(ln.flying) == 0 {
		return
	}
	e := l.land(ln)
	b := make([]byte, 0, e.Len)
	if e.Count == 0 {
		b = append(b, l.of(e.File)[e.Off:][:e.Len]...)
	}
	for n := e.File; n < e.File+e.Count; n++ { // as the sender's Source.pack has it
		b = append(b, l.of(n)[:l.p.files[n].size]...)
	}
	if err := ln.Land(e, b); err != nil {
		l.wrong = err
	}
}

func (l *fate) of(file uint32) []byte { return l.content[file:] }

// fateDest takes note of what lands.
type fateDest struct {
	nowhere
	l *fate
}

func (d fateDest) Create(e *wire.Entry) (Landing, error) {
	return fateLanding{fateDest: d, e: e}, nil
}

func (d fateDest) Put(e *wire.Entry, b []byte) (Landing, error) {
	l := fateLanding{fateDest: d, e: e}
	_, err := l.WriteAt(b, 0)
	return l, err
}

type fateLanding struct {
	fateDest
	e *wire.Entry
}

func (f fateLanding) WriteAt(p []byte, off int64) (int, error) {
	key := Extent{File: f.e.File, Off: off, Len: len(p)}
	switch {
	case f.l.landed[key]:
		f.l.wrong = fmt.Errorf("%+v landed twice", key)
	case !bytes.Equal(p, f.l.of(f.e.File)[off:][:len(p)]):
		f.l.wrong = fmt.Errorf("%+v holds what is not its own", key)
	}
	f.l.landed[key] = true
	f.l.left -= int64(len(p))
	return len(p), nil
}
