package transfer

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
)

// Plan is what carries the data.
type Plan struct {
	Transport string // rdma or tcp, as used
	Detail    string // "rxe_b gid=1 mtu=4096 op=send", or "method=copy"
	Lanes     int    // that are up
	Reason    string // why it is not what was asked for, or was not for a while; empty otherwise
}

// LaneResult is what one lane did.
type LaneResult struct {
	Transport string // rdma or tcp
	Detail    string // what this end of it ran on, as in Plan
	Bytes     int64  // that landed over it, also such as had to be sent again
}

// FileResult is what became of one file.
type FileResult struct {
	Path   string
	Size   int64   // bytes; of a stream in a dry run -1, since nobody knows
	Digest *Digest // of the whole file; nil when nothing was verified
	Kind   digest.Kind
	Err    error // nil when it landed
	// Skipped says what it is that is left out of a tree; it is no failure.
	Skipped string
	// Left says why a source that has arrived, and was reported, could not be removed.
	Left error
	// Foreseen is set in a dry run: what would become of the file, when Err is nil.
	Foreseen *Foreseen
}

// Result sums a transfer up, by the receiver's clock. That of a dry run counts as landed
// what would land.
type Result struct {
	DryRun    bool
	PathsOnly bool  // it was asked how RDMA reaches this host, and nothing was to move
	Measuring bool  // the session was for measuring, and nothing was to land
	Files     int   // that landed
	Failed    int   // that did not
	Bytes     int64 // of the files that landed
	Resumed   int64 // of these, bytes that had landed before the transfer was interrupted
	Elapsed   time.Duration
	Plan      Plan         // the last
	Lanes     []LaneResult // that bytes landed over, in the order in which they came up
	Verify    string
	Hashing   time.Duration // of CPU that digests took beside the moving, about
	Storage   Storage       // what this end did
	// Measured is how many loads were measured, where the session was for that.
	Measured int
}

// Observer hears what happens during a transfer. Its methods are called from one
// goroutine at a time, with nothing of the transfer locked: one that waits holds up what
// would be told next, not the lanes.
type Observer interface {
	Planned(Plan)
	File(FileResult)
	// Paths is called when it was found out how RDMA reaches the other host, or that it
	// does not.
	Paths(*PathReport)
}

// teller tells an observer, one call at a time.
type teller struct{ telling sync.Mutex }

// tell has the observer called, if there is one. Nobody who calls it holds a lock that a
// lane or the session could wait for: the observer may be a pipe that nobody reads.
func (t *teller) tell(o Observer, call func(Observer)) {
	if o == nil {
		return
	}
	t.telling.Lock()
	defer t.telling.Unlock()
	call(o)
}

// Progress may be read while a transfer runs.
type Progress struct {
	Moved, Total atomic.Int64 // bytes
}

// failures collects what went wrong with single files.
type failures struct {
	n       int
	first   error
	passing bool // some may be mended: what landed is kept for another try
	dry     bool // nothing was tried
}

// add counts n files that failed for one reason.
func (f *failures) add(err error, n int) {
	f.n += n
	switch CodeOf(err) {
	case CodeLocalIO, CodeConnect, CodeIntegrity:
		f.passing = true
	}
	if f.first == nil {
		f.first = err
	}
}

// sum is the error of the whole transfer: the first file's own when nothing
// landed, a partial one when something did.
func (f *failures) sum(landed int) error {
	switch {
	case f.n == 0:
		return nil
	case landed == 0 && f.n == 1:
		return f.first
	case landed == 0:
		return &Error{Code: CodeOf(f.first), Err: fmt.Errorf("none of %d files %s; the first: %w", f.n, f.words("arrived", "would arrive"), f.first)}
	}
	return errorf(CodePartial, "%d of %d files %s; the first: %w", f.n, f.n+landed, f.words("did not arrive", "would not arrive"), f.first)
}

func (f *failures) words(done, dry string) string {
	if f.dry {
		return dry
	}
	return done
}

// The transport policies.
const (
	TransportAuto = "auto"
	TransportRDMA = "rdma"
	TransportTCP  = "tcp"
	TransportUDP  = "udp" // of measurements alone
)
