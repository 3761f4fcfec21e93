package transfer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// acl is an access control list of the kernel's form (linux/posix_acl_xattr.h): rwx for
// the owner, r for user 12, r for the group, rwx as the mask, nothing for the rest.
const acl = "\x02\x00\x00\x00" +
	"\x01\x00\x07\x00\xff\xff\xff\xff" +
	"\x02\x00\x04\x00\x0c\x00\x00\x00" +
	"\x04\x00\x04\x00\xff\xff\xff\xff" +
	"\x10\x00\x07\x00\xff\xff\xff\xff" +
	"\x20\x00\x00\x00\xff\xff\xff\xff"

// TestAttributes that are asked for arrive, of small files, large ones and directories.
func TestAttributes(t *testing.T) {
	uid, gid := 12, 99999 // a number that has a name here, and one that has none
	if os.Geteuid() != 0 {
		uid, gid = os.Getuid(), os.Getgid()
	}
	for _, c := range []struct {
		name string
		opt  SourceOptions
	}{
		{"none", SourceOptions{}},
		{"owner", SourceOptions{Owner: true}},
		{"xattrs", SourceOptions{XAttrs: true}},
		{"acls", SourceOptions{ACLs: true}},
		{"all", SourceOptions{Owner: true, XAttrs: true, ACLs: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.opt.Owner && os.Geteuid() != 0 {
				t.Skip("giving files to others takes root")
			}
			synctest.Test(t, func(t *testing.T) {
				root := filepath.Join(t.TempDir(), "tree")
				names := []string{"", "small", "large"}
				if err := os.Mkdir(root, 0o755); err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(root, "small"), "x")
				write(t, filepath.Join(root, "large"), random(3*mib+5))
				for _, name := range names {
					path := filepath.Join(root, name)
					for _, err := range []error{
						unix.Setxattr(path, "user.one", []byte("1\x00\xff"), 0), // before the bits that forbid it
						unix.Setxattr(path, "user.empty", nil, 0),
						os.Chown(path, uid, gid),
						os.Chmod(path, 0o444),
						unix.Setxattr(path, wire.ACLAccess, []byte(acl), 0),
					} {
						if err != nil {
							t.Fatal(err)
						}
					}
				}
				e := newEngine(t, nil)
				var err error
				if e.Source, err = OpenSource([]string{root}, c.opt); err != nil {
					t.Fatal(err)
				}
				s, r := e.run(t, t.Context(), t.Context())
				if s.err != nil || r.err != nil {
					t.Fatal(s.err, r.err)
				}
				for _, name := range names {
					path := filepath.Join(e.dir, "tree", name)
					var st unix.Stat_t
					if err := unix.Stat(path, &st); err != nil {
						t.Fatal(err)
					}
					if got := int(st.Uid) == uid && int(st.Gid) == gid; os.Geteuid() == 0 && got != c.opt.Owner {
						t.Errorf("%s belongs to %d and %d", path, st.Uid, st.Gid)
					}
					// With a list, the group's bits are its mask.
					if got := st.Mode & 0o777; got != 0o770 {
						t.Errorf("%s has mode %o", path, got)
					}
					attrs, err := readAttrs(place{path: path}, nil, func(string) bool { return true })
					if err != nil {
						t.Fatal(err)
					}
					got := make(map[string]string)
					for _, a := range attrs {
						got[a.Name] = string(a.Value)
					}
					if _, empty := got["user.empty"]; empty != c.opt.XAttrs || (got["user.one"] == "1\x00\xff") != c.opt.XAttrs {
						t.Errorf("%s: %q", path, got)
					}
					if (got[wire.ACLAccess] == acl) != c.opt.ACLs {
						t.Errorf("%s: %q", path, got)
					}
				}
			})
		})
	}
}

