package transfer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
	"github.com/rdmaxfer/rdmaxfer/transfer/limit"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Source is what a sender's lanes serve: the entries of the manifest, by number. It
// remembers those alone that are under way. Its methods may be called from several
// lanes at once.
type Source struct {
	*entriesServed
	ctx context.Context // ends the waits for the rate limit
}

// until is the source as a lane serves it, which waits for nothing when ctx has ended.
func (s *Source) until(ctx context.Context) *Source { return &Source{s.entriesServed, ctx} }

// entriesServed is what all lanes share.
type entriesServed struct {
	walk       *walker
	name       [16]byte // of the transfer; zero: that of its paths
	extentSize int64
	verify     digest.Kind
	prompt     bool         // a digest waits for no others
	served     atomic.Int64 // bytes handed to lanes, sent again ones too
	limit      *limit.Limiter
	store      storage
	hashing    hashing
	// What the engine hears. failed: a file is given up. digests: of extents that
	// have left. vouched: packed files were read whole and have not changed.
	failed  func(file uint32, err error)
	digests func(file uint32, have map[int]Digest)
	vouched func(*wire.Vouch)

	mu    sync.Mutex
	files map[uint32]*sourceFile
	next  uint32 // number of the next entry
	over  bool
	most  int           // of files that may be open, which may be all that are under way
	open  int           // entries under way that may have one
	eased chan struct{} // there are fewer
}

// OpenSource looks at every path, and says what can't be sent. What is in a
// directory is listed while it is sent.
func OpenSource(paths []string, opt SourceOptions) (*Source, error) {
	walk, err := newWalker(paths, opt)
	if err != nil {
		return nil, err
	}
	s := newSource(walk)
	s.store.asked, s.store.keep = opt.Direct, opt.KeepCache
	return s, nil
}

func newSource(walk *walker) *Source {
	return &Source{&entriesServed{
		walk:       walk,
		extentSize: DefaultExtentSize,
		verify:     digest.None, // until a session says what
		failed:     func(uint32, error) {},
		digests:    func(uint32, map[int]Digest) {},
		vouched:    func(*wire.Vouch) {},
		files:      make(map[uint32]*sourceFile),
		most:       int(mostOpen()),
		eased:      make(chan struct{}, 1),
	}, context.Background()}
}

// add numbers what the walk found. stream is nil, but for one.
func (s *Source) add(found *found, stream *stream) *sourceFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := newSourceFile(found, &s.store)
	f.stream = stream
	f.entry.File = s.next
	s.next++
	if found.inode != nil && f.entry.Kind != wire.HardLink {
		found.inode.file = f.entry.File
	}
	s.files[f.entry.File] = f
	if f.opens() {
		s.open++
	}
	if s.over {
		f.err = errOver
	}
	return f
}

// Next gives the next entry of the manifest, and lets lanes be asked for it; io.EOF
// after the last. It is for who serves lanes without a session: a session's engine
// does it by itself.
func (s *Source) Next() (wire.Entry, error) {
	for {
		found, err := s.walk.next()
		if err != nil {
			return wire.Entry{}, err
		}
		if found.err != nil {
			return wire.Entry{}, found.err
		}
		if found.skip == "" {
			return s.add(found, nil).entry, nil
		}
	}
}

// entries is how many there are so far.
func (s *Source) entries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(s.next)
}

// identity is the same for the same paths of the same host: what an interrupted
// transfer is found by when the command is given again.
func (s *Source) identity() (id [16]byte) {
	if s.name != id {
		return s.name
	}
	h := sha256.New()
	host, _ := os.Hostname() // without a name the paths must do
	fmt.Fprintf(h, "%q", host)
	for i, path := range s.walk.roots {
		if abs, err := filepath.Abs(path); err == nil && path != StdinPath {
			path = abs
		}
		fmt.Fprintf(h, "%q%q", path, s.walk.names[i])
	}
	copy(id[:], h.Sum(nil))
	return id
}

// openStream gives what is read once; nil for anything else.
func (s *Source) openStream(found *found) *stream {
	if found.entry.Kind != wire.Stream {
		return nil
	}
	var in io.ReadCloser = os.Stdin
	if file := s.walk.take(); file != nil {
		in = file
	} else if s.walk.opt.Stdin != nil {
		in = io.NopCloser(s.walk.opt.Stdin)
	}
	return newStream(in, int(s.extentSize))
}

// file gives an entry that is under way; nil if it has settled. An entry that the
// manifest did not have yet is the peer's fault.
func (s *Source) file(n uint32) (*sourceFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n >= s.next {
		return nil, fmt.Errorf("%w: entry %d of %d", wire.ErrMalformed, n, s.next)
	}
	return s.files[n], nil
}

// settle forgets an entry. It answers nil when it had settled before.
func (s *Source) settle(n uint32) *sourceFile {
	s.mu.Lock()
	f := s.files[n]
	delete(s.files, n)
	if f != nil && f.opens() {
		s.open--
	}
	s.mu.Unlock()
	if f != nil {
		f.release()
		select {
		case s.eased <- struct{}{}:
		default:
		}
	}
	return f
}

// crowded reports whether so many files are under way as this process may have open.
func (s *Source) crowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open >= s.most
}

// Close closes every file. Lanes that still serve find them failed.
func (s *Source) Close() {
	if s.walk != nil {
		s.walk.close()
	}
	for _, f := range s.live() {
		f.release()
	}
}

func (s *Source) live() (list []*sourceFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		list = append(list, f)
	}
	return list
}

var errOver = errors.New("the transfer has ended")

// giveUp ends whatever waits for digests, or for more of a stream, that will not
// come any more.
func (s *Source) giveUp() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	for _, f := range s.live() {
		f.giveUp()
	}
}

