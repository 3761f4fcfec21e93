package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"sync"
	"syscall"
)

// Ledger is an open, locked ledger. Its methods may be called from several
// goroutines.
type Ledger struct {
	dir      directory
	name     string
	transfer [16]byte

	mu    sync.Mutex
	file  file
	index index
	size  int64  // of the file, all of it synced
	buf   []byte // what comes behind it with the next Sync
	prev  uint32 // checksum of the last record, which the next one names
	err   error  // what the ledger died of
}

// maxSpare is how large a buffer is kept for the next records, in bytes.
const maxSpare = 1 << 20

// Part is what is known of an unfinished file.
type Part struct {
	Object  Object
	Runs    []Run      // of blocks that landed, ascending, none touching the next
	Digests [][32]byte // of these blocks, in their order
}

// Run is Count consecutive blocks from First on.
type Run struct{ First, Count uint32 }

// Blocks goes through the blocks that landed, ascending, with their digests.
func (p *Part) Blocks() iter.Seq2[uint32, [32]byte] {
	return func(yield func(uint32, [32]byte) bool) {
		i := 0
		for _, r := range p.Runs {
			for n := range r.Count {
				if !yield(r.First+n, p.Digests[i]) {
					return
				}
				i++
			}
		}
	}
}

// Finished is what is known of a file that landed whole; its rename may be missing.
type Finished struct {
	Object    Object
	Digest    [32]byte // of the whole file
	HasDigest bool
}

// Part gives what is known of an unfinished file. A block whose record can't be read
// back has not landed.
func (l *Ledger) Part(k Key) (*Part, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.index.parts[k]
	if p == nil {
		return nil, false
	}
	begun, ok := l.record(p.at, k)
	if !ok {
		return nil, false
	}
	p.settle()
	out := &Part{Object: begun.object, Digests: make([][32]byte, 0, len(p.blocks))}
	for _, b := range p.blocks {
		r, ok := l.record(b.at, k)
		if !ok {
			continue
		}
		out.Digests = append(out.Digests, r.digest)
		if n := len(out.Runs); n > 0 && out.Runs[n-1].First+out.Runs[n-1].Count == b.block {
			out.Runs[n-1].Count++
		} else {
			out.Runs = append(out.Runs, Run{First: b.block, Count: 1})
		}
	}
	return out, true
}

// Finished gives what is known of a finished file: nothing, if its record can't be
// read back.
func (l *Ledger) Finished(k Key) (Finished, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.index.finished[k]
	if !ok {
		return Finished{}, false
	}
	r, ok := l.record(at, k)
	return Finished{Object: r.object, Digest: r.digest, HasDigest: r.kind == kindDigested}, ok
}

// record reads a record of k back, from the file or from the buffer.
func (l *Ledger) record(at place, k Key) (r record, ok bool) {
	var space [maxRecord]byte
	b := space[:]
	if off := at.offset(); off >= l.size {
		b = l.buf[off-l.size:]
	} else {
		n, _ := l.file.ReadAt(b, off) // short at the end of the file
		b = b[:n]
	}
	n, _, _ := parseRecord(b, &r)
	return r, n > 0 && r.key == k
}

// Len counts the files that the ledger knows.
func (l *Ledger) Len() (parts, finished int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.index.parts), len(l.index.finished)
}

// AppendPart says that a part was begun: what was known of its file is void.
// Like every Append it only buffers. See Sync.
func (l *Ledger) AppendPart(k Key, o Object) {
	l.append(&record{kind: kindPart, key: k, object: o})
}

// AppendBlock says that a block of a part landed. Nothing is recorded of a file that
// has no part.
func (l *Ledger) AppendBlock(k Key, block uint32, digest [32]byte) {
	l.append(&record{kind: kindBlock, key: k, block: block, digest: digest})
}

// AppendFinished says that a file landed whole. Its part is void.
func (l *Ledger) AppendFinished(k Key, f Finished) {
	r := record{kind: kindFinished, key: k, object: f.Object}
	if f.HasDigest {
		r.kind, r.digest = kindDigested, f.Digest
	}
	l.append(&r)
}

// AppendForget says that nothing is known of a file: its part was given up.
func (l *Ledger) AppendForget(k Key) {
	l.append(&record{kind: kindForget, key: k})
}

func (l *Ledger) append(r *record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || r.kind == kindBlock && l.index.parts[r.key] == nil {
		return
	}
	if l.size == 0 && len(l.buf) == 0 {
		l.buf, l.prev = newHeader(l.transfer)
	}
	off := l.size + int64(len(l.buf))
	if off+maxRecord > maxSize {
		l.err = fmt.Errorf("ledger %s: full at %d bytes: send fewer files at once", l.name, off)
		return
	}
	l.buf, l.prev = appendRecord(l.buf, l.prev, r)
	l.index.apply(off, r)
}

// Sync makes durable what was appended. Call it when the data that the records speak
// of is durable, never earlier. When it fails the ledger is dead: nothing more is
// appended, every later call gives that error again, and what was appended since the
// last good Sync counts as missing.
func (l *Ledger) Sync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || len(l.buf) == 0 {
		return l.err
	}
	if _, err := l.file.WriteAt(l.buf, l.size); err != nil {
		return l.die("writing", err)
	}
	if err := l.file.Datasync(); err != nil {
		return l.die("syncing", err)
	}
	if l.size == 0 { // new, and so is its name
		if err := l.dir.sync(); err != nil {
			return l.die("syncing the directory", err)
		}
	}
	l.size += int64(len(l.buf))
	l.buf = l.buf[:0]
	if cap(l.buf) > maxSpare {
		l.buf = nil
	}
	return nil
}

// die ends a ledger's life. The kernel may take the pages that it could not write
// for clean, so they would be read as good until they are dropped, and a second sync
// would succeed: nothing but cutting them off is of use.
func (l *Ledger) die(op string, err error) error {
	mend := ""
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		mend = ": make room and send again"
	}
	l.err = fmt.Errorf("ledger %s: %s: %w%s", l.name, op, err, mend)
	if l.file.Truncate(l.size) == nil {
		_ = l.file.Sync()
	}
	return l.err
}

// Close keeps what was synced for the next Open and drops what was not. A ledger
// that knows of no file is removed.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end(l.size == 0 || len(l.index.parts)+len(l.index.finished) == 0)
}

// Remove ends a transfer that went well: the ledger goes, and then its lock. That
// the name is gone is not made durable: should it come back, all that it says is true.
func (l *Ledger) Remove() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end(true)
}

var errClosed = errors.New("the ledger is closed")

func (l *Ledger) end(remove bool) error {
	if errors.Is(l.err, errClosed) {
		return l.err
	}
	err := l.err
	l.err = errClosed
	if errors.Is(err, errPeeked) {
		if l.file == nil {
			return nil
		}
		return l.file.Close()
	}
	if remove {
		// Somebody may have removed it, and begun another one.
		if e := l.dir.remove(l.name, l.file); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("ledger %s: removing: %w", l.name, e))
		}
	}
	return errors.Join(err, l.file.Close())
}