// TestAttributesOfWhatLandedBefore by a try that was not asked for them, with its name and
// without.
func TestAttributesOfWhatLandedBefore(t *testing.T) {
	test := func(t *testing.T) {
		for _, named := range []bool{true, false} {
			d, dir := into(t, OverwriteNever)
			w := watchSyncs(d)
			s := stage(t, d)
			e := wire.Entry{Path: "f", Size: maxPacked + 1, Mode: 0o444, MTimeNS: 7}
			l := create(t, s, e)
			if _, err := l.WriteAt([]byte(random(maxPacked+1)), 0); err != nil {
				t.Fatal(err)
			}
			p, path := l.(*part), filepath.Join(dir, "f")
			var err error
			if named {
				err = s.Commit([]Whole{{Landing: l}})[0]
			} else {
				if err = p.finish(); err == nil {
					err = s.record([]*part{p})
				}
				p.over()
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(true); err != nil {
				t.Fatal(err)
			}
			e.Attrs = []wire.Attr{{Name: "user.one", Value: []byte("1\x00\xff")}, {Name: "user.empty"}, {Name: wire.ACLAccess, Value: []byte(acl)}}
			if os.Geteuid() == 0 { // only root can give it away
				e.Owner = &wire.Owner{UID: 12, GID: 99999}
			}
			for i, synced := range []bool{true, false} { // the second try has nothing to set, and makes sure
				w.files, w.all = nil, 0
				s = stage(t, d)
				for range 2 {
					if done, err := s.Check(&e); done == nil || err != nil {
						t.Fatalf("named: %v: %v, %v", named, done, err)
					}
				}
				if w.all != 1 {
					t.Errorf("syncfs was called %d times", w.all)
				}
				of := "f"
				if !named && i == 0 {
					of = filepath.Base(p.name)
				}
				if got := slices.Contains(w.files, of); got != synced {
					t.Errorf("%s was synced: %v; want %v", of, got, synced)
				}
				if err := s.Close(true); err != nil {
					t.Fatal(err)
				}
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if !hasAttributes(f, &e, new(accounts)) || !untouched(f, &e) {
				t.Errorf("named: %v: it has not what was asked for", named)
			}
			// With a list, the group's bits are its mask.
			if st, err := f.Stat(); err != nil || st.Mode() != 0o770 {
				t.Errorf("%v, %v", st, err)
			}
			f.Close()

			e.Attrs = []wire.Attr{{Name: wire.ACLAccess, Value: []byte("no list")}}
			s = stage(t, d)
			_, err = s.Check(&e)
			wantCode(t, err, CodeLocalIO, "attributes")
			if err := s.Close(false); err != nil {
				t.Error(err)
			}
		}
	}
	test(t)
	asUser(t, test)
}

func TestAttributesAreRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "x")
	if err := unix.Setxattr(path, "user.a", []byte(strings.Repeat("x", 2000)), 0); err != nil {
		t.Fatal(err)
	}
	attrs, err := readAttrs(place{path: path}, nil, func(string) bool { return true })
	if err != nil || len(attrs) != 1 || len(attrs[0].Value) != 2000 {
		t.Errorf("%v, %v", attrs, err)
	}
	if _, err := readAttrs(place{path: path + "-"}, nil, func(string) bool { return true }); CodeOf(err) != CodeLocalIO {
		t.Errorf("%v", err)
	}
}

// TestAttributesOfARootThatIsALink are those of what is sent.
func TestAttributesOfARootThatIsALink(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "f"), "x")
	for _, err := range []error{
		unix.Setxattr(filepath.Join(dir, "f"), "user.a", []byte("1"), 0),
		os.Symlink("f", filepath.Join(dir, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	src, err := OpenSource([]string{filepath.Join(dir, "link")}, SourceOptions{XAttrs: true})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if e, err := src.Next(); err != nil || len(e.Attrs) != 1 || e.Attrs[0].Name != "user.a" {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestAttributesOfAName are those of what has it in the directory that is open: whoever renames
// the directory, and puts a link in its place, has nobody else's sent.
func TestAttributesOfAName(t *testing.T) {
	dir := t.TempDir()
	for name, value := range map[string]string{"tree/f": "mine", "private/f": "another's"} {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, path, "x")
		if err := unix.Setxattr(path, "user.a", []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := os.Open(filepath.Join(dir, "tree"))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if err := errors.Join(os.Rename(tree.Name(), filepath.Join(dir, "moved")), os.Symlink("private", tree.Name()), os.Symlink("../private/f", filepath.Join(dir, "moved/link"))); err != nil {
		t.Fatal(err)
	}
	all := func(string) bool { return true }
	attrs, err := readAttrs(place{filepath.Join(tree.Name(), "f"), tree}, nil, all)
	if err != nil || len(attrs) != 1 || string(attrs[0].Value) != "mine" {
		t.Errorf("%q, %v", attrs, err)
	}
	if attrs, err := readAttrs(place{filepath.Join(tree.Name(), "link"), tree}, nil, all); err != nil || len(attrs) != 0 {
		t.Errorf("of a link: %q, %v", attrs, err)
	}
}

// TestPeersWordsArePrintable in errors, too.
func TestPeersWordsArePrintable(t *testing.T) {
	const clears = "\x1b[2J"
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "x")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, _ := into(t, OverwriteNever)
	s := stage(t, d)
	defer s.Close(false)
	for _, err := range []error{
		s.Symlink(&wire.Entry{Path: "l", Kind: wire.Symlink, Link: clears + strings.Repeat("x", wire.MaxPath)}),
		setAttrs(int(f.Fd()), []wire.Attr{{Name: "user." + clears, Value: make([]byte, wire.MaxAttrs+1)}}, false),
		sourceError("open", clears, &fs.PathError{Op: "open", Path: clears, Err: unix.EACCES}),
	} {
		if err == nil || strings.Contains(err.Error(), clears) {
			t.Errorf("%q", err)
		}
	}
}
