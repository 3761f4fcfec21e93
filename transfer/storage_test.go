package transfer

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// onDisk reports whether a file lies where O_DIRECT has to work, and the page cache is
// not the file itself.
func onDisk(t *testing.T, path string) bool {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		t.Fatal(err)
	}
	return fs.Type == unix.EXT4_SUPER_MAGIC || fs.Type == unix.XFS_SUPER_MAGIC
}

// resident counts the bytes of a file that are in the page cache, by fincore(1).
func resident(t *testing.T, path string) int64 {
	t.Helper()
	out, err := exec.Command("fincore", "--bytes", "--noheadings", "--output", "RES", path).CombinedOutput()
	if err != nil {
		t.Fatalf("fincore: %v: %s", err, out)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// cold drops a file from the page cache.
func cold(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if n := resident(t, path); n > 0 && onDisk(t, path) {
		t.Fatalf("%d bytes of %s stay in the page cache", n, path)
	}
}

// warm reads a range of a file, and nothing ahead of it.
func warm(t *testing.T, path string, off, n int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, n), off); err != nil {
		t.Fatal(err)
	}
}

// stored is a transfer of one file, with what is particular about it.
type stored struct {
	content  string
	opt      SourceOptions
	sink     func(*Directory)
	prepare  func(path string)                // the source
	meddle   func(*memAnswer) error           // see memory
	finished func(s, r *end, from, to string) // while both files are there
}

func (c stored) run(t *testing.T) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, c.meddle, [2]string{"f", c.content})
		from := e.Source.walk.roots[0]
		if c.prepare != nil {
			c.prepare(from)
		}
		var err error
		if e.Source, err = OpenSource([]string{from}, c.opt); err != nil {
			t.Fatal(err)
		}
		if c.sink != nil {
			c.sink(e.Sink.(*Directory))
		}
		s, r := e.run(t, t.Context(), t.Context())
		if s.err != nil || r.err != nil {
			t.Fatal(s.err, r.err)
		}
		c.finished(s, r, from, filepath.Join(e.dir, "f"))
		wantFiles(t, e.dir, map[string]string{"f": c.content})
	})
}

// TestDirectSource reads files past the page cache, or through it where they are in it
// already, as auto has it.
func TestDirectSource(t *testing.T) {
	for _, size := range []int{6*mib + 4096, 3*mib + 17, mib - 1, maxPacked + 1} {
		for _, c := range []struct {
			direct Direct
			cold   bool
			past   bool
		}{
			{DirectAlways, true, true}, {DirectAlways, false, true},
			{DirectAuto, true, true}, {DirectAuto, false, false},
			{DirectNever, true, false}, {"", true, false},
		} {
			t.Run(fmt.Sprint(size, " ", c.direct, " cold ", c.cold), func(t *testing.T) {
				stored{
					content: random(size), opt: SourceOptions{Direct: c.direct},
					prepare: func(path string) {
						if c.cold {
							cold(t, path)
						}
					},
					finished: func(s, r *end, from, to string) {
						disk, got := onDisk(t, from), s.Storage
						if got.Direct+got.Cached != int64(size) {
							t.Errorf("%d bytes were sent: %+v", size, got)
						}
						// A tail of less than a page may have memory that is not aligned.
						if past := got.Direct > int64(size)-4096; past != (c.past && disk) {
							t.Errorf("%+v", got)
						}
						if said := got.Refused != ""; c.past && !disk && c.direct == DirectAlways && !said {
							t.Error("nobody said that nothing was direct")
						}
						if n := resident(t, from); disk && c.cold && (n > 4096) == c.past {
							t.Errorf("%d bytes of the source are in the page cache", n)
						}
					},
				}.run(t)
			})
		}
	}
}

