package transfer

import (
	"strconv"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Sink is where a receiver lands files. Create is called from one goroutine.
type Sink interface {
	// Create makes a place for a file, or says with a [Code] why there is none.
	// What it made is gone again unless Commit succeeds.
	Create(e *wire.Entry) (Landing, error)
	// Describe names the sink: "into DIR", "discarded".
	Describe() string
	Close() error
}

// Landing is one file on its way in. WriteAt may be called from several
// goroutines; Commit or Abort once, after them.
type Landing interface {
	WriteAt(p []byte, off int64) (int, error)
	// Commit makes the file durable and gives it its name.
	Commit() error
	// Abort leaves nothing behind.
	Abort()
}

// Discard is the sink that keeps nothing: for measuring.
type Discard struct{}

// Create accepts any file.
func (Discard) Create(*wire.Entry) (Landing, error) { return nowhere{}, nil }

// Describe says that nothing is kept.
func (Discard) Describe() string { return "discarded" }

// Close does nothing.
func (Discard) Close() error { return nil }

type nowhere struct{}

func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nowhere) Commit() error                          { return nil }
func (nowhere) Abort()                                 {}

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
	q := strconv.Quote(s)
	if q[1:len(q)-1] == s {
		return s
	}
	return q
}
