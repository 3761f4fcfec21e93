package transfer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// state is everything below a directory: names, kinds, sizes, times.
func state(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err == nil {
			all.WriteString(path + " " + st.Mode().String() + " " + st.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// would gives what was foreseen, by name.
func would(list []FileResult) map[string]FileResult {
	all := make(map[string]FileResult)
	for _, f := range list {
		all[filepath.Base(f.Path)] = f
	}
	return all
}

// TestDryRunSaysWhatWouldBe, both ends the same, and changes nothing.
func TestDryRunSaysWhatWouldBe(t *testing.T) {
	for _, overwrite := range []Overwrite{OverwriteNever, OverwriteNewer, OverwriteAlways} {
		synctest.Test(t, func(t *testing.T) {
			root := hardLinked(t)
			write(t, filepath.Join(root, "new"), "12345")
			write(t, filepath.Join(root, "there"), "x")
			write(t, filepath.Join(root, "older"), "x")
			if err := os.Symlink("/etc", filepath.Join(root, "out")); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(root, "blocked"), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(root, "blocked/in"), "x")
			e := newEngine(t, nil)
			e.Sink.(*Directory).overwrite = overwrite
			if err := os.Mkdir(filepath.Join(e.dir, "tree"), 0o755); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"there", "older", "blocked"} {
				write(t, filepath.Join(e.dir, "tree", name), "precious")
			}
			newer := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
			if err := errors.Join(os.Chtimes(filepath.Join(e.dir, "tree/there"), newer, newer),
				os.Chtimes(filepath.Join(e.dir, "tree/older"), time.Unix(1, 0), time.Unix(1, 0))); err != nil {
				t.Fatal(err)
			}
			var err error
			opt := SourceOptions{HardLinks: true, Links: true, Stdin: strings.NewReader("unread")}
			if e.Source, err = OpenSource([]string{root, StdinPath}, opt); err != nil {
				t.Fatal(err)
			}
			defer e.Source.Close()
			e.DryRun = true
			before := state(t, e.dir) + state(t, root)
			s, r := e.run(t, t.Context(), t.Context())
			if after := state(t, e.dir) + state(t, root); after != before {
				t.Errorf("it was:\n%s\nand is:\n%s", before, after)
			}
			if opt.Stdin.(*strings.Reader).Len() != len("unread") {
				t.Error("standard input was read")
			}
			fail := map[string]Code{"out": CodeUsage, "blocked": CodeExists, "in": CodeExists}
			replaced := map[string]bool{}
			for name, by := range map[string]bool{"there": overwrite == OverwriteAlways, "older": overwrite != OverwriteNever} {
				if replaced[name] = by; !by {
					fail[name] = CodeExists
				}
			}
			for _, end := range []*end{s, r} {
				wantCode(t, end.err, CodePartial, "would not arrive")
				// Two files of three names, new, there, older and the stream.
				if want := 6 + 4 - len(fail) + 3; end.Files != want || end.Failed != len(fail) || !end.DryRun || len(end.plans) != 0 {
					t.Errorf("%d files, %d failed, want %d, %d", end.Files, end.Failed, want, len(fail))
				}
				got := would(end.files)
				for _, name := range []string{"small", "large", "new", "there", "older", "out", "blocked", "in"} {
					f, ok := got[name]
					if code := CodeOf(f.Err); !ok || code != fail[name] || f.Foreseen == nil || f.Foreseen.Replaces != (replaced[name] && code == CodeOK) {
						t.Errorf("%s %s: %+v, %+v", overwrite, name, f, f.Foreseen)
					}
				}
				if f := got["new"]; f.Size != 5 || f.Foreseen.Here != 0 || f.Foreseen.Done {
					t.Errorf("new: %+v, %+v", f, f.Foreseen)
				}
			}
			if f := would(r.files)["stdin"]; f.Size != -1 {
				t.Errorf("the stream: %+v", f)
			}
		})
	}
}

// TestDryRunOfAnInterruptedTransfer knows what has landed before.
func TestDryRunOfAnInterruptedTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broke := errors.New("pulled")
		file := random(40 * mib)
		e := newEngine(t, func(a *memAnswer) error {
			if a.r.Offset == 35*mib {
				return broke
			}
			return nil
		}, [2]string{"a", "small"}, [2]string{"b", file})
		paths := e.Source.walk.roots
		e.run(t, t.Context(), t.Context()) // it fails, with what is before that in the ledger
		var err error
		if e.Source, err = OpenSource(paths, SourceOptions{}); err != nil {
			t.Fatal(err)
		}
		defer e.Source.Close()
		e.DryRun = true
		before := state(t, e.dir)
		s, r := e.run(t, t.Context(), t.Context())
		if after := state(t, e.dir); after != before {
			t.Errorf("it was:\n%s\nand is:\n%s", before, after)
		}
		for _, end := range []*end{s, r} {
			got := would(end.files)
			if end.err != nil || end.Files != 2 || end.Resumed != 32*mib+5 {
				t.Errorf("%+v, %v", end.Result, end.err)
			}
			if f := got["a"].Foreseen; f == nil || !f.Done || f.Here != 5 {
				t.Errorf("a: %+v", f)
			}
			if f := got["b"].Foreseen; f == nil || f.Done || f.Here != 32*mib {
				t.Errorf("b: %+v", f)
			}
		}
		// And it goes on from there.
		if e.Source, err = OpenSource(paths, SourceOptions{}); err != nil {
			t.Fatal(err)
		}
		e.DryRun = false
		e.lane.meddle = func(*memAnswer) error { return nil }
		if s, _ := e.run(t, t.Context(), t.Context()); s.err != nil || s.Resumed != 32*mib+5 {
			t.Errorf("%+v, %v", s.Result, s.err)
		}
		wantFiles(t, e.dir, map[string]string{"a": "small", "b": file})
	})
}

