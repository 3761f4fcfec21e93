package transfer

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// lookAgain is how often a lane that has nothing to do looks whether there is
// something that another takes too long for.
const lookAgain = 50 * time.Millisecond

// worthTwice is how long nothing must have come, and what is left take by the pace of what came,
// together, for an extent to be served twice.
const worthTwice = 200 * time.Millisecond

// unknownTime is what a lane that has landed nothing yet is taken to need for an
// extent.
const unknownTime = time.Second

// laneFeed is one lane's Feed. It remembers what the lane has taken and not
// landed, which is what the others get when it dies, or is too slow.
type laneFeed struct {
	l         *lanes
	id        uint32
	path      string
	transport string
	puller    Puller
	opened    time.Time
	kill      context.CancelCauseFunc

	bytes   atomic.Int64 // landed
	retired atomic.Bool  // it takes no more
	gone    atomic.Bool  // it has ended

	mu      sync.Mutex
	taken   []taken
	since   time.Time     // of the last progress, while something is taken
	arrived uint64        // bytes then, of a Trickling
	landing bool          // what came is being written
	typical time.Duration // from taking an extent to its bytes; 0 when none came yet
	came    time.Time     // when the last one came, or the first of those was taken that were waited for then
	between time.Duration // one's coming and the next one's, typically; 0 when none came yet
	detail  string        // what the lane ran on, once it has ended
}

// taken is an extent that a lane has asked for.
type taken struct {
	Extent
	at     time.Time
	twin   *twin     // two lanes have it
	placed time.Time // since when it lands without Land; no other lane has it then
}

// twin is shared by two lanes that have asked for the same extent. The first
// answer lands; the extent goes back when neither lane can land it any more.
type twin struct {
	mu     sync.Mutex
	landed bool
	lost   bool // by one of the two
}

// claim reports whether it is the caller who lands the extent.
func (t *twin) claim() bool {
	if t == nil {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	first := !t.landed
	t.landed = true
	return first
}

// lose reports whether the extent has to go back.
func (t *twin) lose() bool {
	if t == nil {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.lost && !t.landed
	t.lost = true
	return last
}

// describe names what the lane runs on, or ran on: it may find out what is best while it
// does.
func (f *laneFeed) describe() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.puller != nil {
		return f.puller.Describe()
	}
	return f.detail
}

// ended keeps that when the lane goes.
func (f *laneFeed) ended() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.detail, f.puller = f.puller.Describe(), nil
}

func (f *laneFeed) take(e Extent, tw *twin) {
	now := time.Now()
	f.mu.Lock()
	if len(f.taken) == 0 {
		f.since, f.came = now, now
	}
	f.taken = append(f.taken, taken{Extent: e, at: now, twin: tw})
	f.mu.Unlock()
	f.l.p.asks(e, now)
}

// untake forgets an extent that was answered, and reports whether its bytes are
// wanted still.
func (f *laneFeed) untake(e Extent) bool {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.since = now
	i := slices.IndexFunc(f.taken, func(t taken) bool { return t.Extent == e })
	if i < 0 {
		return true
	}
	t := f.taken[i]
	f.taken = slices.Delete(f.taken, i, i+1)
	f.typical = smooth(f.typical, now.Sub(t.at))
	f.between = smooth(f.between, now.Sub(f.came))
	f.came = now
	return t.twin.claim()
}

// smooth is a mean of times of which the last counts most; 0 is of none.
func smooth(mean, last time.Duration) time.Duration {
	if mean == 0 {
		return last
	}
	return mean + (last-mean)/8
}

// rest is what a lane that has ended leaves to the others.
func (f *laneFeed) rest() (list []Extent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.taken {
		if t.twin.lose() {
			list = append(list, t.Extent)
		}
	}
	f.taken = nil
	return list
}

// stalled reports whether what was asked for has not come for longer than most. What of an
// extent has come is progress too: there are links that take minutes for one.
func (f *laneFeed) stalled(now time.Time, most time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.taken) == 0 { // nothing is owed
		return false
	}
	if t, ok := f.puller.(Trickling); ok {
		if n := t.Arrived(); n != f.arrived || t.Busy() {
			f.arrived, f.since = n, now
		}
	}
	return !f.landing && now.Sub(f.since) > most
}

