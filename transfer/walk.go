package transfer

import (
	"cmp"
	"errors"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// StdinPath stands for the process's standard input in the paths of a source.
const StdinPath = "-"

// SourceOptions say what of a tree is sent. The zero value sends files and
// directories.
type SourceOptions struct {
	// Links sends symbolic links as what they are. Without it those below a
	// directory are left out; a path that is one itself is always followed.
	Links bool
	// HardLinks sends a file that has several names once, and the others as names of
	// it. What has more than one is remembered for the whole walk.
	HardLinks bool
	// Owner, XAttrs and ACLs send what the receiver may have no right to set: whose
	// a file or directory is, its user.* attributes, its access control lists.
	Owner, XAttrs, ACLs bool
	// Direct says when files are read past the page cache; empty for never. Small files,
	// which travel in packs, are read through it.
	Direct Direct
	// KeepCache leaves the page cache as it was found: what was not in it before it was
	// read is dropped from it again.
	KeepCache bool
	// Stdin is what "-" reads, to its io.EOF; nil for the process's. A Send that fails may have
	// left a Read of it under way, which takes of what comes next.
	Stdin io.Reader
	// StdinName is what "-" lands as; empty for "stdin".
	StdinName string
	// Skip leaves out what it answers true for: a path relative to the directory's
	// parent, slash-separated, of a directory or another entry. nil leaves nothing out.
	Skip func(path string, dir bool) bool
}

// stamp tells one version of a file from another.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

// stampIn is stampOf for what statx(2) said.
func stampIn(st *unix.Statx_t) stamp {
	at := func(t unix.StatxTimestamp) unix.Timespec {
		ts, _ := unix.TimeToTimespec(time.Unix(t.Sec, int64(t.Nsec))) // which fits but for times after 2038 where words are short
		return ts
	}
	return stamp{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino, size: int64(st.Size), mtime: at(st.Mtime), ctime: at(st.Ctime)}
}

// version is what the receiver knows the version by. The device is not in it: NFS, btrfs and
// device mapper get another number when they are mounted again.
func (s stamp) version() uint64 {
	b := make([]byte, 0, 128)
	b = strconv.AppendUint(b, s.ino, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, s.size, 10)
	for _, t := range []unix.Timespec{s.mtime, s.ctime} {
		b = append(b, " {"...)
		b = strconv.AppendInt(b, int64(t.Sec), 10)
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(t.Nsec), 10)
		b = append(b, '}')
	}
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}

// inode is a file that the walk may come upon again under another name.
type inode struct {
	path  string // as its first name lands
	file  uint32 // its entry, once that has a number
	stamp stamp  // of what is sent: what was found under a later name may have changed since
}

// found is what the walk came upon: an entry without its number, or why there is
// none.
type found struct {
	path   string // on this host
	entry  wire.Entry
	stamp  stamp
	linked bool   // the file has other names
	inode  *inode // and what is known of it, when those are kept
	err    error  // it can't be sent
	skip   string // what it is, and why it is left out
}

// walker lists the entries of several paths one after the other, directories depth
// first and each in the order in which the file system gives it, so that neither a
// deep tree nor a wide one takes memory. It is for one goroutine.
type walker struct {
	opt   SourceOptions
	roots []string
	names []string // of roots, as they land
	at    int
	stack []*walkDir
	once  *os.File             // of the last entry, if that is a stream and nobody has taken it
	known map[[2]uint64]*inode // by device and number
	probe bool                 // say at once what can't be opened
	who   accounts
}

// walkDir is a directory that is being listed.
type walkDir struct {
	file  *os.File
	path  string   // on this host
	rel   string   // as it lands
	batch []string // names that were read
	err   error    // what came after them; io.EOF at the end
	read  func(n int) ([]string, error)

	ahead  []glance // at the first of those
	looked time.Time
}

// walkBatch is how many names of a directory are read at a time.
const walkBatch = 512

// newWalker looks at every path: each must be there, and of a kind that can be sent.
// Their base names must differ, for that is what they land as.
func newWalker(paths []string, opt SourceOptions) (*walker, error) {
	w := &walker{opt: opt, roots: paths}
	for _, path := range paths {
		name, err := w.landsAs(path)
		if err != nil {
			return nil, err
		}
		if i := slices.Index(w.names, name); i >= 0 {
			return nil, errorf(CodeUsage, "%s and %s would both land as %s: send them one after the other", paths[i], path, name)
		}
		if err := sendable(path, wire.CheckPath(name)); err != nil {
			return nil, err
		}
		w.names = append(w.names, name)
	}
	return w, nil
}

// landsAs gives the name that a path lands under, if it can be read.
func (w *walker) landsAs(path string) (string, error) {
	if path == StdinPath {
		if w.opt.StdinName != "" {
			return w.opt.StdinName, nil
		}
		return "stdin", nil
	}
	f, err := openSource(path)
	if err != nil {
		return "", err
	}
	f.Close()
	abs, err := filepath.Abs(path) // "." and ".." have a name too
	if err != nil {
		return "", errorf(CodeLocalIO, "source: %w", err)
	}
	if abs == "/" {
		return "", errorf(CodeUsage, "source / has no name to land under: send what is in it")
	}
	return filepath.Base(abs), nil
}

