package transfer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// sourceFile is one entry at the sender, from the manifest to its receipt.
type sourceFile struct {
	path   string // on this host
	entry  wire.Entry
	stamp  stamp
	linked bool    // the file has other names
	stream *stream // of a Stream
	store  *storage

	mu       sync.Mutex
	file     *os.File         // of a file that travels in ranges, once it was asked for
	direct   *directFile      // the same, past the page cache; nil when it is read through it
	found    residency        // of the file, before it was read; it stays as it is
	err      error            // set: the file is given up
	have     map[int]Digest   // digests that were not sent yet
	unhashed map[int]struct{} // extents that were read, and their digests not taken
	allHere  sync.Cond        // on mu: unhashed shrank, or err was set
	landed   int              // how often the receiver said so; its converse's alone
}

func newSourceFile(found *found, store *storage) *sourceFile {
	f := &sourceFile{path: found.path, entry: found.entry, stamp: found.stamp, linked: found.linked, store: store}
	f.allHere.L = &f.mu
	return f
}

// opens reports whether the entry may have a file open while it is under way: small ones are read
// at one go.
func (f *sourceFile) opens() bool {
	return f.entry.Kind == wire.File && f.entry.Size > maxPacked || f.entry.Kind == wire.Stream
}

// release closes what is open.
func (f *sourceFile) release() {
	f.giveUp()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		if f.store.keep {
			f.restore(f.file, 0, f.entry.Size)
		}
		f.file.Close()
		f.file = nil
	}
	f.direct.close()
	f.direct = nil
}

// fail sets why a file is given up. It answers false when it was before.
func (f *sourceFile) fail(err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := f.err == nil
	if first {
		f.err = err
	}
	f.allHere.Broadcast()
	return first
}

func (f *sourceFile) giveUp() {
	f.fail(errOver)
	if f.stream != nil {
		f.stream.close()
	}
}

// size is what there is to ask for, bytes: of a stream, what was read so far.
func (f *sourceFile) size() int64 {
	if f.stream != nil {
		return f.stream.size()
	}
	return f.entry.Size
}

// open opens the file when it is first asked for, and makes sure that it is the one
// of the manifest. Who has a lease of it may be waited for, and whoever gives the file up
// doesn't wait for that.
func (f *sourceFile) open() (*os.File, error) {
	f.mu.Lock()
	file, err := f.file, f.err
	f.mu.Unlock()
	if file != nil || err != nil {
		return file, err
	}
	if file, err = openSource(f.path); err != nil {
		return nil, err
	}
	if err := f.compare(file); err != nil {
		file.Close()
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.file != nil { // meanwhile
		file.Close()
		return f.file, f.err
	}
	f.file = file
	if err := f.prepare(); err != nil {
		f.file = nil
		file.Close()
		return nil, err
	}
	return file, nil
}

// readAt fills p from an offset.
func (f *sourceFile) readAt(p []byte, off int64) error {
	if f.stream != nil {
		return f.stream.readAt(p, off)
	}
	file, err := f.open()
	if err != nil {
		return err
	}
	if err := f.read(file, p, off); err != nil {
		return f.readError(err, off+int64(len(p)))
	}
	return nil
}

// readWhole fills p with the whole of a small file, and compares it with the manifest
// after that: what was read is what the manifest speaks of.
func (f *sourceFile) readWhole(p []byte) error {
	if err := f.failed(); err != nil {
		return err
	}
	at := place{path: f.path}
	fd, err := at.open()
	if err != nil {
		return at.fail("open", err)
	}
	defer unix.Close(fd)
	if err := f.readSmall(fd, p); err != nil {
		return f.readError(err, int64(len(p)))
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return errorf(CodeLocalIO, "source %s: %w", f.path, err)
	}
	return f.unchanged(stampOf(&st))
}

// failed gives why a file is given up; nil if it is not.
func (f *sourceFile) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// readError says why bytes up to end can't be had.
func (f *sourceFile) readError(err error, end int64) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errorf(CodeLocalIO, "source %s was truncated while it was read: it had %d bytes and ends before %d now (send it again when it is at rest)",
			f.path, f.entry.Size, end)
	}
	return errorf(CodeLocalIO, "reading source %s before %d: %w", f.path, end, err)
}