// usual is how long an extent takes from being asked for to its bytes; 0 when none came yet.
func (f *laneFeed) usual() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.typical
}

// patience is how long another lane may have an extent before this one asks for it
// too: twice its own time, so that lanes of one speed don't race each other.
func (f *laneFeed) patience() time.Duration {
	typical := f.usual()
	if typical == 0 {
		return 2 * unknownTime
	}
	return max(2*typical, lookAgain)
}

// spare gives an extent that this lane has had for longer than limit, and that is not about to come
// (worthTwice; lanes answer in turn), once each: of several the one that was taken
// last, which would come last. Of small files a lane has many packs under way, the last of which is
// old though all come in their turn: to serve those twice was an eighth more work. One that is placed no
// other lane can have: when it lands for too long, the lane is ended, and gives it back. Too
// long is what is known of another lane: the link may be as slow.
func (f *laneFeed) spare(now time.Time, limit time.Duration, known bool) (Extent, *twin, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.taken) - 1; i >= 0; i-- {
		switch t := &f.taken[i]; {
		case !t.placed.IsZero():
			if p, ok := f.puller.(Trickling); ok && p.Busy() { // another lane would wait for the same disk
				continue
			}
			if known && now.Sub(t.placed) > max(limit, unknownTime) {
				f.kill(errorf(CodeConnect, "an extent lands for longer than another lane would need for it"))
			}
		case t.twin == nil && now.Sub(t.at) > limit && now.Sub(f.came)+time.Duration(i+1)*f.between > worthTwice:
			t.twin = new(twin)
			return t.Extent, t.twin, true
		}
	}
	return Extent{}, nil, false
}

// takeOver asks once more for what another lane is too slow with. It is called
// when nobody has anything else to do: at the end, or for as long as the sender looks for files,
// when there is no hurry.
func (f *laneFeed) takeOver() (Extent, bool) {
	limit, known, now := f.patience(), f.usual() > 0, time.Now()
	if f.l.p.listing() {
		limit = max(limit, unknownTime)
	}
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	for _, other := range f.l.up {
		if other == f {
			continue
		}
		if e, tw, ok := other.spare(now, limit, known); ok {
			f.take(e, tw)
			return e, true
		}
	}
	return Extent{}, false
}

// Next is [Feed].Next.
func (f *laneFeed) Next(ctx context.Context) (Extent, error) {
	for {
		if f.retired.Load() {
			return Extent{}, io.EOF
		}
		if e, ok := f.TryNext(); ok {
			return e, nil
		}
		look, cancel := context.WithTimeout(ctx, lookAgain)
		e, err := f.l.p.sched.next(look)
		cancel()
		switch {
		case err == nil:
			f.take(e, nil)
			return e, nil
		case look.Err() == nil || ctx.Err() != nil:
			return Extent{}, err
		}
	}
}

// TryNext is [Feed].TryNext.
func (f *laneFeed) TryNext() (Extent, bool) {
	if f.retired.Load() {
		return Extent{}, false
	}
	e, ok := f.l.p.sched.tryNext()
	if ok {
		f.take(e, nil)
		return e, true
	}
	return f.takeOver()
}

// Land is [Feed].Land.
func (f *laneFeed) Land(e Extent, b []byte) error {
	if len(b) != e.Len {
		return fmt.Errorf("%w: %d bytes for an extent of %d", wire.ErrMalformed, len(b), e.Len)
	}
	if !f.untake(e) {
		return nil
	}
	f.count(e)
	f.lands(true)
	defer f.lands(false)
	return f.l.p.land(e, b)
}

// lands notes that what came is being written, or was: a disk that takes long for that is no
// silence of the peer's.
func (f *laneFeed) lands(now bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.landing, f.since = now, time.Now()
}

// count notes that an extent came over this lane: before it lands, because the last one
// ends the transfer, and what each lane carried is told then.
func (f *laneFeed) count(e Extent) {
	f.bytes.Add(int64(e.Len))
	f.l.landed.Add(1)
}

// Refuse is [Feed].Refuse. Why, the sender owes on the control connection; the files of
// a pack are asked for one by one, to find the one that it means.
func (f *laneFeed) Refuse(e Extent) {
	if f.untake(e) {
		f.l.p.refused(e)
	}
}
