package transfer

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/internal/calls"
)

// glance is what was seen of a name.
type glance struct {
	looks
	seen bool
}

// looks is what stat(2) or statx(2) said of a file.
type looks struct {
	stamp
	mode, links, uid, gid uint32
	blocks                int64 // of 512 bytes
}

func looksOf(st *unix.Stat_t) looks {
	return looks{stampOf(st), st.Mode, uint32(st.Nlink), st.Uid, st.Gid, int64(st.Blocks)}
}

func looksIn(st *unix.Statx_t) looks {
	return looks{stampIn(st), uint32(st.Mode), st.Nlink, st.Uid, st.Gid, int64(st.Blocks)}
}

// nanoseconds is a time since 1970 in what fits into 64 bits, as it is named in an entry: what is
// before 1678 or after 2262 is at the end of that.
func nanoseconds(t unix.Timespec) int64 {
	const most = math.MaxInt64 / int64(time.Second) // seconds
	switch sec := int64(t.Sec); {
	case sec >= most:
		return math.MaxInt64
	case sec <= -most:
		return math.MinInt64
	}
	return t.Nano()
}

func (l *looks) kind() uint32 { return l.mode & unix.S_IFMT }

// empty reports whether a file says that it has nothing in it, which is not true of those of /proc.
func (l *looks) empty() bool { return l.size == 0 && l.blocks == 0 }

// glanceAge is how long a glance tells what is there: while a directory between two names is
// sent, which may take hours, a file behind it may be written to.
const glanceAge = 100 * time.Millisecond

// look looks at the first names of the batch at one go, where that can be.
func (d *walkDir) look() {
	list := newList()
	defer freeList(list)
	dir := int(d.file.Fd())
	names := d.batch[:min(len(d.batch), atOnce)]
	chains, stats := make([]calls.Chain, len(names)), make([]*unix.Statx_t, len(names))
	for i, name := range names {
		chains[i] = list.With(dir)
		stats[i] = chains[i].StatIn(name, unix.STATX_BASIC_STATS)
	}
	list.Make()
	d.looked = time.Now()
	for i := range names {
		var g glance
		if _, err := chains[i].Made(); err == nil {
			g = glance{looksIn(stats[i]), true}
		}
		d.ahead = append(d.ahead, g)
	}
}

// next gives the next name of the batch, and looks at it.
func (d *walkDir) next() (name string, l looks, err error) {
	if len(d.ahead) == 0 {
		d.look()
	}
	name, l = d.batch[0], d.ahead[0].looks
	// A file system, or a sandbox, may know this call alone.
	if !d.ahead[0].seen || time.Since(d.looked) > glanceAge {
		var st unix.Stat_t
		err = unix.Fstatat(int(d.file.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		l = looksOf(&st)
	}
	d.batch, d.ahead = d.batch[1:], d.ahead[1:]
	return name, l, err
}