// expect notes that an extent's digest is to come.
func (f *sourceFile) expect(extent int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unhashed == nil {
		f.unhashed = make(map[int]struct{})
	}
	f.unhashed[extent] = struct{}{}
}

// digestsAtOnce is how many digests of a file are sent together while it travels:
// those of a ledger's block.
const digestsAtOnce = 16

// hashed keeps an extent's digest, and gives those that are to be sent when they are
// enough; with prompt one is.
func (f *sourceFile) hashed(extent int, d Digest, prompt bool) map[int]Digest {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.have == nil {
		f.have = make(map[int]Digest)
	}
	if f.unhashed == nil {
		f.unhashed = make(map[int]struct{})
	}
	f.have[extent] = d
	if len(f.have) < digestsAtOnce && f.stream == nil && !prompt {
		delete(f.unhashed, extent)
		f.allHere.Broadcast()
		return nil
	}
	have := f.have
	f.have = nil
	// Until they are sent nobody may vouch: the voucher must not overtake them.
	for n := range have {
		f.unhashed[n] = struct{}{}
	}
	return have
}

// told says that digests are on their way.
func (f *sourceFile) told(have map[int]Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := range have {
		delete(f.unhashed, n)
	}
	f.allHere.Broadcast()
}

// digestLimit is how long a vouching source waits for the digests of extents that
// are on their way. What never left, for somebody meddled with the requests, is
// left out, and the receiver asks for it again.
const digestLimit = 10 * time.Second

// vouch waits until the digest of every extent that has left is known, checks that
// the file is still the one of the manifest, and gives the digests that were not sent
// yet. It fails the file, and answers false, when the file has changed.
func (s *Source) vouch(f *sourceFile) (map[int]Digest, bool) {
	f.mu.Lock()
	if s.Verifying() {
		late := false
		limit := time.AfterFunc(digestLimit, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			late = true
			f.allHere.Broadcast()
		})
		for f.err == nil && len(f.unhashed) > 0 && !late {
			f.allHere.Wait()
		}
		limit.Stop()
	}
	have, failed := f.have, f.err != nil
	f.have = nil
	f.mu.Unlock()
	if failed {
		return nil, false
	}
	if err := f.stillThere(); err != nil {
		s.fail(f, err)
		return nil, false
	}
	return have, true
}

// stillThere compares the file with what the manifest says of it. One that nobody has opened,
// for nothing is in it, does not stay open: there may be many.
func (f *sourceFile) stillThere() error {
	if f.entry.Kind != wire.File {
		return nil
	}
	f.mu.Lock()
	file := f.file
	f.mu.Unlock()
	if file == nil {
		var err error
		if file, err = openSource(f.path); err != nil {
			return err
		}
		defer file.Close()
	}
	return f.compare(file)
}

func (f *sourceFile) compare(file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return errorf(CodeLocalIO, "source %s: %w", f.path, err)
	}
	var st unix.Stat_t
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.Fstat(int(fd), &st) }); err != nil {
		return errorf(CodeLocalIO, "source %s is closed: %w", f.path, err)
	}
	if serr != nil {
		return errorf(CodeLocalIO, "source %s: %w", f.path, serr)
	}
	return f.unchanged(stampOf(&st))
}

func (f *sourceFile) unchanged(now stamp) error {
	if now == f.stamp {
		return nil
	}
	how := "written to at " + time.Unix(now.mtime.Unix()).Format(time.RFC3339)
	switch {
	case now.dev != f.stamp.dev || now.ino != f.stamp.ino:
		how = "another file has its name"
	case now.size != f.stamp.size:
		how = fmt.Sprintf("it had %d bytes and has %d", f.stamp.size, now.size)
	}
	return errorf(CodeLocalIO, "source %s changed while it was read (%s): send it again when it is at rest", f.path, how)
}
