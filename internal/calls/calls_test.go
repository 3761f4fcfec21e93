package calls

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ways are the two that there are to make calls, where this is built with cgo.
var ways = map[string]func([]call){"built": run, "loop": loop}

func (l *List) makeBy(way func([]call)) {
	if len(l.calls) > 0 {
		way(l.calls)
	}
}

func openDir(t *testing.T) (path string, fd int) {
	t.Helper()
	path = t.TempDir()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return path, fd
}

func creating(mode uint64) unix.OpenHow {
	return unix.OpenHow{Flags: unix.O_CREAT | unix.O_EXCL | unix.O_RDWR | unix.O_CLOEXEC, Mode: mode, Resolve: unix.RESOLVE_BENEATH}
}

// TestChains writes files, one of which can't be made, and reads them again.
func TestChains(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			path, dir := openDir(t)
			content := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
			names := []string{"a", "no/such", "b", strings.Repeat("long", 60)}
			var l List
			made := make([]Chain, len(names))
			stats := make([]*unix.Statx_t, len(names))
			for i, name := range names {
				c := l.Open2(dir, name, creating(0o400|uint64(i)<<6))
				c.Write(content[i:])
				stats[i] = c.Stat(unix.STATX_BASIC_STATS)
				c.Times(1e18 + int64(i))
				c.Close()
				made[i] = c
			}
			l.makeBy(way)
			for i, name := range names {
				open, err := made[i].Made()
				if name == "no/such" {
					if open != -1 || !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("%s: %d, %v", name, open, err)
					}
					continue
				}
				if open != -1 || err != nil {
					t.Fatalf("%s: %d, %v", name, open, err)
				}
				at := filepath.Join(path, name)
				if b, err := os.ReadFile(at); err != nil || !bytes.Equal(b, content[i:]) {
					t.Errorf("%s has %d bytes (%v)", name, len(b), err)
				}
				st, err := os.Stat(at)
				if err != nil || st.Mode() != 0o400|fs.FileMode(i)<<6 || st.ModTime().UnixNano() != 1e18+int64(i) {
					t.Errorf("%s: %v %v (%v)", name, st.Mode(), st.ModTime(), err)
				}
				if int(stats[i].Size) != len(content)-i {
					t.Errorf("statx says %d bytes of %s", stats[i].Size, name)
				}
			}

			l.Reset()
			into := make([][]byte, len(names))
			for i, name := range names {
				into[i] = make([]byte, len(content)-i)
				c := l.Open(dir, name, unix.O_RDONLY|unix.O_CLOEXEC)
				c.Read(into[i])
				c.Close()
				made[i] = c
			}
			l.makeBy(way)
			for i, name := range names {
				if _, err := made[i].Made(); err == nil != (name != "no/such") || err == nil && !bytes.Equal(into[i], content[i:]) {
					t.Errorf("%s was read otherwise (%v)", name, err)
				}
			}
		})
	}
}

// TestChainEnds where a call fails, with the file open, and others go on.
func TestChainEnds(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			path, dir := openDir(t)
			if err := os.WriteFile(filepath.Join(path, "short"), []byte("abc"), 0o644); err != nil {
				t.Fatal(err)
			}
			var l List
			short := l.Open(dir, "short", unix.O_RDONLY|unix.O_CLOEXEC)
			short.Read(make([]byte, 4))
			short.Times(5e9) // is not made
			short.Close()
			exists := l.Open2(dir, "short", creating(0o644))
			exists.Close()
			zero := l.Open(dir, "short\x00", unix.O_RDONLY|unix.O_CLOEXEC)
			zero.Close()
			missing := l.With(dir)
			missing.StatIn("missing", unix.STATX_BASIC_STATS)
			there := l.With(dir)
			st := there.StatIn("short", unix.STATX_BASIC_STATS)
			l.makeBy(way)

			if was, err := os.Stat(filepath.Join(path, "short")); err != nil || was.ModTime().Unix() == 5 {
				t.Errorf("the chain went on: %v (%v)", was, err)
			}
			open, err := short.Made()
			if open < 0 || err != unix.ENODATA {
				t.Fatalf("a short read: %d, %v", open, err)
			}
			if err := unix.Close(open); err != nil {
				t.Errorf("what a chain left open was not: %v", err)
			}
			if open, err := exists.Made(); open != -1 || err != unix.EEXIST {
				t.Errorf("a file that exists: %d, %v", open, err)
			}
			if open, err := zero.Made(); open != -1 || err != unix.EFAULT {
				t.Errorf("a name with a zero byte: %d, %v", open, err)
			}
			if open, err := missing.Made(); open != dir || err != unix.ENOENT {
				t.Errorf("a file that is missing: %d, %v", open, err)
			}
			if open, err := there.Made(); open != dir || err != nil || st.Size != 3 || st.Mode&0o777 != 0o644 {
				t.Errorf("a file that is there: %d, %v, %d bytes, mode %o", open, err, st.Size, st.Mode)
			}
		})
	}
}

// TestLinks gives files without a name one, in both ways. One of them not everybody may.
func TestLinks(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			path, dir := openDir(t)
			for _, proc := range []bool{false, true} {
				var l List
				file := l.Open2(dir, ".", unix.OpenHow{Flags: unix.O_TMPFILE | unix.O_RDWR | unix.O_CLOEXEC, Mode: 0o644})
				file.Write([]byte("content"))
				l.makeBy(way)
				fd, err := file.Made()
				if err != nil {
					t.Fatal(err)
				}
				may := proc || unix.Linkat(fd, "", dir, "may", unix.AT_EMPTY_PATH) == nil
				for _, taken := range []bool{true, false} {
					name := "name"
					if taken {
						name = "."
					}
					l.Reset()
					c := l.With(fd)
					if proc {
						c.LinkProc(dir, name)
					} else {
						c.Link(dir, name)
					}
					c.Close()
					l.makeBy(way)
					switch open, err := c.Made(); {
					case !may || taken:
						if open != fd || err == nil || may && err != unix.EEXIST {
							t.Errorf("%d, %v", open, err)
						}
					case open != -1 || err != nil:
						t.Errorf("%d, %v", open, err)
					default:
						if b, err := os.ReadFile(filepath.Join(path, name)); string(b) != "content" {
							t.Errorf("it has %q (%v)", b, err)
						}
						fd = -1
					}
				}
				unix.Close(fd)
				os.Remove(filepath.Join(path, "name"))
				os.Remove(filepath.Join(path, "may"))
			}
		})
	}
}

// TestReset leaves room for another list, larger than a chunk.
func TestReset(t *testing.T) {
	_, dir := openDir(t)
	var l List
	l.Make() // of nothing
	for range 3 {
		l.Reset()
		var all []Chain
		var stats []*unix.Statx_t
		for range 500 {
			c := l.With(dir)
			stats = append(stats, c.Stat(unix.STATX_BASIC_STATS))
			all = append(all, c)
		}
		l.Make()
		for i := range all {
			if _, err := all[i].Made(); err != nil || stats[i].Mode&unix.S_IFMT != unix.S_IFDIR || stats[i].Ino != stats[0].Ino {
				t.Fatalf("call %d: %v, %+v", i, err, stats[i])
			}
		}
	}
}
