package transfer

import (
	"slices"
	"time"
)

// How many lanes pay is found out, where no user said, while a transfer runs that
// lasts: after streamsAfter, or eight times as long as an extent takes from being asked for,
// since a lane must first get up to speed, what lands is measured, until streamsLeast
// extents have landed at the least; then there are streamsMore times as many lanes, which have
// streamsSettle, or four times what an extent takes, to get up to speed. They stay where
// they land streamsLead times as much, and are multiplied again, up to AutoLanes; else the new ones
// take no more, and go. One is what a path has without loss or delay whose hosts have no CPU to
// spare; where each lane is held up by those, or by its CPU, more move more. So there is nothing to
// try while half a processor is not idle at this end, for more lanes would only be in each other's way; nor
// while those that there are write what came into large files for three quarters of the time, by calls for which lanes
// take turns at a file, and a short look may be deceived. Of files of up to streamsTurns lanes have several at a time. It is looked again, for as long as that is so. Over RDMA it is the
// CPU alone, which takes digests and writes to files: there are no more lanes than CPUs.
const (
	streamsAfter  = 20 * time.Millisecond
	streamsSettle = 20 * time.Millisecond
	streamsLeast  = 16
	streamsMore   = 4
	streamsLead   = 1.15
	streamsTurns  = 64 << 20 // bytes: what four lanes have asked for together
	streamsIdle   = 8        // times what an extent takes, without one, are a pause and no measurement
)

// streamsRounds are the times that this is tried: at once, shortly, since a transfer may be over
// in half a second, and again, for longer, since a short look is easily deceived.
var streamsRounds = []struct{ after, span time.Duration }{ // what was found before; of each measurement
	{streamsAfter, 30 * time.Millisecond},
	{time.Second, 100 * time.Millisecond},
	{10 * time.Second, 500 * time.Millisecond},
}

// streams is how far that has come. Its zero value has measured nothing.
type streams struct {
	round  int
	since  time.Time // of the measurement; zero while lanes get up to speed
	then   seen
	fewer  int       // lanes that were measured before these
	rate   float64   // of those, bytes a second; 0 when none were in this round
	waited bool      // until the first lane was up to speed
	last   int64     // extents that had landed when it was looked last
	moved  time.Time // when that was less
}

// seen is what a look sees, since a transfer began.
type seen struct {
	extents, bytes int64         // that have landed
	writing        time.Duration // that lanes wrote those by calls that take turns at a file, or waited for theirs, together
	idle           time.Duration // that this host's processors had nothing to do, together
}

// look is told what is seen, of how many lanes, which were as many when it was asked last, and how
// many there may be; typical is how long an extent takes, 0 when none has come. It gives how many there
// shall be, and when it wants to look again; 0 is never.
func (s *streams) look(at time.Time, lanes, most int, now seen, typical time.Duration) (want int, again time.Duration) {
	if s.over() {
		return lanes, 0
	}
	span := streamsRounds[s.round].span
	if now.extents != s.last || s.moved.IsZero() {
		s.last, s.moved = now.extents, at
	}
	switch {
	case typical == 0:
		return lanes, span
	case at.Sub(s.moved) > max(span, streamsIdle*typical): // there is nothing to move
		s.since = time.Time{}
		return lanes, streamsRounds[len(streamsRounds)-1].span
	case !s.waited && 8*typical > streamsAfter:
		s.waited = true
		return lanes, 8*typical - streamsAfter
	case s.since.IsZero():
		s.since, s.then = at, now
		return lanes, span
	case now.extents-s.then.extents < streamsLeast:
		return lanes, span
	}
	took := at.Sub(s.since)
	rate := float64(now.bytes-s.then.bytes) / took.Seconds()
	s.since = time.Time{}
	switch {
	case s.trying() && rate < streamsLead*s.rate:
		return s.fewer, s.next()
	case lanes >= most:
		s.end()
		return lanes, 0
	case now.idle-s.then.idle < took/2, now.writing-s.then.writing > time.Duration(lanes)*took*3/4:
		s.rate, s.round = 0, min(s.round+1, len(streamsRounds)-1)
		return lanes, streamsRounds[s.round].after
	}
	s.fewer, s.rate = lanes, rate
	return min(streamsMore*lanes, most), max(streamsSettle, 4*typical)
}

// next ends a round, and gives how long it is to the next one; 0 if there is none.
func (s *streams) next() time.Duration {
	s.rate = 0
	if s.round++; s.over() {
		return 0
	}
	return streamsRounds[s.round].after
}

// trying reports whether there are lanes that may go again.
func (s *streams) trying() bool { return s.rate > 0 }

func (s *streams) over() bool { return s.round == len(streamsRounds) }

func (s *streams) end() { s.round, s.rate = len(streamsRounds), 0 }

// roomy is a [PullTransport] whose lanes take memory that others may need more.
type roomy interface {
	// Room reports whether there is so much left that so many lanes more can be tried.
	Room(lanes int) bool
}

// inUse is the lanes that carry the transfer now; nil while there are none.
func (k *keeper) inUse() *group {
	for _, g := range []*group{k.rdma, k.tcp} {
		if g != nil && len(g.up) > 0 {
			return g
		}
	}
	return nil
}

// stream opens more lanes, or ends some, as what was measured says.
func (k *keeper) stream() {
	g := k.inUse()
	switch {
	case g == nil || g.asked > 0: // one transport has taken over from the other, or all are lost
		return
	case g.opening > 0, slices.ContainsFunc(g.up, func(f *laneFeed) bool { return f.gone.Load() }): // of which k is told soon
		k.streaming.Reset(streamsSettle)
		return
	case g.missing() > 0: // some can't be had, or were lost
		g.streams.end()
		g.find(max(len(g.up), g.streams.fewer))
		k.announce(g, k.trouble)
		return
	}
	if len(g.up) != g.looked { // a rail has come, or a lane has come back
		g.streams.since = time.Time{}
	}
	now := seen{extents: k.l.landed.Load(), bytes: k.l.bytes(), writing: time.Duration(k.l.writing.Load()), idle: k.l.p.spare()}
	want, again := g.streams.look(time.Now(), len(g.up), g.more, now, g.up[0].usual())
	if r, ok := g.PullTransport.(roomy); ok && want > len(g.up) && !r.Room(want-len(g.up)) {
		g.streams.end()
		want, again = len(g.up), 0
	}
	g.find(want)
	g.looked = g.want
	for len(g.up) > g.want {
		g.retire(len(g.up) - 1)
	}
	if !g.streams.trying() || g.want > len(g.up) { // else these are tried still
		k.announce(g, k.trouble)
	}
	if n := g.missing(); n > 0 {
		k.open(g, n)
	}
	if again > 0 {
		k.streaming.Reset(again)
	}
}

// bytes is what has landed over all lanes that there ever were.
func (l *lanes) bytes() (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.ever {
		n += f.bytes.Load()
	}
	return n
}

// spare is how long this host's processors had nothing to do so far, together; as if one never had where all is
// discarded: there lanes wait for no file's lock, and more of them paid with both of two processors busy.
func (r *Receiver) spare() time.Duration {
	if r.spares != nil {
		return r.spares()
	}
	if _, ok := r.Sink.(Discard); ok {
		return oneIdle()
	}
	return hostIdle()
}
