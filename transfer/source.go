package transfer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Source is what a sender's lanes serve: the files of the manifest, by number.
// Its methods may be called from several lanes at once.
type Source struct {
	files      []*sourceFile
	extentSize int64
	verify     bool
	served     atomic.Int64 // bytes handed to lanes, sent again ones too
	failed     func(file uint32, err error)
}

type sourceFile struct {
	path  string // on this host
	entry wire.Entry
	ctime unix.Timespec

	mu      sync.Mutex
	file    *os.File
	err     error          // set: the file is given up
	have    map[int]Digest // digests that were not sent yet
	hashed  map[int]bool   // extents whose digest is known
	allHere sync.Cond      // on mu: hashed grew, or err was set
}

// OpenSource looks at every path and builds the manifest. Each must be a regular
// file; their base names must differ, for that is what they land as.
func OpenSource(paths []string) (*Source, error) {
	s := &Source{extentSize: DefaultExtentSize, failed: func(uint32, error) {}}
	seen := make(map[string]string)
	for i, path := range paths {
		f, err := openRegular(path)
		if err != nil {
			s.Close()
			return nil, err
		}
		sf, err := newSourceFile(path, uint32(i), f)
		if err == nil && seen[sf.entry.Path] != "" {
			err = errorf(CodeUsage, "%s and %s would both land as %s: send them one after the other", seen[sf.entry.Path], path, sf.entry.Path)
		}
		if err != nil {
			f.Close()
			s.Close()
			return nil, err
		}
		seen[sf.entry.Path] = path
		s.files = append(s.files, sf)
	}
	return s, nil
}

// openRegular opens a file without waiting for the writer of a pipe.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, errorf(CodeLocalIO, "source: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		what := "not a regular file"
		if st.IsDir() {
			what = "a directory, which this version does not send: pack it first (tar)"
		}
		err = errorf(CodeUsage, "source %s is %s", path, what)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func newSourceFile(path string, number uint32, f *os.File) (*sourceFile, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, errorf(CodeLocalIO, "source %s: %w", path, err)
	}
	sf := &sourceFile{
		path:   path,
		file:   f,
		ctime:  st.Ctim,
		have:   make(map[int]Digest),
		hashed: make(map[int]bool),
		entry: wire.Entry{
			File:    number,
			Path:    filepath.Base(path),
			Size:    st.Size,
			Mode:    st.Mode & 0o777,
			MTimeNS: st.Mtim.Nano(),
		},
	}
	sf.allHere.L = &sf.mu
	if err := wire.CheckPath(sf.entry.Path); err != nil {
		return nil, errorf(CodeUsage, "source %s can't be sent under that name: %w", Printable(path), err)
	}
	return sf, nil
}

// Close closes every file.
func (s *Source) Close() {
	for _, f := range s.files {
		f.release()
	}
}

func (f *sourceFile) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		f.file.Close()
		f.file = nil
	}
}

// Bytes is the size of all files together.
func (s *Source) Bytes() (n int64) {
	for _, f := range s.files {
		n += f.entry.Size
	}
	return n
}

// Served is how many bytes lanes were given so far.
func (s *Source) Served() int64 { return s.served.Load() }

// lookup finds what a request asks for, if that is in the manifest. A request
// for anything else is the peer's fault, and an error that ends the lane.
func (s *Source) lookup(r wire.Request) (*sourceFile, error) {
	if int(r.File) >= len(s.files) {
		return nil, fmt.Errorf("%w: a request for file %d of %d", wire.ErrMalformed, r.File, len(s.files))
	}
	f := s.files[r.File]
	want := min(s.extentSize, f.entry.Size-r.Offset)
	if r.Count != 0 || r.Offset < 0 || r.Offset%s.extentSize != 0 || want <= 0 || int64(r.Length) != want {
		return nil, fmt.Errorf("%w: a request for %d bytes at %d of a file of %d", wire.ErrMalformed, r.Length, r.Offset, f.entry.Size)
	}
	return f, nil
}

// Read fills p with the bytes that r asks for (pread; p has r's length). It
// answers false when the file has failed: the receiver hears why on the control
// connection. An error is the peer's fault and ends the lane.
func (s *Source) Read(r wire.Request, p []byte) (bool, error) {
	f, err := s.lookup(r)
	if err != nil {
		return false, err
	}
	file := f.open()
	if file == nil {
		return false, nil
	}
	if _, err := file.ReadAt(p, r.Offset); err != nil {
		s.fail(f, f.readError(err, r))
		return false, nil
	}
	s.served.Add(int64(len(p)))
	return true, nil
}