// next gives the next entry; io.EOF after the last.
func (w *walker) next() (*found, error) {
	w.drop()
	for len(w.stack) > 0 {
		d := w.stack[len(w.stack)-1]
		if len(d.batch) == 0 {
			if d.err == nil { // else there were names before it
				d.batch, d.err = d.read(walkBatch)
			}
			if len(d.batch) == 0 {
				d.file.Close()
				w.stack = w.stack[:len(w.stack)-1]
				if d.err != nil && !errors.Is(d.err, io.EOF) {
					return &found{path: d.path, err: sourceError("reading", d.path, d.err)}, nil
				}
				continue
			}
		}
		name, l, err := d.next()
		path, rel := filepath.Join(d.path, name), d.rel+"/"+name
		if err != nil {
			return &found{path: path, err: sourceError("stat", path, err)}, nil
		}
		if w.opt.Skip != nil && w.opt.Skip(rel, l.kind() == unix.S_IFDIR) {
			continue
		}
		return w.found(place{path, d.file}, rel, &l), nil
	}
	if w.at == len(w.roots) {
		return nil, io.EOF
	}
	path, rel := w.roots[w.at], w.names[w.at]
	w.at++
	if path == StdinPath {
		return &found{path: path, entry: wire.Entry{Path: rel, Kind: wire.Stream, Mode: 0o644}}, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return &found{path: path, err: sourceError("stat", path, err)}, nil
	}
	l := looksOf(&st)
	return w.found(place{path: path}, rel, &l), nil
}

// found makes an entry, and descends into a directory. What is opened for that is described
// as it is then, and not as it looked before.
func (w *walker) found(at place, rel string, l *looks) *found {
	f := &found{path: at.path, entry: wire.Entry{Path: rel}}
	var dir *os.File
	switch l.kind() {
	case unix.S_IFREG:
		w.regular(f, at, l)
	case unix.S_IFDIR:
		f.entry.Kind = wire.Dir
		dir, f.err = at.openAs(unix.S_IFDIR, l)
	case unix.S_IFLNK:
		if !w.opt.Links {
			f.skip = "a symbolic link (send it with --links)"
			return f
		}
		f.entry.Kind = wire.Symlink
		f.entry.Link, f.err = at.readLink()
	default:
		f.skip = "neither a regular file nor a directory"
	}
	f.stamp, f.linked = l.stamp, l.links > 1
	f.entry.Mode, f.entry.MTimeNS = l.mode&0o777, nanoseconds(l.mtime)
	if f.err == nil && f.skip == "" {
		f.err = cmp.Or(w.attributes(f, l, at, dir), sendable(at.path, f.entry.Check()))
	}
	switch {
	case f.err != nil && dir != nil: // what is in it would have no place to land
		dir.Close()
	case f.err == nil && dir != nil:
		w.stack = append(w.stack, &walkDir{file: dir, path: at.path, rel: rel, read: dir.Readdirnames})
	case f.err == nil && w.opt.HardLinks && l.kind() == unix.S_IFREG && f.linked:
		w.linked(f)
	}
	return f
}

// sendable says of a source what is wrong with its entry.
func sendable(path string, why error) error {
	if why == nil {
		return nil
	}
	what := strings.TrimPrefix(why.Error(), wire.ErrMalformed.Error()+": ") // it is the peer that would say that
	return errorf(CodeUsage, "source %s can't be sent: %s", Printable(path), what)
}

// regular tells files that have content though their size is 0, as those of /proc,
// from empty ones: they are read to their end, whenever that comes.
func (w *walker) regular(f *found, at place, l *looks) {
	if l.empty() || w.probe {
		w.open(f, at, l)
	}
	if f.entry.Kind == wire.File {
		f.entry.Size = l.size
		f.entry.Sparse = l.blocks*512 < l.size
		f.entry.Version = l.version()
	}
}

// open looks into a file that says that it is empty, or finds out whether any other can be read.
func (w *walker) open(f *found, at place, l *looks) {
	file, err := at.openAs(unix.S_IFREG, l)
	if err != nil { // of what looks empty nobody would read what is in it
		f.err = err
		return
	}
	if !l.empty() {
		file.Close()
		return
	}
	n, err := readByte(file)
	if n > 0 {
		err = at.lookAgain(file, l) // it may have been written to just now
	}
	switch {
	case err == unix.EAGAIN:
		f.skip = "a file that has nothing to be read now"
	case err == unix.ESPIPE:
		f.skip = "a file that is read once (pipe it in: rdmaxfer send - HOST)"
	case err != nil:
		f.err = sourceError("read", at.path, err)
	case n > 0 && l.empty():
		f.entry.Kind = wire.Stream
		w.once = file
		return
	}
	file.Close()
}

// take gives the file of the last entry, a stream, to who reads and closes it; nil if that is
// none.
func (w *walker) take() *os.File {
	file := w.once
	w.once = nil
	return file
}

// drop closes it, if nobody took it.
func (w *walker) drop() {
	if file := w.take(); file != nil {
		file.Close()
	}
}

// linked makes a link of what was found before under another name, and is sent.
func (w *walker) linked(f *found) {
	id := [2]uint64{f.stamp.dev, f.stamp.ino}
	f.inode = w.known[id]
	if f.inode == nil {
		f.inode = &inode{path: f.entry.Path, stamp: f.stamp}
		if w.known == nil {
			w.known = make(map[[2]uint64]*inode)
		}
		w.known[id] = f.inode
		return
	}
	f.stamp = f.inode.stamp
	f.entry = wire.Entry{
		Path: f.entry.Path, Mode: f.entry.Mode, MTimeNS: f.entry.MTimeNS,
		Kind: wire.HardLink, Link: f.inode.path, First: f.inode.file,
	}
}

// close gives up what is open.
func (w *walker) close() {
	w.drop()
	for _, d := range w.stack {
		d.file.Close()
	}
	w.stack = nil
}
