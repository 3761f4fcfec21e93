package transfer

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// smallFiles is a source of files, all of whose entries were given. What is written to them
// later gets another time, however coarse that is.
func smallFiles(t *testing.T, contents ...string) (s *Source, paths []string) {
	t.Helper()
	dir := t.TempDir()
	when := time.Unix(1e9, 0)
	for i, words := range contents {
		paths = append(paths, filepath.Join(dir, fmt.Sprint(i)))
		write(t, paths[i], words)
		if err := os.Chtimes(paths[i], when, when); err != nil {
			t.Fatal(err)
		}
	}
	s, err := OpenSource(paths, SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for range paths {
		if _, err := s.Next(); err != nil {
			t.Fatal(err)
		}
	}
	return s, paths
}

// TestPackIsVouchedForWithoutWhatSettled: the others have landed, and wait for the word.
func TestPackIsVouchedForWithoutWhatSettled(t *testing.T) {
	s, _ := smallFiles(t, "one", "second", "three")
	s.extentSize, s.verify = kib, digest.BLAKE3
	var told []*wire.Vouch
	s.vouched = func(m *wire.Vouch) { told = append(told, m) }
	s.failed = func(n uint32, err error) { t.Errorf("%d failed: %v", n, err) }
	buf := make([]byte, 14)
	r := wire.Request{Length: 14, Count: 3}
	if ok, err := s.Read(r, buf); !ok || err != nil {
		t.Fatal(ok, err)
	}
	s.settle(1) // the receiver could not write it
	s.Sent(r, buf)
	one, three := digest.BLAKE3.Whole([]byte("one")), digest.BLAKE3.Whole([]byte("three"))
	if len(told) != 1 || !slices.Equal(told[0].Files, []uint32{0, 2}) || !bytes.Equal(told[0].Digests, append(one[:], three[:]...)) {
		t.Errorf("%+v", told)
	}
	s.settle(0)
	s.settle(2)
	if s.Sent(r, buf); len(told) != 1 {
		t.Errorf("a word for nobody: %+v", told[1])
	}
}

// TestPackOfWhatChanged: of many small files that are read at one go, one is no longer what the
// manifest says.
func TestPackOfWhatChanged(t *testing.T) {
	const files = atOnce + 10
	for name, c := range map[string]struct {
		change func(path string) error
		words  string // none: it is served
	}{
		"nothing": {func(string) error { return nil }, ""},
		"written": {func(path string) error { return os.WriteFile(path, []byte("other"), 0o644) }, "changed"},
		"longer":  {func(path string) error { return os.WriteFile(path, []byte("longer"), 0o644) }, "5 bytes and has 6"},
		"shorter": {func(path string) error { return os.Truncate(path, 4) }, "truncated"},
		"gone":    {os.Remove, "no such file"},
		"another": {func(path string) error {
			write(t, path+".new", "hello")
			return os.Rename(path+".new", path)
		}, "another file has its name"},
	} {
		for _, at := range []int{0, files - 1} {
			s, paths := smallFiles(t, slices.Repeat([]string{"hello"}, files)...)
			var failed []error
			s.failed = func(n uint32, err error) {
				if int(n) != at {
					t.Errorf("%s: file %d failed, not %d", name, n, at)
				}
				failed = append(failed, err)
			}
			if err := c.change(paths[at]); err != nil {
				t.Fatal(err)
			}
			before := openFiles(t)
			b := make([]byte, 5*files)
			ok, err := s.Read(wire.Request{Length: 5 * files, Count: files}, b)
			if err != nil {
				t.Error(err)
			}
			switch {
			case c.words == "":
				if !ok || len(failed) > 0 || !bytes.Equal(b, bytes.Repeat([]byte("hello"), files)) {
					t.Errorf("%s: %t, %v: %q", name, ok, failed, b)
				}
			case ok || len(failed) != 1:
				t.Errorf("%s: %t, %v", name, ok, failed)
			default:
				wantCode(t, failed[0], CodeLocalIO, c.words)
			}
			if after := openFiles(t); after != before {
				t.Errorf("%s: %d descriptors, %d before", name, after, before)
			}
		}
	}
}
