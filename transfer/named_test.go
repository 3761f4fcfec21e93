package transfer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

func openNamed(t *testing.T, file string) *Named {
	t.Helper()
	n, err := OpenNamed(file, OverwriteNever)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func TestNamedLandsUnderItsName(t *testing.T) {
	for _, stream := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			content := random(3*mib + 5)
			e := newEngine(t, nil, [2]string{"f", content})
			if stream {
				e.fromStdin(t, content)
			}
			e.Sink = openNamed(t, filepath.Join(e.dir, "name"))
			s, r := e.run(t, t.Context(), t.Context())
			if s.err != nil || r.err != nil {
				t.Error(s.err, r.err)
			}
			wantFiles(t, e.dir, map[string]string{"name": content})
		})
	}
}

// TestNamedResumes: the ledger knows the file by the name that it gets.
func TestNamedResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := random(3*blockSize + 5)
		e := newEngine(t, nil, [2]string{"f", content})
		paths := e.Source.walk.roots
		named := openNamed(t, filepath.Join(e.dir, "name"))
		ctx, stop := context.WithCancelCause(t.Context())
		e.Sink = &lastBlock{named, 2, func() { stop(errors.New("killed")) }}
		if _, r := e.run(t, t.Context(), ctx); r.err == nil {
			t.Fatal("it was not stopped")
		}
		wantStaged(t, e.dir)
		e.Sink = named
		var err error
		if e.Source, err = OpenSource(paths, SourceOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Source.Close)
		s, r := e.run(t, t.Context(), t.Context())
		if s.err != nil || r.err != nil || r.Resumed < 2*blockSize {
			t.Errorf("%d bytes had landed before, %v, %v", r.Resumed, s.err, r.err)
		}
		wantFiles(t, e.dir, map[string]string{"name": content})
	})
}

// TestNamedEndsWithItsLedger: the directory's word reaches the transfer.
func TestNamedEndsWithItsLedger(t *testing.T) {
	d, err := openNamed(t, filepath.Join(t.TempDir(), "name")).Begin([16]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	var end error
	d.(mortal).ends(func(err error) { end = err })
	s := d.(*namedIn).Destination.(*staging)
	l := putWhole(t, s, wire.Entry{Path: "name", Size: 5, Mode: 0o600}, "hello")
	s.ledger.Close()
	wantCode(t, s.Commit([]Whole{{Landing: l}})[0], CodeLocalIO, "ledger")
	wantCode(t, end, CodeLocalIO, "ledger")
	_ = d.Close(true) // which says it once more
}

// TestNamedMeetsAFile: the policy is the directory's.
func TestNamedMeetsAFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil, [2]string{"f", "new"})
		name := filepath.Join(e.dir, "name")
		write(t, name, "old")
		e.Sink = openNamed(t, name)
		_, r := e.run(t, t.Context(), t.Context())
		wantCode(t, r.err, CodeExists, "--overwrite")
		wantFiles(t, e.dir, map[string]string{"name": "old"})
	})
}

func TestNamesOfNoFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for file, code := range map[string]Code{
		"": CodeUsage, ".": CodeUsage, dir + "/..": CodeUsage, dir + "/new/": CodeUsage, "/": CodeUsage,
		dir + "/d": CodeUsage, dir + "/nowhere/f": CodeLocalIO,
	} {
		_, err := OpenNamed(file, OverwriteNever)
		wantCode(t, err, code)
	}
}