// TestDryRunCountsTheRoom of all entries together.
func TestDryRunCountsTheRoom(t *testing.T) {
	sink, dir := into(t, OverwriteNever)
	o, err := sink.Look([16]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	free := int64(1)
	for ; free < 1<<50; free *= 2 { // the largest power of two that fits
		if err := o.(*outlook).fits(entry(0, "f", 2*free), 0); err != nil {
			wantCode(t, err, CodeLocalIO, "free")
			break
		}
	}
	// The first is well within the room, and three of them well beyond it.
	if _, err := o.Foresee(entry(0, "f", free/4*3)); err != nil {
		t.Error(err)
	}
	_, _ = o.Foresee(entry(1, "g", free/4*3))
	_, err = o.Foresee(entry(2, "h", free/4*3))
	wantCode(t, err, CodeLocalIO, "free")
	wantFiles(t, dir, nil)
}

// TestDryRunOpensNoLane, whatever the receiver asks for.
func TestDryRunOpensNoLane(t *testing.T) {
	for _, m := range []wire.Message{
		&wire.OpenLane{ID: 1, Depth: 1, TCP: &wire.TCPLane{}}, &wire.Plan{Transport: TransportTCP}, receipt(0), &wire.Landed{},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine(t, nil, [2]string{"f", "x"})
			a, b := sessions(t)
			e.DryRun = true
			e.Sender.Observer = new(end)
			bad := newHostile(t, b)
			sent := make(chan error)
			go func() {
				_, err := e.over(t.Context(), a, nil)
				sent <- err
			}()
			if h := await[*wire.Hello](bad); !h.DryRun {
				t.Error("the receiver is not told")
			}
			bad.say(&wire.Welcome{Version: wire.Version, ExtentSize: mib, Entries: 5}, m)
			wantCode(t, <-sent, CodeOther, "unexpected")
			b.Close()
		})
	}
}
