package tcpfallback

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// Landings are the ways in that a receiver can be asked for. What each copies by the CPU,
// from the socket's memory to the file's pages, and what it needs:
//
//	copy    twice, through a buffer (read, pwrite); nothing
//	splice  once, through a pipe (splice); a file system that has splice, and a clear,
//	        uncompressed lane
//	mmap    once, into the file's pages (read into a mapping); a file system that has
//	        mappings and fallocate, and a clear, uncompressed lane
//
// auto is splice where nothing is verified, else copy: what splice and mmap move the
// program never sees, so digests cost one more copy, out of the file. What is no range of
// a file whose every byte is written, or is asked for by two lanes, goes as copy does.
var Landings = []string{"auto", "copy", "splice", "mmap"}

// landing moves payload from a connection into a file, where the program does not see it.
type landing interface {
	name() string
	// into moves n bytes. got is how many of them it has taken off the connection. An error
	// that is no fileError is the connection's. With errUnfit nothing was written, and got
	// bytes are in b.
	into(conn *lowWater, file *os.File, off int64, n int, b []byte) (got int, err error)
	close()
}

// errUnfit says that a file can't be written in this way.
var errUnfit = errors.New("this file system can't do that")

// fileError is an error of the file, not of the connection.
type fileError struct{ error }

func (e fileError) Unwrap() error { return e.error }

func newLanding(name string) (landing, error) {
	switch name {
	case "", "auto", "copy":
		return nil, nil
	case "splice":
		return newSpliceIn()
	case "mmap":
		return mmapIn{}, nil
	}
	return nil, fmt.Errorf("no way in %q (there are %v)", name, slices.Clone(Landings))
}

// wayIn is how extents of f land: nil by Land alone.
func (p *puller) wayIn(f transfer.Feed) (landing, error) {
	files, ok := f.(transfer.FileFeed)
	_, clear := p.conn.(*net.TCPConn)
	switch {
	case !ok || !clear:
		return nil, nil
	case p.landing == "auto" && !files.Verifying():
		if l, err := newSpliceIn(); err == nil {
			return l, nil
		}
		return nil, nil // no descriptors are left for a pipe
	}
	return newLanding(p.landing)
}

// place lands the payload of e in a file.
func (p *puller) place(f transfer.FileFeed, e transfer.Extent, file *os.File) error {
	b := p.buf[:e.Len]
	p.low.poured = 0
	got, err := p.way.into(&p.low, file, e.Off, e.Len, b)
	var bad fileError
	switch {
	case err == nil:
		p.answered()
		return f.Placed(e, b, p.low.poured)
	case errors.Is(err, errUnfit):
		p.way.close()
		p.way = nil
		p.unfit.Store(true)
		if err := p.fill(b[got:]); err != nil {
			return err
		}
		p.answered()
		return f.Land(e, b)
	case errors.As(err, &bad): // what comes still of it is for nobody
		if err := p.fill(b[got:]); err != nil {
			return err
		}
		p.answered()
		f.Displaced(e, bad.error)
		return nil
	}
	return err
}
