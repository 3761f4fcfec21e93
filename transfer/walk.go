package transfer

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/internal/calls"
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
	// Stdin is what "-" reads; nil for the process's.
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
	h := fnv.New64a()
	fmt.Fprint(h, s.ino, s.size, s.mtime, s.ctime)
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
	ahead []glance // at the first of those
	err   error    // what came after them; io.EOF at the end
	read  func(n int) ([]string, error)
}

// walkBatch is how many names of a directory are read at a time.
const walkBatch = 512

// glance is what was seen of a name.
type glance struct {
	looks
	seen bool
}

// looks is what stat(2) or statx(2) said of a file.
type looks struct {
	stamp
	mode, links, uid, gid uint32
	blocks                int64 // of 512 bytes
}

func looksOf(st *unix.Stat_t) looks {
	return looks{stampOf(st), st.Mode, uint32(st.Nlink), st.Uid, st.Gid, int64(st.Blocks)}
}

func looksIn(st *unix.Statx_t) looks {
	return looks{stampIn(st), uint32(st.Mode), st.Nlink, st.Uid, st.Gid, int64(st.Blocks)}
}

func (l *looks) kind() uint32 { return l.mode & unix.S_IFMT }

// look looks at the first names of the batch at one go, where that can be.
func (d *walkDir) look() {
	list := newList()
	defer freeList(list)
	dir := int(d.file.Fd())
	names := d.batch[:min(len(d.batch), atOnce)]
	chains, stats := make([]calls.Chain, len(names)), make([]*unix.Statx_t, len(names))
	for i, name := range names {
		chains[i] = list.With(dir)
		stats[i] = chains[i].StatIn(name, unix.STATX_BASIC_STATS)
	}
	list.Make()
	for i := range names {
		var g glance
		if _, err := chains[i].Made(); err == nil {
			g = glance{looksIn(stats[i]), true}
		}
		d.ahead = append(d.ahead, g)
	}
}

// next gives the next name of the batch, and looks at it.
func (d *walkDir) next() (name string, l looks, err error) {
	if len(d.ahead) == 0 {
		d.look()
	}
	name, l = d.batch[0], d.ahead[0].looks
	if !d.ahead[0].seen { // its file system, or a sandbox, may know the other call alone
		var st unix.Stat_t
		err = unix.Fstatat(int(d.file.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		l = looksOf(&st)
	}
	d.batch, d.ahead = d.batch[1:], d.ahead[1:]
	return name, l, err
}

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
		if err := wire.CheckPath(name); err != nil {
			return nil, errorf(CodeUsage, "source %s can't be sent under that name: %w", Printable(path), err)
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

// openLeased opens a regular file that another program has a lease of (fcntl(2), as Samba's
// oplocks and NFS's delegations are), and waits until that one has let go or lost it.
func openLeased(path string) (fd int, err error) {
	fail := func(err error) (int, error) { return 0, &fs.PathError{Op: "open", Path: path, Err: err} }
	file, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(file)
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fail(cmp.Or(err, error(unix.EWOULDBLOCK)))
	}
	err = uninterrupted(func() (err error) {
		fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", file), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return fail(err)
	}
	return fd, nil
}

// openSource opens a regular file or a directory, without waiting for the writer of
// a pipe.
func openSource(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, unix.EWOULDBLOCK) {
		var fd int
		if fd, err = openLeased(path); err == nil {
			f = os.NewFile(uintptr(fd), path)
		}
	}
	if err != nil {
		return nil, errorf(CodeLocalIO, "source: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		err = errorf(CodeLocalIO, "source: %w", err)
	} else if !st.Mode().IsRegular() && !st.IsDir() {
		err = errorf(CodeUsage, "source %s is not a regular file (pipe it in: rdmaxfer send - HOST)", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// next gives the next entry; io.EOF after the last.
func (w *walker) next() (*found, error) {
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
					return &found{path: d.path, err: errorf(CodeLocalIO, "source: %w", d.err)}, nil
				}
				continue
			}
		}
		name, l, err := d.next()
		path, rel := filepath.Join(d.path, name), d.rel+"/"+name
		if err != nil {
			return &found{path: path, err: errorf(CodeLocalIO, "source: %w", &fs.PathError{Op: "stat", Path: path, Err: err})}, nil
		}
		if w.opt.Skip != nil && w.opt.Skip(rel, l.kind() == unix.S_IFDIR) {
			continue
		}
		return w.found(path, rel, &l), nil
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
		return &found{path: path, err: errorf(CodeLocalIO, "source: %w", &fs.PathError{Op: "stat", Path: path, Err: err})}, nil
	}
	l := looksOf(&st)
	return w.found(path, rel, &l), nil
}

// found makes an entry, and descends into a directory.
func (w *walker) found(path, rel string, l *looks) *found {
	f := &found{path: path, stamp: l.stamp, linked: l.links > 1}
	f.entry = wire.Entry{Path: rel, Mode: l.mode & 0o777, MTimeNS: l.mtime.Nano()}
	if err := wire.CheckPath(rel); err != nil {
		f.err = errorf(CodeUsage, "source %s can't be sent under that name: %w", Printable(path), err)
		return f
	}
	switch l.kind() {
	case unix.S_IFREG:
		w.regular(f, l)
	case unix.S_IFDIR:
		f.entry.Kind = wire.Dir
		dir, err := os.Open(path)
		if err != nil {
			f.err = errorf(CodeLocalIO, "source: %w", err)
			return f
		}
		w.stack = append(w.stack, &walkDir{file: dir, path: path, rel: rel, read: dir.Readdirnames})
	case unix.S_IFLNK:
		if !w.opt.Links {
			f.skip = "a symbolic link (send it with --links)"
			return f
		}
		f.entry.Kind = wire.Symlink
		var err error
		if f.entry.Link, err = os.Readlink(path); err != nil {
			f.err = errorf(CodeLocalIO, "source: %w", err)
		}
	default:
		f.skip = "neither a regular file nor a directory"
	}
	if f.err == nil && f.skip == "" {
		f.err = w.attributes(f, l)
	}
	if f.err == nil && w.opt.HardLinks && l.kind() == unix.S_IFREG && l.links > 1 {
		w.linked(f)
	}
	return f
}

// regular tells files that have content though their size is 0, as those of /proc,
// from empty ones: they are read to their end, whenever that comes.
func (w *walker) regular(f *found, l *looks) {
	f.entry.Size = l.size
	f.entry.Sparse = l.blocks*512 < l.size
	f.entry.Version = f.stamp.version()
	empty := l.size == 0 && l.blocks == 0
	if !empty && !w.probe {
		return
	}
	file, err := openSource(f.path)
	if err != nil {
		if w.probe { // else who reads it will say why
			f.err = err
		}
		return
	}
	defer file.Close()
	if !empty {
		return
	}
	switch n, err := readByte(file); {
	case err == unix.EAGAIN:
		f.skip = "a file that has nothing to be read now"
	case err != nil:
		f.err = errorf(CodeLocalIO, "source: %w", &fs.PathError{Op: "read", Path: f.path, Err: err})
	case n > 0:
		f.entry.Kind, f.entry.Version = wire.Stream, 0
	}
}

// readByte reads one, and waits for none.
func readByte(file *os.File) (n int, err error) {
	cerr := control(file, func(fd int) error {
		return uninterrupted(func() (err error) {
			n, err = unix.Read(fd, make([]byte, 1))
			return err
		})
	})
	return n, cerr
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

// close gives up the directories that are open.
func (w *walker) close() {
	for _, d := range w.stack {
		d.file.Close()
	}
	w.stack = nil
}