// Served is how many bytes lanes were given so far.
func (s *Source) Served() int64 { return s.served.Load() }

// lookup finds the file that r asks for a range of; nil when it has settled. A
// request for what is not in the manifest is the peer's fault, and an error that
// ends the lane.
func (s *Source) lookup(r wire.Request) (*sourceFile, error) {
	f, err := s.file(r.File)
	if f == nil || err != nil {
		return nil, err
	}
	size := f.size()
	want := min(s.extentSize, size-r.Offset)
	if r.Count != 0 || f.entry.Kind != wire.File && f.entry.Kind != wire.Stream ||
		r.Offset < 0 || r.Offset%s.extentSize != 0 || want <= 0 || int64(r.Length) != want {
		return nil, fmt.Errorf("%w: a request for %d bytes at %d of a file of %d", wire.ErrMalformed, r.Length, r.Offset, size)
	}
	return f, nil
}

// Read fills p with the bytes that r asks for (pread; p has r's length). What p has room
// for behind that, up to a multiple of the storage's blocks, may be written too: with
// [DirectAlways] and [DirectAuto] a file's end comes with the rest of its block, and p
// must be aligned to that, or the bytes come through the page cache. It answers false when
// a file has failed: the receiver hears why on the control connection. An error is the
// peer's fault and ends the lane.
func (s *Source) Read(r wire.Request, p []byte) (bool, error) {
	if r.Count > 0 {
		return s.readPack(r, p)
	}
	f, err := s.lookup(r)
	if f == nil || err != nil {
		return false, err
	}
	switch err := f.readAt(p, r.Offset); {
	case errors.Is(err, errForgotten):
		return false, nil // a lane that is late: another one landed it
	case err != nil:
		s.fail(f, err)
		return false, nil
	}
	s.expect(f, r)
	return s.pass(r), nil
}

// Hold gives the bytes that r asks for where they are in memory, for a lane that sends them
// from there, until release is called. That is for streams; release is nil where they are
// for Read, which also says what is wrong with r.
func (s *Source) Hold(r wire.Request) (p []byte, release func()) {
	f, err := s.lookup(r)
	if f == nil || err != nil || f.stream == nil {
		return nil, nil
	}
	if p, release = f.stream.hold(r.Offset); release == nil {
		return nil, nil
	}
	s.expect(f, r)
	if !s.pass(r) {
		release()
		return nil, nil
	}
	return p[:r.Length], release
}

// expect has who vouches for f wait for the digest of what r asks for.
func (s *Source) expect(f *sourceFile, r wire.Request) {
	if s.Verifying() {
		f.expect(int(r.Offset / s.extentSize))
	}
}

// pass lets r's bytes go as fast as the user said they may. It answers false when the
// lane ends meanwhile.
func (s *Source) pass(r wire.Request) bool {
	s.served.Add(int64(r.Length))
	return s.limit.Wait(s.ctx, int(r.Length)) == nil
}

// Sent tells the source that the bytes of r are on their way, as p has them;
// their digest is taken now, beside the device's or the kernel's work.
func (s *Source) Sent(r wire.Request, p []byte) {
	if r.Count > 0 {
		s.sentPack(r, p)
		return
	}
	if s.verify == digest.None {
		return
	}
	f, err := s.file(r.File)
	if f == nil || err != nil {
		return
	}
	node := s.hashing.extent(s.verify, p, r.Offset)
	if have := f.hashed(int(r.Offset/s.extentSize), node.Sum, s.prompt); have != nil {
		s.digests(r.File, have)
		f.told(have)
	}
}

// File gives the open file that r asks for, for a lane that lets the kernel move
// the bytes; nil when the file has failed, or has no descriptor of its own to give:
// a pack, or a stream, which Read has. Such a lane calls Fail when the file ended
// early, and Reread when the bytes are on their way.
func (s *Source) File(r wire.Request) (*os.File, error) {
	f, err := s.lookup(r)
	if f == nil || err != nil {
		return nil, err
	}
	file, err := f.open()
	if err != nil {
		s.fail(f, err)
		return nil, nil
	}
	s.expect(f, r)
	if !s.pass(r) {
		return nil, nil
	}
	return file, nil
}

// Plain reports whether r asks for a range of a file that File gives; the rest is
// for Read: packs and streams, and files that are read past the page cache, or are not to
// stay in it.
func (s *Source) Plain(r wire.Request) bool {
	f, err := s.file(r.File)
	return r.Count == 0 && (f == nil || err != nil || f.plain())
}

// Reread takes the digest of r's bytes for a lane that never saw them. p is room
// for one extent. It answers false when the file has failed: one that has changed may have
// been read otherwise than it was sent, which the receiver would take for damage.
func (s *Source) Reread(r wire.Request, p []byte) bool {
	if s.verify == digest.None {
		return true
	}
	f, err := s.file(r.File)
	if f == nil || err != nil {
		return false
	}
	p = p[:r.Length]
	err = f.readAt(p, r.Offset)
	if err == nil {
		err = f.stillThere()
	}
	if err != nil {
		s.fail(f, err)
		return false
	}
	s.Sent(r, p)
	return true
}

// Fail gives up the file that r asks for.
func (s *Source) Fail(r wire.Request, err error) {
	if f, _ := s.file(r.File); f != nil {
		s.fail(f, f.readError(err, r.Offset+int64(r.Length)))
	}
}

// Verifying reports whether digests are taken.
func (s *Source) Verifying() bool { return s.verify != digest.None }

// fail gives a file up once, and reports it once.
func (s *Source) fail(f *sourceFile, err error) {
	if f.fail(err) {
		s.failed(f.entry.File, err)
	}
}
