package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// syncs are what a Directory syncs, and has fail.
type syncs struct {
	files []string // base names
	all   int      // syncfs
	fail  error    // of syncfs
	bad   string   // base name of a file that fails
}

func watchSyncs(d *Directory) *syncs {
	w := new(syncs)
	d.fsync = func(f *os.File) error {
		name := filepath.Base(f.Name())
		w.files = append(w.files, name)
		if name == w.bad {
			return syscall.EIO
		}
		return f.Sync()
	}
	d.syncfs = func(*os.File) error {
		w.all++
		return w.fail
	}
	return w
}

// TestFailedSyncIsOneFilesAlone: the others of its group land, few or many.
func TestFailedSyncIsOneFilesAlone(t *testing.T) {
	for _, n := range []int{few, few + 1} {
		d, dir := into(t, OverwriteNever)
		w := watchSyncs(d)
		s := stage(t, d)
		want := make(map[string]string)
		var whole []Whole
		for i := range n {
			e := wire.Entry{Path: fmt.Sprint("f", i), Size: 5, Mode: 0o600}
			whole = append(whole, Whole{Landing: putWhole(t, s, e, "hello")})
			want[e.Path] = "hello"
		}
		w.bad = "f1"
		delete(want, w.bad)
		if n > few { // then a checkpoint has found out
			wantCode(t, whole[1].Landing.(*part).sync(), CodeLocalIO)
		}
		for i, err := range s.Commit(whole) {
			if i == 1 {
				wantCode(t, err, CodeLocalIO, "syncing", w.bad)
			} else if err != nil {
				t.Error(err)
			}
		}
		if err := s.Close(false); err != nil {
			t.Error(err)
		}
		wantFiles(t, dir, want)
	}
}

// TestSyncfsThatFailedIsNotAskedAgain: it told of the files of the next group too, which
// have to be asked for one by one. Of a small one that was closed nobody is told for sure.
func TestSyncfsThatFailedIsNotAskedAgain(t *testing.T) {
	d, dir := into(t, OverwriteNever)
	w := watchSyncs(d)
	s := stage(t, d)
	withoutNameless(s)
	land := func(name string, size int) Whole {
		e := wire.Entry{Path: path.Join(name, "f"), Size: int64(size), Mode: 0o600}
		if err := s.Mkdir(&wire.Entry{Path: name, Kind: wire.Dir}); err != nil {
			t.Fatal(err)
		}
		if size <= maxPacked {
			return Whole{Landing: putWhole(t, s, e, random(size))}
		}
		l := create(t, s, e)
		if _, err := l.WriteAt([]byte(random(size)), 0); err != nil {
			t.Fatal(err)
		}
		return Whole{Landing: l}
	}
	var first, second []Whole
	for i := range few + 1 {
		first = append(first, land(fmt.Sprint("first", i), 5))
	}
	second = append(second, land("closed", 5))
	for i := range few + 1 {
		second = append(second, land(fmt.Sprint("open", i), maxPacked+1))
	}
	w.fail = syscall.EIO
	for _, err := range s.Commit(first) {
		wantCode(t, err, CodeLocalIO, "file system")
	}
	second = append(second, land("later", 5))
	w.fail, w.bad = nil, filepath.Base(second[1].Landing.(*part).name)
	for i, err := range s.Commit(second) {
		switch {
		case i == 0:
			wantCode(t, err, CodeLocalIO, "send it again")
		case i == 1:
			wantCode(t, err, CodeLocalIO, "syncing")
		case err != nil:
			t.Error(err)
		}
	}
	if w.all != 1 {
		t.Errorf("syncfs was called %d times", w.all)
	}
	for _, x := range second[2:] {
		p := x.Landing.(*part)
		if !slices.Contains(w.files, filepath.Base(p.name)) || !slices.Contains(w.files, path.Dir(p.e.Path)) {
			t.Errorf("%s was not synced", p.e.Path)
		}
	}
	if err := s.Close(false); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"first0/f", "closed/f", "open0/f"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s has its name", name)
		}
	}
}

