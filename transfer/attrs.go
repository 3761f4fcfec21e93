package transfer

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Owners, extended attributes and access control lists: what is sent by option.

// attributes adds to an entry what the user wants kept of it. dir is a directory that is open;
// nil for anything else.
func (w *walker) attributes(f *found, l *looks, at place, dir *os.File) (err error) {
	switch f.entry.Kind {
	case wire.File, wire.Dir:
	default:
		return nil
	}
	if w.opt.Owner {
		f.entry.Owner = &wire.Owner{UID: l.uid, GID: l.gid, User: w.who.user(l.uid), Group: w.who.group(l.gid)}
	}
	if w.opt.XAttrs || w.opt.ACLs {
		f.entry.Attrs, err = readAttrs(at, dir, w.wants)
	}
	return err
}

func (w *walker) wants(attr string) bool {
	if attr == wire.ACLAccess || attr == wire.ACLDefault {
		return w.opt.ACLs
	}
	return w.opt.XAttrs && strings.HasPrefix(attr, "user.")
}

// readAttrs gives those of a file's extended attributes that wants answers true for
// (listxattr(2), getxattr(2)): of open, or, if that is nil, of what is at the place. A file
// system that has none is as good as a file that has none.
func readAttrs(at place, open *os.File, wants func(name string) bool) (attrs []wire.Attr, err error) {
	path := at.path
	if open == nil && at.in != nil { // whoever may rename a directory on the way leads nowhere else
		dir, name, flags := at.at()
		fd, err := unix.Openat(dir, name, unix.O_PATH|flags, 0) // which no call for attributes takes
		if err != nil {
			return nil, at.fail("open", err)
		}
		defer unix.Close(fd)
		path = descriptorPath(fd)
	}
	listxattr := func(b []byte) (int, error) { return unix.Listxattr(path, b) }
	getxattr := func(name string, b []byte) (int, error) { return unix.Getxattr(path, name, b) }
	if open != nil {
		fd := int(open.Fd())
		listxattr = func(b []byte) (int, error) { return unix.Flistxattr(fd, b) }
		getxattr = func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) }
	}
	list, err := grow(listxattr)
	if errors.Is(err, unix.ENOTSUP) || len(list) == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, at.fail("listxattr", err)
	}
	left := wire.MaxAttrs
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if !wants(name) {
			continue
		}
		value, err := grow(func(b []byte) (int, error) { return getxattr(name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, at.fail("getxattr "+Printable(name), err)
		}
		if left -= len(name) + len(value); left < 0 {
			return nil, errorf(CodeUsage, "source %s has more than %d bytes of extended attributes: send it without --xattrs", Printable(at.path), wire.MaxAttrs)
		}
		attrs = append(attrs, wire.Attr{Name: name, Value: value})
	}
	return attrs, nil
}

// grow calls what fills a buffer and says how much room it wants, until that is
// enough.
func grow(call func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := call(nil)
		if err != nil || n == 0 {
			return []byte{}, err
		}
		b := make([]byte, n)
		n, err = call(b)
		if !errors.Is(err, unix.ERANGE) { // else it grew meanwhile
			return b[:max(n, 0)], err
		}
	}
}

// setOwner gives a file to whom the sender says, by name where this host has that
// name, else by number.
func setOwner(fd int, o *wire.Owner, who *accounts) error {
	if o == nil {
		return nil
	}
	return unix.Fchown(fd, who.uid(o), who.gid(o))
}

// setAttrs sets a file's extended attributes: users' own, or its access control lists.
func setAttrs(fd int, attrs []wire.Attr, lists bool) error {
	for _, a := range attrs {
		if strings.HasPrefix(a.Name, "user.") == lists {
			continue
		}
		if err := unix.Fsetxattr(fd, a.Name, a.Value, 0); err != nil {
			return &fs.PathError{Op: "setxattr", Path: Printable(a.Name), Err: err}
		}
	}
	return nil
}

// hasAttributes reports whether a file has the owner and the attributes of an entry.
func hasAttributes(f *os.File, e *wire.Entry, who *accounts) (has bool) {
	_ = control(f, func(fd int) error {
		if o := e.Owner; o != nil {
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil || int(st.Uid) != who.uid(o) || int(st.Gid) != who.gid(o) {
				return err
			}
		}
		for _, a := range e.Attrs {
			value := make([]byte, len(a.Value)+1)
			if n, err := unix.Fgetxattr(fd, a.Name, value); err != nil || !bytes.Equal(value[:n], a.Value) {
				return err
			}
		}
		has = true
		return nil
	})
	return has
}

// accounts remembers the users and groups of this host that were looked up. The zero
// value is ready.
type accounts struct {
	mu    sync.Mutex
	known map[string]string
}

// look answers "" for what is not there; a lookup that fails is no reason to lose a
// file, which has its number still.
func (n *accounts) look(key string, find func() string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	found, ok := n.known[key]
	if !ok {
		if n.known == nil {
			n.known = make(map[string]string)
		}
		found = find()
		n.known[key] = found
	}
	return found
}

func (n *accounts) user(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	return n.look("u"+id, func() string {
		if u, err := user.LookupId(id); err == nil {
			return u.Username
		}
		return ""
	})
}

func (n *accounts) group(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	return n.look("g"+id, func() string {
		if g, err := user.LookupGroupId(id); err == nil {
			return g.Name
		}
		return ""
	})
}

func (n *accounts) uid(o *wire.Owner) int {
	return number(o.UID, o.User, func() string {
		return n.look("U"+o.User, func() string {
			if u, err := user.Lookup(o.User); err == nil {
				return u.Uid
			}
			return ""
		})
	})
}

func (n *accounts) gid(o *wire.Owner) int {
	return number(o.GID, o.Group, func() string {
		return n.look("G"+o.Group, func() string {
			if g, err := user.LookupGroup(o.Group); err == nil {
				return g.Gid
			}
			return ""
		})
	})
}

// number prefers a name's number at this host to that at the other one.
func number(theirs uint32, name string, look func() string) int {
	if name != "" {
		if n, err := strconv.Atoi(look()); err == nil {
			return n
		}
	}
	return int(theirs)
}
