package compress

import "time"

const (
	sampleSize = 64 << 10 // of an extent, to see what compressing would do

	// A round is what is measured as one, bytes of files. It is longer than what
	// the socket's buffer takes at once, and the first after a change counts
	// nothing: it filled or emptied that buffer. On a slow link it ends after roundTime, or
	// little would be compressed there, where it pays most.
	round     = 8 << 20
	roundTime = 2 * time.Second

	// Compressing begins when it promises gain, goes on while it keeps half of it.
	gain = 1.1
	keep = 1.05

	sampleEvery = 2 * round  // bytes, where compressing might pay
	sampleRare  = 16 * round // where samples are not shorter, or the encoder too slow

	// After compressing that did not pay it is left for a while, longer each time.
	holdFirst = 4 // rounds
	holdMost  = 64

	// A lane that the encoder holds up can't see how fast the link is any more. It
	// looks, two rounds long, after compressing for so many times what that takes.
	lookAfter = 32
)

// judge decides whether a lane compresses, out of measured durations alone. A lane
// compresses, then writes, in one goroutine, so what ends sooner is the sum.
type judge struct {
	on bool

	link   float64 // bytes a second that it takes; at least, while the encoder is slower
	encode float64 // bytes a second that go into the encoder
	ratio  float64 // bytes that come out of it for one that goes in

	// This round's.
	raw, wire     int
	blocked, busy time.Duration

	rounds   int           // since on changed
	spent    time.Duration // busy since then
	losing   int           // rounds without gain, one after the other
	hold     int           // rounds to stay off
	nextHold int
	unseen   int // bytes since the last sample
	every    int // bytes between samples
}

func newJudge() judge { return judge{every: sampleEvery, unseen: sampleEvery, nextHold: holdFirst} }

// due reports whether the next extent is to be sampled.
func (j *judge) due() bool { return j.unseen >= j.every }

// encoded takes what became of raw bytes in the encoder, and in what time.
func (j *judge) encoded(raw, out int, took time.Duration) {
	if raw == 0 {
		return
	}
	blend(&j.ratio, float64(out)/float64(raw))
	blend(&j.encode, rate(raw, took))
	if j.on {
		return
	}
	j.unseen = 0
	if j.ratio < 0.9 && j.encode > j.link {
		j.every = sampleEvery
	} else {
		j.every = min(2*j.every, sampleRare)
	}
}

// sent takes an extent of raw bytes that went as wire bytes: busy from its request
// to its end, blocked in the link's write.
func (j *judge) sent(raw, wire int, blocked, busy time.Duration) {
	j.unseen += raw
	j.raw += raw
	j.wire += wire
	j.blocked += blocked
	j.busy += busy
	if j.raw < round && j.busy < roundTime {
		return
	}
	j.rounds++
	j.spent += j.busy
	if j.rounds > 1 {
		j.measure()
		j.decide()
	}
	j.raw, j.wire, j.blocked, j.busy = 0, 0, 0, 0
}

// measure learns the link's rate. Where the lane hardly waited for the link, that
// is the least it can be.
func (j *judge) measure() {
	seen := rate(j.wire, j.busy)
	switch {
	case !j.on && j.rounds == 2:
		j.link = seen
	case !j.on || j.blocked > j.busy/4:
		blend(&j.link, seen)
	default:
		j.link = max(j.link, seen)
	}
}

func (j *judge) decide() {
	if !j.on {
		if j.rounds > j.hold && j.ratio > 0 && 1/(1/j.encode+j.ratio/j.link) > gain*j.link {
			j.turn(true)
		}
		return
	}
	if j.rounds >= holdMost {
		j.nextHold = holdFirst // that was well decided
	}
	j.losing++
	if rate(j.raw, j.busy) >= keep*j.link {
		j.losing = 0
	}
	switch {
	case j.losing == 2: // one may be somebody else's doing
		j.hold, j.nextHold = j.nextHold, min(2*j.nextHold, holdMost)
		j.turn(false)
	case j.blocked <= j.busy/4 && j.spent.Seconds() > lookAfter*2*round/j.link:
		j.hold = 0
		j.turn(false)
	}
}

func (j *judge) turn(on bool) {
	j.on = on
	j.rounds, j.losing, j.spent = 0, 0, 0
	// What the encoder did to whole extents is worth more than a sample, for now.
	j.unseen, j.every = 0, sampleEvery
}

// blend moves a mean towards v, which is the mean at first.
func blend(mean *float64, v float64) {
	if *mean == 0 {
		*mean = v
	}
	*mean += (v - *mean) / 2
}

// rate is bytes a second, of a clock that may not have moved.
func rate(bytes int, d time.Duration) float64 {
	return float64(bytes) / max(d, time.Nanosecond).Seconds()
}