// TestClosedPartsAreSyncedWithTheirFileSystem: a part's write that failed before it is
// opened again may be forgotten with its inode.
func TestClosedPartsAreSyncedWithTheirFileSystem(t *testing.T) {
	eachWay(t, func(t *testing.T, begin func(Overwrite) (*staging, string)) {
		s, _ := begin(OverwriteNever)
		w := watchSyncs(s.d)
		l := putWhole(t, s, wire.Entry{Path: "f", Size: 5, Mode: 0o600}, "hello")
		closed := l.(*part).closed()
		if err := commitOne(t, s, l); err != nil {
			t.Error(err)
		}
		if (w.all > 0) != closed {
			t.Errorf("closed: %v, and syncfs was called %d times", closed, w.all)
		}
	})
}

// TestDirectoryThatFailsHasADurableName: what landed in it was vouched for.
func TestDirectoryThatFailsHasADurableName(t *testing.T) {
	d, _ := into(t, OverwriteNever)
	w := watchSyncs(d)
	s := stage(t, d)
	for _, name := range []string{"parent", "parent/d"} {
		if err := s.Mkdir(&wire.Entry{Path: name, Kind: wire.Dir}); err != nil {
			t.Fatal(err)
		}
	}
	err := s.Finish(&wire.Entry{Path: "parent/d", Kind: wire.Dir, Mode: 0o755, Attrs: []wire.Attr{{Name: wire.ACLAccess, Value: []byte("no list")}}})
	wantCode(t, err, CodeLocalIO, "setting")
	if !slices.Contains(w.files, "parent") {
		t.Errorf("%v were synced", w.files)
	}
	if err := s.Close(false); err != nil {
		t.Error(err)
	}
}

// dying is a Directory whose ledger dies as soon as a file is begun.
type dying struct{ *Directory }

func (d *dying) Begin(id [16]byte) (Destination, error) {
	s, err := d.Directory.Begin(id)
	if err != nil {
		return nil, err
	}
	return &dyingIn{s.(*staging)}, nil
}

type dyingIn struct{ *staging }

func (d *dyingIn) Put(e *wire.Entry, b []byte) (Landing, error) {
	d.ledger.Close()
	return d.staging.Put(e, b)
}

func (d *dyingIn) putTogether(list []*small) {
	d.ledger.Close()
	d.staging.putTogether(list)
}

func (d *dyingIn) Resume(e *wire.Entry) (Landing, []Block, error) {
	l, blocks, err := d.staging.Resume(e)
	d.ledger.Close()
	return l, blocks, err
}

// TestDeadLedgerEndsTheTransfer when it is to say that files have landed.
func TestDeadLedgerEndsTheTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil, [2]string{"a", "a"}, [2]string{"b", "b"}, [2]string{"c", random(mib)})
		e.Sink = &dying{e.Sink.(*Directory)}
		s, r := e.run(t, t.Context(), t.Context())
		for _, err := range []error{s.err, r.err} {
			wantCode(t, err, CodeLocalIO, "ledger")
			if strings.Contains(err.Error(), "of 3 files") {
				t.Errorf("the transfer went on: %v", err)
			}
		}
		wantStaged(t, e.dir)
	})
}

// TestDeadLedgerEndsALargeFile at the next checkpoint, and what was known of it before is
// known to the next try.
func TestDeadLedgerEndsALargeFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := random(4*blockSize + 5)
		lost := false
		e := newEngine(t, func(a *memAnswer) error {
			if lost && a.r.Offset == 4*blockSize { // so that there is time for a checkpoint
				return errLost
			}
			return nil
		}, [2]string{"f", content})
		paths, sink := e.Source.walk.roots, e.Sink.(*Directory)
		again := func(s Sink) {
			e.Sink = s
			var err error
			if e.Source, err = OpenSource(paths, SourceOptions{}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(e.Source.Close)
		}
		ctx, stop := context.WithCancelCause(t.Context())
		e.Sink = &lastBlock{sink, 2, func() { stop(errors.New("killed")) }}
		e.run(t, t.Context(), ctx)

		lost = true
		again(&dying{sink})
		s, r := e.run(t, t.Context(), t.Context())
		wantCode(t, s.err, CodeLocalIO, "ledger")
		wantCode(t, r.err, CodeLocalIO, "ledger")
		if len(r.files) > 0 {
			t.Errorf("the file was sent to its end: %+v", r.files)
		}
		wantStaged(t, e.dir)

		lost = false
		again(sink)
		s, r = e.run(t, t.Context(), t.Context())
		if s.err != nil || r.err != nil || r.Resumed < 2*blockSize {
			t.Errorf("%d bytes had landed before, %v, %v", r.Resumed, s.err, r.err)
		}
		wantFiles(t, e.dir, map[string]string{"f": content})
	})
}