// TestDirectSourceIsWhatWasWritten: what is dirty in the page cache, and not on the disk,
// is the file too.
func TestDirectSourceIsWhatWasWritten(t *testing.T) {
	content := random(6 * mib)
	stored{
		content: content, opt: SourceOptions{Direct: DirectAlways},
		prepare: func(path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(make([]byte, 3*mib), 2*mib); err != nil {
				t.Fatal(err)
			}
			cold(t, path)
			if _, err := f.WriteAt([]byte(content[2*mib:5*mib]), 2*mib); err != nil {
				t.Fatal(err)
			}
		},
		finished: func(s, r *end, from, to string) {},
	}.run(t)
}

// TestDirectSink writes files past the page cache, all but what of them is no whole page.
func TestDirectSink(t *testing.T) {
	for _, size := range []int{20 * mib, 3*mib + 1000, 2*mib + 4096, maxPacked + 1} {
		for _, meddle := range []func(*memAnswer) error{nil, flipper(1, 0)} {
			stored{
				content: random(size), meddle: meddle,
				sink: func(d *Directory) { d.Direct = DirectAlways },
				finished: func(s, r *end, from, to string) {
					disk, got := onDisk(t, to), r.Storage
					if got.Direct+got.Cached < int64(size) || (got.Direct < int64(size)-4096) == disk {
						t.Errorf("of %d bytes: %+v", size, got)
					}
					if got.Direct%pageSize != 0 {
						t.Errorf("a page is written in two ways: %+v", got)
					}
					if n := resident(t, to); disk && n > 4096 {
						t.Errorf("%d bytes are in the page cache", n)
					}
					if !disk && got.Refused == "" {
						t.Error("nobody said that nothing was direct")
					}
				},
			}.run(t)
		}
	}
}

// TestDirectSinkHasHoles where the source has.
func TestDirectSinkHasHoles(t *testing.T) {
	content := make([]byte, 8*mib)
	copy(content[3*mib+5000:], random(20000))
	stored{
		content: string(content), sink: func(d *Directory) { d.Direct = DirectAlways },
		prepare: func(path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(content[3*mib+5000:][:20000], 3*mib+5000); err != nil {
				t.Fatal(err)
			}
			if err := f.Truncate(8 * mib); err != nil {
				t.Fatal(err)
			}
		},
		finished: func(s, r *end, from, to string) {
			var st unix.Stat_t
			if err := unix.Stat(to, &st); err != nil || st.Blocks*512 > mib {
				t.Errorf("it takes %d bytes, %v", st.Blocks*512, err)
			}
			if got := r.Storage; onDisk(t, to) && got.Direct < 16384 {
				t.Errorf("%+v", got)
			}
		},
	}.run(t)
}

// TestDirectOfMemoryIsSaid: tmpfs takes the flag, and there is nothing behind its pages.
func TestDirectOfMemoryIsSaid(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "rdmaxfer-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	d, err := OpenDirectory(dir, OverwriteNever)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.Direct, d.KeepCache = DirectAlways, true
	s := stage(t, d)
	content := random(mib)
	l := create(t, s, wire.Entry{Path: "f", Size: mib, Mode: 0o600})
	if _, err := l.WriteAt([]byte(content), 0); err != nil {
		t.Fatal(err)
	}
	if got := s.Storage(); got.Direct != 0 || got.Cached != mib || !strings.Contains(got.Refused, "tmpfs") {
		t.Errorf("%+v", got)
	}
	if err := commitOne(t, s, l); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{"f": content})
}

