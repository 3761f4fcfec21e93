package transfer

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Sink is where a receiver lands what senders offer.
type Sink interface {
	// Begin makes room for one transfer. The same transfer, begun again after it was
	// interrupted, has the same id.
	Begin(id [16]byte) (Destination, error)
	// Look is Begin for a dry run: nothing is made, and nothing changes.
	Look(id [16]byte) (Outlook, error)
	// Describe names the sink: "into DIR", "discarded".
	Describe() string
	// Durable reports whether what was committed survives a power cut.
	Durable() bool
	Close() error
}

// Destination is where one transfer lands. Its methods may be called from several
// goroutines at once, but Commit and Close from one at a time.
type Destination interface {
	// Check says with a [Code] why an entry can't land, before anything is moved. done
	// is not nil when the entry is there already, landed by this transfer before it was
	// interrupted.
	Check(e *wire.Entry) (done *Finished, err error)
	// Mkdir makes a directory, and Finish gives it its mode and times when everything
	// in it has landed.
	Mkdir(e *wire.Entry) error
	Finish(e *wire.Entry) error
	// Symlink makes a symbolic link.
	Symlink(e *wire.Entry) error
	// HardLink gives a file that has landed one more name. It is not [Destination.Check]ed.
	HardLink(e *wire.Entry) error
	// Resume gives what is there of a file that a transfer before had begun: nil if
	// there is nothing.
	Resume(e *wire.Entry) (Landing, []Block, error)
	// Create makes a place for a file or a stream.
	Create(e *wire.Entry) (Landing, error)
	// Put is Create for a small file, with all of its bytes, which it does not keep.
	Put(e *wire.Entry, b []byte) (Landing, error)
	// Commit makes files durable, together, and gives them their names.
	Commit([]Whole) []error
	// Storage says how files were written so far.
	Storage() Storage
	// Close ends the transfer. What did not land is kept for another try, or goes.
	Close(keep bool) error
}

// Outlook says what would become of one transfer's entries, which come in the order of
// the manifest.
type Outlook interface {
	// Foresee says what would become of an entry, or with a [Code] why it could not land.
	Foresee(e *wire.Entry) (Foreseen, error)
	Close() error
}

// Foreseen is what would become of an entry that would land.
type Foreseen struct {
	Here     int64 // bytes of it that have landed before, and would not be sent again
	Done     bool  // it is there, landed by an earlier try: nothing would be done
	Replaces bool  // something else has its name, and would lose it
}

// Finished is what is known of a file that landed before.
type Finished struct {
	Digest *Digest // nil when it was not verified
}

// Block is 16 MiB of a file, at a multiple of that, that landed before.
type Block struct {
	Number uint32
	Sum    Digest // [digest.Node].Sum; zero when nothing is verified
}

// Whole is a file of which everything has landed.
type Whole struct {
	Landing
	Digest *Digest // nil when nothing is verified
	Kind   digest.Kind
}

// Landing is one file on its way in. WriteAt may be called from several goroutines;
// Abort or Leave once, after them, unless it was committed.
type Landing interface {
	WriteAt(p []byte, off int64) (int, error)
	// Verified says that a block was written and is what the sender has.
	Verified(block uint32, sum Digest)
	// Abort leaves nothing behind.
	Abort()
	// Leave leaves what has landed for another try.
	Leave()
}

// paced is a Destination that takes nothing at or beyond an offset, in bytes, which moves
// on by allow. fail gives its file up. Its Landing hears of each extent that is sound:
// that has landed, and is what the sender has.
type paced interface {
	pace(allow func(below int64), fail func(file uint32, err error))
}

// mortal is a Destination in which nothing can land any more when something of its own has
// failed: it calls end then, once or more, and the transfer ends.
type mortal interface{ ends(end func(error)) }

// batched is a Destination that hears when another batch of its transfer begins.
type batched interface{ begins() }

type soundLanding interface{ sound(extent int) }

// Discard is the sink that keeps nothing: for measuring.
type Discard struct{}

// Begin opens what swallows bytes that the program never sees.
func (Discard) Begin([16]byte) (Destination, error) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, errorf(CodeLocalIO, "discarding: %w", err)
	}
	return nowhere{null}, nil
}

// Look sees that everything would be discarded.
func (Discard) Look([16]byte) (Outlook, error) {
	return foretold(func(*wire.Entry) error { return nil }), nil
}

// Describe says that nothing is kept.
func (Discard) Describe() string { return "discarded" }

// Durable is false: nothing is kept.
func (Discard) Durable() bool { return false }

// Close does nothing.
func (Discard) Close() error { return nil }

// nowhere is a Destination, and the Landing of each of its files. null may be nil.
type nowhere struct{ null *os.File }

func (nowhere) Check(*wire.Entry) (*Finished, error)         { return nil, nil }
func (nowhere) Mkdir(*wire.Entry) error                      { return nil }
func (nowhere) Finish(*wire.Entry) error                     { return nil }
func (nowhere) Symlink(*wire.Entry) error                    { return nil }
func (nowhere) HardLink(*wire.Entry) error                   { return nil }
func (nowhere) Resume(*wire.Entry) (Landing, []Block, error) { return nil, nil, nil }
func (nowhere) Verified(uint32, Digest)                      {}
func (n nowhere) Create(*wire.Entry) (Landing, error)        { return n, nil }
func (n nowhere) Put(*wire.Entry, []byte) (Landing, error)   { return n, nil }
func (nowhere) WriteAt(p []byte, _ int64) (int, error)       { return len(p), nil }
func (n nowhere) place() (*os.File, bool)                    { return n.null, false }
func (nowhere) wrote(int64, int64) error                     { return nil }
func (nowhere) Storage() Storage                             { return Storage{} }
func (nowhere) Commit(l []Whole) []error                     { return make([]error, len(l)) }
func (nowhere) Abort()                                       {}
func (nowhere) Leave()                                       {}

func (nowhere) failed(op string, err error) error {
	return errorf(CodeLocalIO, "%s what is discarded: %w", op, err)
}

func (n nowhere) Close(bool) error {
	if n.null == nil {
		return nil
	}
	return n.null.Close()
}

// foretold is an Outlook of one function, of what has nothing to close.
type foretold func(e *wire.Entry) error

func (f foretold) Foresee(e *wire.Entry) (Foreseen, error) { return Foreseen{}, f(e) }
func (f foretold) Close() error                            { return nil }

// Overwrite says what happens when the destination exists.
type Overwrite string

// The policies.
const (
	OverwriteNever  Overwrite = "never"
	OverwriteNewer  Overwrite = "newer" // replace what is older than the source
	OverwriteAlways Overwrite = "always"
)

// replaces reports whether a file of mtime old may make room for one of mtime new.
func (o Overwrite) replaces(old, new time.Time) bool {
	return o == OverwriteAlways || o == OverwriteNewer && old.Before(new)
}

// Printable makes a peer's text safe to show: what a terminal would obey, or
// would not show, is escaped.
func Printable(s string) string {
	special := func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }
	if !strings.ContainsFunc(s, special) { // most names, and nothing is made of them
		return s
	}
	q := strconv.Quote(s)
	if q[1:len(q)-1] == s {
		return s
	}
	return q
}