// TestLeftPartIsClosed when its blocks are written down, and not at the transfer's end: there may
// be thousands.
func TestLeftPartIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // with no checkpoint but the test's own
		d, _ := into(t, OverwriteNever)
		s := stage(t, d)
		e := wire.Entry{Path: "f", Size: 2 * blockSize, Mode: 0o600, MTimeNS: 5, Version: 1}
		l := create(t, s, e)
		if err := l.(*part).file.Truncate(blockSize); err != nil {
			t.Fatal(err)
		}
		l.Verified(0, Digest{1})
		l.Leave()
		s.checkpoint()
		if p := l.(*part); p.file != nil || len(s.left) > 0 {
			t.Errorf("it is open: %v, with %d others", p.file, len(s.left))
		}
		if again, blocks, err := s.Resume(&e); again == nil || len(blocks) != 1 || err != nil {
			t.Errorf("%v, %v, %v", again, blocks, err)
		} else {
			again.Leave()
		}
		if err := s.Close(true); err != nil {
			t.Fatal(err)
		}
	})
}

// TestLeftPartIsReplaced by one of the same file, in the same session: what ends the first leaves
// the second alone, and nothing of the first is written down any more.
func TestLeftPartIsReplaced(t *testing.T) {
	for _, landed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d, dir := into(t, OverwriteNever)
			s := stage(t, d)
			e := wire.Entry{Path: "f", Size: 2 * blockSize, Mode: 0o600, MTimeNS: 5, Version: 1}
			first := create(t, s, e)
			if landed {
				first.Verified(0, Digest{1})
			}
			first.Leave()
			second := create(t, s, e)
			s.checkpoint()
			if first.(*part).file != nil {
				t.Error("the first is open")
			}
			content := random(2 * blockSize)
			if _, err := second.WriteAt([]byte(content), 0); err != nil {
				t.Fatal(err)
			}
			if err := commitOne(t, s, second); err != nil {
				t.Fatal(err)
			}
			wantFiles(t, dir, map[string]string{"f": content})
		})
	}
}

// TestBehindOpensNothingOnceItIsOver, though a write was under way.
func TestBehindOpensNothingOnceItIsOver(t *testing.T) {
	d, _ := into(t, OverwriteNever)
	d.KeepCache = true
	s := stage(t, d)
	l := create(t, s, wire.Entry{Path: "f", Size: 2 * blockSize, Mode: 0o600, MTimeNS: 5, Version: 1})
	p := l.(*part)
	p.over()
	if err := p.wrote(0, 1); err != nil || p.behind.file != nil {
		t.Errorf("%v, %v", p.behind.file, err)
	}
	p.Abort()
	if err := s.Close(false); err != nil {
		t.Fatal(err)
	}
}

