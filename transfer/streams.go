package transfer

import (
	"slices"
	"time"
)

// How many lanes over TCP pay is found out, where no user said, while a transfer runs that
// lasts: after streamsAfter, or eight times as long as an extent takes from being asked for,
// since a lane must first get up to speed, what lands is measured for streamsSpan, and until
// streamsLeast extents have landed; then there are twice as many lanes, which have
// streamsSettle, or four times what an extent takes, to get up to speed. They stay where
// they land streamsLead times as much, and are doubled again; else the new ones take no
// more, and that is that. One is what two CPUs have, and a path without loss or delay; where
// each lane is held up by those, eight move more.
const (
	streamsAfter  = 100 * time.Millisecond
	streamsSettle = 50 * time.Millisecond
	streamsSpan   = 100 * time.Millisecond
	streamsLeast  = 16
	streamsLead   = 1.15
)

// streams is how far that has come. Its zero value has measured nothing.
type streams struct {
	since   time.Time // of the measurement; zero while lanes get up to speed
	extents int64     // that had landed then
	bytes   int64     // the same
	rate    float64   // of half as many lanes, bytes a second; 0 when none was measured
	waited  bool      // until the first lane was up to speed
	over    bool
}

// look is told how much has landed, and of how many lanes, which were as many when it was
// asked last; typical is how long an extent takes. It gives how many there shall be, and when
// it wants to look again; 0 is never.
func (s *streams) look(now time.Time, lanes int, extents, bytes int64, typical time.Duration) (want int, again time.Duration) {
	switch {
	case s.over:
		return lanes, 0
	case !s.waited && 8*typical > streamsAfter:
		s.waited = true
		return lanes, 8*typical - streamsAfter
	case s.since.IsZero():
		s.since, s.extents, s.bytes = now, extents, bytes
		return lanes, streamsSpan
	case extents-s.extents < streamsLeast:
		return lanes, streamsSpan
	}
	rate := float64(bytes-s.bytes) / now.Sub(s.since).Seconds()
	s.since = time.Time{}
	if s.over = s.rate > 0 && rate < streamsLead*s.rate; s.over {
		return lanes / 2, 0
	}
	if s.over = lanes >= autoLanes; s.over {
		return lanes, 0
	}
	s.rate = rate
	return 2 * lanes, max(streamsSettle, 4*typical)
}

// stream opens more lanes over TCP, or ends some, as what was measured says.
func (k *keeper) stream() {
	g := k.tcp
	switch {
	case len(g.up) == 0: // RDMA has taken over, or all are lost
		return
	case g.opening > 0, slices.ContainsFunc(g.up, func(f *laneFeed) bool { return f.gone.Load() }): // of which k is told soon
		k.streaming.Reset(streamsSettle)
		return
	case g.missing() > 0: // some can't be had, or were lost
		k.streams.over = true
		g.want = max(len(g.up), g.want/2)
		return
	}
	want, again := k.streams.look(time.Now(), len(g.up), k.l.landed.Load(), k.l.bytes(), g.up[0].usual())
	g.want = want
	if want < len(g.up) {
		for _, f := range g.up[want:] {
			f.retired.Store(true)
		}
		g.paths[0].busy = want
		g.up = g.up[:want]
		k.announce(g, k.trouble)
	} else if n := g.missing(); n > 0 {
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