// Sent tells the source that the bytes of r are on their way, as p has them;
// their digest is taken now, beside the device's or the kernel's work.
func (s *Source) Sent(r wire.Request, p []byte) {
	if !s.verify {
		return
	}
	f := s.files[r.File]
	d := hashExtent(p, r.Offset, f.entry.Size)
	n := int(r.Offset / s.extentSize)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.have[n] = d
	f.hashed[n] = true
	f.allHere.Broadcast()
}

// File gives the open file that r asks for, for a lane that lets the kernel move
// the bytes; nil when the file has failed. Such a lane calls Fail when the file
// ended early, and Reread when the bytes are on their way.
func (s *Source) File(r wire.Request) (*os.File, error) {
	f, err := s.lookup(r)
	if err != nil {
		return nil, err
	}
	s.served.Add(int64(r.Length))
	return f.open(), nil
}

// Reread takes the digest of r's bytes for a lane that never saw them. p is room
// for one extent. It answers false when the file has failed.
func (s *Source) Reread(r wire.Request, p []byte) bool {
	if !s.verify {
		return true
	}
	f := s.files[r.File]
	file := f.open()
	if file == nil {
		return false
	}
	p = p[:r.Length]
	if _, err := file.ReadAt(p, r.Offset); err != nil {
		s.fail(f, f.readError(err, r))
		return false
	}
	s.Sent(r, p)
	return true
}

// Fail gives up the file that r asks for.
func (s *Source) Fail(r wire.Request, err error) {
	f := s.files[r.File]
	s.fail(f, f.readError(err, r))
}

// Verifying reports whether digests are taken.
func (s *Source) Verifying() bool { return s.verify }

func (f *sourceFile) open() *os.File {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil
	}
	return f.file
}

func (f *sourceFile) readError(err error, r wire.Request) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errorf(CodeLocalIO, "source %s was truncated while it was read: it had %d bytes and ends before %d now (send it again when it is at rest)",
			f.path, f.entry.Size, r.Offset+int64(r.Length))
	}
	return errorf(CodeLocalIO, "reading source %s at %d: %w", f.path, r.Offset, err)
}

// fail gives a file up once, and reports it once.
func (s *Source) fail(f *sourceFile, err error) {
	f.mu.Lock()
	first := f.err == nil
	if first {
		f.err = err
	}
	f.allHere.Broadcast()
	f.mu.Unlock()
	if first {
		s.failed(f.entry.File, err)
	}
}

// digestLimit is how long a vouching source waits for the digests of extents that
// are on their way. What never left, for somebody meddled with the requests, is
// left out, and the receiver asks for it again.
const digestLimit = 10 * time.Second

// vouch waits until every extent's digest is known, checks that the file is still
// the one of the manifest, and gives the digests that were not sent yet. It fails
// the file, and answers false, when the file has changed.
func (s *Source) vouch(file uint32) (map[int]Digest, bool) {
	f := s.files[file]
	f.mu.Lock()
	if s.verify && f.entry.Size > 0 {
		extents := int((f.entry.Size + s.extentSize - 1) / s.extentSize)
		late := false
		limit := time.AfterFunc(digestLimit, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			late = true
			f.allHere.Broadcast()
		})
		for f.err == nil && len(f.hashed) < extents && !late {
			f.allHere.Wait()
		}
		limit.Stop()
	}
	have, failed := f.have, f.err != nil
	f.have = make(map[int]Digest)
	f.mu.Unlock()
	if failed {
		return nil, false
	}
	if err := f.unchanged(); err != nil {
		s.fail(f, err)
		return nil, false
	}
	return have, true
}

// unchanged compares the file with what the manifest says of it.
func (f *sourceFile) unchanged() error {
	var st unix.Stat_t
	file := f.open()
	if file == nil {
		return errorf(CodeLocalIO, "source %s is closed", f.path)
	}
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return errorf(CodeLocalIO, "source %s: %w", f.path, err)
	}
	if st.Size != f.entry.Size || st.Mtim.Nano() != f.entry.MTimeNS || st.Ctim != f.ctime {
		return errorf(CodeLocalIO, "source %s changed while it was read (%s): send it again when it is at rest", f.path, f.difference(&st))
	}
	return nil
}

func (f *sourceFile) difference(st *unix.Stat_t) string {
	if st.Size != f.entry.Size {
		return fmt.Sprintf("it had %d bytes and has %d", f.entry.Size, st.Size)
	}
	return "written to at " + time.Unix(st.Mtim.Unix()).Format(time.RFC3339)
}

// giveUp ends whatever waits for digests that will not come any more.
func (s *Source) giveUp() {
	for _, f := range s.files {
		f.mu.Lock()
		if f.err == nil {
			f.err = errors.New("the transfer has ended")
		}
		f.allHere.Broadcast()
		f.mu.Unlock()
	}
}