// TestKeepCacheOfASource: what was in the page cache is, and nothing else.
func TestKeepCacheOfASource(t *testing.T) {
	const size = 40*mib + 17
	for name, ranges := range map[string][][2]int64{
		"cold":  {},
		"mixed": {{0, 8192}, {mib + 4096, 4096}, {17 * mib, 3 * mib}, {40 * mib, 17}},
		"warm":  {{0, size}},
	} {
		for _, direct := range []Direct{DirectNever, DirectAuto} {
			t.Run(name+" "+string(direct), func(t *testing.T) {
				var before int64
				var found residency
				look := func(path string) (residency, int64) {
					f, err := os.Open(path)
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					r, err := residencyOf(int(f.Fd()), size)
					if err != nil {
						t.Fatal(err)
					}
					return r, resident(t, path)
				}
				stored{
					content: random(size), opt: SourceOptions{KeepCache: true, Direct: direct},
					prepare: func(path string) {
						cold(t, path)
						for _, r := range ranges {
							warm(t, path, r[0], r[1])
						}
						found, before = look(path)
					},
					finished: func(s, r *end, from, to string) {
						now, after := look(from)
						if !onDisk(t, from) {
							return // the file is the cache
						}
						// Extents that are in the cache come from there.
						if got := s.Storage; direct == DirectAuto && name == "mixed" && (got.Cached < 3*mib || got.Direct < 30*mib) {
							t.Errorf("%+v", got)
						}
						if after != before {
							t.Errorf("%d bytes were in the page cache, and %d are", before, after)
						}
						if now.count != found.count || now.all != found.all || fmt.Sprint(now.pages) != fmt.Sprint(found.pages) {
							t.Error("it has other pages than it had")
						}
					},
				}.run(t)
			})
		}
	}
}

// TestKeepCacheOfWhatIsGivenUp: what the kernel read ahead, and nobody asked for, goes too.
func TestKeepCacheOfWhatIsGivenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, random(20*mib))
	cold(t, path)
	src, err := OpenSource([]string{path}, SourceOptions{KeepCache: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := src.Next(); err != nil {
		t.Fatal(err)
	}
	for n := range int64(2) {
		if ok, err := src.Read(wire.Request{Offset: n * mib, Length: mib}, make([]byte, mib)); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	warm(t, path, 2*mib, 18*mib) // what is under way can't be dropped
	src.Close()
	if n := resident(t, path); n > 0 && onDisk(t, path) {
		t.Errorf("%d bytes are in the page cache", n)
	}
}

// TestKeepCacheOfASink: at no time has the page cache much of what lands, and nothing in
// the end.
func TestKeepCacheOfASink(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		var dir string
		most := int64(0)
		stored{
			content: random(80*mib + 17),
			sink:    func(d *Directory) { d.KeepCache, d.NoSync, dir = true, noSync, d.root.Name() },
			meddle: func(a *memAnswer) error {
				if a.nth%16 == 0 {
					parts, err := filepath.Glob(filepath.Join(dir, stagingPrefix+"*", "*"+partSuffix))
					if err != nil {
						t.Fatal(err)
					}
					for _, p := range parts {
						most = max(most, resident(t, p))
					}
				}
				return nil
			},
			finished: func(s, r *end, from, to string) {
				if !onDisk(t, to) {
					return
				}
				// What grows, what is written, and what came out of order.
				if most == 0 || most > 3*dropEvery+mib {
					t.Errorf("there were up to %d bytes of it in the page cache", most)
				}
				if n := resident(t, to); n > 0 {
					t.Errorf("%d bytes are in the page cache", n)
				}
			},
		}.run(t)
	}
}

// TestKeepCacheOfSmallFiles, which travel in packs.
func TestKeepCacheOfSmallFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var files [][2]string
		for i := range 40 {
			files = append(files, [2]string{fmt.Sprint("f", i), random(5000 + i)})
		}
		e := newEngine(t, nil, files...)
		paths := e.Source.walk.roots
		for i, p := range paths {
			if cold(t, p); i%2 == 0 {
				warm(t, p, 0, 5000)
			}
		}
		var err error
		if e.Source, err = OpenSource(paths, SourceOptions{KeepCache: true}); err != nil {
			t.Fatal(err)
		}
		e.Sink.(*Directory).KeepCache = true
		if s, r := e.run(t, t.Context(), t.Context()); s.err != nil || r.err != nil {
			t.Fatal(s.err, r.err)
		}
		for i, p := range paths {
			if n := resident(t, p); onDisk(t, p) && (n > 0) != (i%2 == 0) {
				t.Errorf("of the source %d there are %d bytes in the page cache", i, n)
			}
			if n := resident(t, filepath.Join(e.dir, filepath.Base(p))); onDisk(t, e.dir) && n > 0 {
				t.Errorf("of what landed %d there are %d", i, n)
			}
		}
	})
}
