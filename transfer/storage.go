package transfer

import (
	"errors"
	"os"
	"sync/atomic"
	"time"
)

// Storage is what one end of a transfer did with the files on its disks.
type Storage struct {
	// Direct is how many bytes were read or written past the page cache, and Cached how
	// many through it; what lanes moved between file and wire by themselves is in neither.
	// Asked is what the user wanted, and Refused why not everything was direct that was to
	// be: "" when there was nothing in the way.
	Direct, Cached int64
	Asked          Direct
	Refused        string
	// Readback is how many bytes of files were read again when they were durable, and
	// Reading how long that took; both are 0 when nobody asked for it.
	Readback int64
	Reading  time.Duration
}

// storage counts, for all files of one end.
type storage struct {
	asked          Direct
	keep           bool // leave the page cache as it was found
	direct, cached atomic.Int64
	refused        atomic.Pointer[string]
	readback       atomic.Int64
	reading        atomic.Int64 // ns
}

// Storage gives the counts so far.
func (s *storage) Storage() Storage {
	r := Storage{
		Direct: s.direct.Load(), Cached: s.cached.Load(), Asked: s.asked,
		Readback: s.readback.Load(), Reading: time.Duration(s.reading.Load()),
	}
	if why := s.refused.Load(); why != nil {
		r.Refused = *why
	}
	return r
}

// open makes a descriptor for O_DIRECT, where there is one to be had and it is wanted;
// else nil. The error is that of a file that can't be opened at all.
func (s *storage) open(open func(flags int) (*os.File, error)) (*directFile, error) {
	d, err := openDirect(open)
	if errors.Is(err, errNotDirect) {
		s.refuse(err)
		return nil, nil
	}
	return d, err
}

// refuse notes why something was not direct, the first time.
func (s *storage) refuse(err error) {
	why := err.Error()
	s.refused.CompareAndSwap(nil, &why)
}
