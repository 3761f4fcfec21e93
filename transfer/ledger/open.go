package ledger

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

const (
	prefix = ".rdmaxfer-"
	suffix = ".ledger"
	fresh  = ".new" // behind the name, while the ledger is compacted
)

// Name is the name of a transfer's ledger.
func Name(transfer [16]byte) string { return prefix + hex.EncodeToString(transfer[:]) + suffix }

// Open opens the ledger of a transfer, or makes it, with mode 0600, and locks it.
// [ErrBusy] and [ErrForeign] say why it may not be used. What is damaged is cut
// off; a ledger of another version or transfer counts as empty. A ledger most of
// which means nothing any more is written anew.
func Open(root *os.Root, name string, transfer [16]byte) (*Ledger, error) {
	return open(rooted{root}, name, transfer)
}

func open(d directory, name string, transfer [16]byte) (*Ledger, error) {
	f, err := d.open(name, true)
	if err != nil {
		return nil, fmt.Errorf("ledger %s: %w", name, err)
	}
	l := &Ledger{dir: d, file: f, name: name, transfer: transfer}
	if err := l.load(); err != nil {
		l.file.Close()
		return nil, fmt.Errorf("ledger %s: %w (remove it to begin again)", name, err)
	}
	return l, nil
}

// errPeeked is why nothing is appended to a ledger that was opened to be looked at.
var errPeeked = errors.New("the ledger was opened to be read alone")

// Peek opens the ledger of a transfer to be read, locked as by [Open], and changes
// nothing of it; nor does Close. One that is not there says nothing.
func Peek(root *os.Root, name string, transfer [16]byte) (*Ledger, error) {
	l := &Ledger{dir: rooted{root}, name: name, transfer: transfer, index: newIndex(), err: errPeeked}
	f, err := l.dir.open(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		l.file = f
		if _, err = l.read(); err != nil {
			f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("ledger %s: %w", name, err)
	}
	return l, nil
}

// load reads the file, cuts off what is torn, and compacts.
func (l *Ledger) load() error {
	size, err := l.read()
	if err != nil {
		return err
	}
	if size == 0 {
		return nil // just made: it is written to disk with its first records
	}
	if size > l.size {
		if err := l.file.Truncate(l.size); err != nil {
			return fmt.Errorf("cutting off its torn end: %w", err)
		}
	}
	// The receiver before may have been killed before it synced the file, or the name,
	// or after that failed: this is the last moment to hear of it.
	if err := l.file.Sync(); err != nil {
		_ = l.file.Truncate(0) // nobody knows what of it is on the disk
		return fmt.Errorf("syncing: %w", err)
	}
	if err := l.dir.sync(); err != nil {
		return fmt.Errorf("syncing its directory: %w", err)
	}
	if err := l.dir.remove(l.name+fresh, nil); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing what a killed receiver left: %w", err)
	}
	if l.index.records > 2*l.index.living() {
		return l.compact()
	}
	return nil
}

// read sets what the file says, and gives its size, which may be larger than what
// is good of it.
func (l *Ledger) read() (size int64, err error) {
	l.index = newIndex()
	size, err = l.file.Size()
	if err != nil {
		return 0, err
	}
	l.size, l.prev, err = scan(l.file, min(size, maxSize), l.transfer, func(off int64, r *record) error {
		l.index.apply(off, r)
		return nil
	})
	return size, err
}

// scan reads records until one is torn, damaged or out of its place. It gives the
// offset behind the last good one, 0 if not even the header is, and its checksum.
func scan(f io.ReaderAt, size int64, transfer [16]byte, each func(off int64, r *record) error) (good int64, sum uint32, err error) {
	in := bufio.NewReaderSize(io.NewSectionReader(f, 0, size), int(max(maxRecord, min(size, 256<<10))))
	peek := func(n int) ([]byte, error) {
		b, err := in.Peek(n)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return b, err
	}
	b, err := peek(headerSize)
	if err != nil {
		return 0, 0, fmt.Errorf("reading: %w", err)
	}
	sum, ok := parseHeader(b, transfer)
	if !ok {
		return 0, 0, nil
	}
	in.Discard(headerSize)
	good = headerSize
	var r record
	for {
		b, err := peek(maxRecord)
		if err != nil {
			return 0, 0, fmt.Errorf("reading: %w", err)
		}
		n, s, prev := parseRecord(b, &r)
		if n == 0 || prev != sum {
			return good, sum, nil
		}
		if err := each(good, &r); err != nil {
			return 0, 0, err
		}
		in.Discard(n)
		good, sum = good+int64(n), s
	}
}