// TestFailedCommitIsGoneOnWith, where it was this host's fault: a part that can't be
// synced, and one whose directory is missing.
func TestFailedCommitIsGoneOnWith(t *testing.T) {
	for _, why := range []string{"sync", "directory"} {
		synctest.Test(t, func(t *testing.T) { // with no checkpoint but the test's own
			d, dir := into(t, OverwriteNever)
			w := watchSyncs(d)
			s := stage(t, d)
			e := wire.Entry{Path: "d/f", Size: 2 * blockSize, Mode: 0o600, MTimeNS: 5, Version: 1}
			if err := s.Mkdir(&wire.Entry{Path: "d", Kind: wire.Dir}); err != nil {
				t.Fatal(err)
			}
			l := create(t, s, e)
			if err := l.(*part).file.Truncate(e.Size); err != nil {
				t.Fatal(err)
			}
			l.Verified(0, Digest{1})
			s.checkpoint()
			if why == "sync" {
				w.bad = filepath.Base(l.(*part).name)
			} else if err := os.Remove(filepath.Join(dir, "d")); err != nil {
				t.Fatal(err)
			}
			wantCode(t, s.Commit([]Whole{{Landing: l}})[0], CodeLocalIO)
			if err := s.Close(true); err != nil {
				t.Fatal(err)
			}
			w.bad = ""
			s = stage(t, d)
			if err := s.Mkdir(&wire.Entry{Path: "d", Kind: wire.Dir}); err != nil {
				t.Fatal(err)
			}
			done, err := s.Check(&e)
			if (done != nil) != (why == "directory") || err != nil {
				t.Errorf("%s: %v, %v", why, done, err)
			}
			if done == nil {
				l, blocks, err := s.Resume(&e)
				if l == nil || len(blocks) != 1 || err != nil {
					t.Errorf("%s: %v, %v, %v", why, l, blocks, err)
				} else {
					l.Abort()
				}
			}
			if err := s.Close(false); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWhereSyncfsDoesNotTell every file and directory is asked for itself, however many.
func TestWhereSyncfsDoesNotTell(t *testing.T) {
	d, _ := into(t, OverwriteNever)
	d.tells = false
	w := watchSyncs(d)
	s := stage(t, d)
	var whole []Whole
	for i := range few + 1 {
		dir := fmt.Sprint("d", i)
		if err := s.Mkdir(&wire.Entry{Path: dir, Kind: wire.Dir}); err != nil {
			t.Fatal(err)
		}
		whole = append(whole, Whole{Landing: putWhole(t, s, wire.Entry{Path: dir + "/f" + dir, Size: 5, Mode: 0o600}, "hello")})
	}
	w.bad = "fd1"
	for i, err := range s.Commit(whole) {
		if (err != nil) != (i == 1) {
			t.Errorf("%d: %v", i, err)
		}
	}
	for i := range few + 1 {
		for _, name := range []string{fmt.Sprint("d", i), fmt.Sprint("fd", i)} {
			if i != 1 && !slices.Contains(w.files, name) {
				t.Errorf("%s was not synced: %v", name, w.files)
			}
		}
	}
	if err := s.Close(false); err != nil {
		t.Error(err)
	}
}

// TestNamelessIsSyncedAgain once it has its name, where an fsync before that counts for nothing.
func TestNamelessIsSyncedAgain(t *testing.T) {
	for _, loses := range []bool{false, true} {
		d, dir := into(t, OverwriteNever)
		d.loses = loses
		named := 0
		s := stage(t, d)
		sync := d.fsync
		d.fsync = func(f *os.File) error {
			if _, err := os.Stat(filepath.Join(dir, "f")); err == nil && filepath.Base(f.Name()) == "f" {
				named++
			}
			return sync(f)
		}
		if err := s.Commit([]Whole{{Landing: putWhole(t, s, wire.Entry{Path: "f", Size: 5, Mode: 0o600}, "hello")}})[0]; err != nil {
			t.Error(err)
		}
		if (named > 0) != loses {
			t.Errorf("lost without a name %v: synced %d times with it", loses, named)
		}
		if err := s.Close(false); err != nil {
			t.Error(err)
		}
	}
}

// TestSyncsOfAPartTakeTurns: the kernel tells one of them what failed, and each has to know.
func TestSyncsOfAPartTakeTurns(t *testing.T) {
	d, _ := into(t, OverwriteNever)
	s := stage(t, d)
	p := create(t, s, wire.Entry{Path: "f", Size: 2 * blockSize, Mode: 0o600}).(*part)
	calls := 0
	d.fsync = func(*os.File) error {
		if p.syncing.TryLock() {
			t.Error("another may sync it meanwhile")
			p.syncing.Unlock()
		}
		if calls++; calls == 1 {
			return syscall.EIO
		}
		return nil
	}
	wantCode(t, p.sync(), CodeLocalIO)
	wantCode(t, p.sync(), CodeLocalIO)
	p.Abort()
	if err := s.Close(false); err != nil {
		t.Error(err)
	}
}
