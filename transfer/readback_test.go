package transfer

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
)

// rotten is a Directory whose disk turns one bit of a file, between its sync and its name.
type rotten struct {
	*Directory
	t    *testing.T
	name string // of the file
	off  int64
}

func (s *rotten) Begin(id [16]byte) (Destination, error) {
	d, err := s.Directory.Begin(id)
	return &rottenIn{d, s}, err
}

type rottenIn struct {
	Destination
	s *rotten
}

func (d *rottenIn) Commit(list []Whole) []error {
	for _, w := range list {
		p := w.Landing.(*part)
		if p.e.Path != d.s.name {
			continue
		}
		f, err := p.s.root.OpenFile(p.name, os.O_RDWR, 0)
		if p.name == "" {
			f, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", p.descriptor()), os.O_RDWR, 0)
		}
		if err != nil {
			d.s.t.Error(err)
			continue
		}
		b := make([]byte, 1)
		if _, err = f.ReadAt(b, d.s.off); err == nil {
			b[0] ^= 4
			_, err = f.WriteAt(b, d.s.off)
		}
		if err != nil {
			d.s.t.Error(err)
		}
		f.Close()
	}
	return d.Destination.Commit(list)
}

// TestReadbackOfWhatLanded takes every kind of digest again, of files of every kind.
func TestReadbackOfWhatLanded(t *testing.T) {
	for _, verify := range []string{VerifyBLAKE3, VerifyXXH3, VerifyCRC32C} {
		for _, direct := range []Direct{DirectNever, DirectAlways} {
			synctest.Test(t, func(t *testing.T) {
				files := [][2]string{{"large", random(37*mib + 5)}, {"small", random(5000)}, {"empty", ""}, {"extent", random(mib)}, {"middle", random(maxPacked + 1)}, {"holes", string(make([]byte, 3*mib+1))}}
				want := make(map[string]string)
				var bytes int64
				for _, f := range files {
					want[f[0]] = f[1]
					bytes += int64(len(f[1]))
				}
				e := newEngine(t, nil, files...)
				e.Verify = verify
				d := e.Sink.(*Directory)
				d.Readback, d.Direct = true, direct
				s, r := e.run(t, t.Context(), t.Context())
				if s.err != nil || r.err != nil {
					t.Fatal(s.err, r.err)
				}
				if got := r.Storage; got.Readback != bytes {
					t.Errorf("of %d bytes: %+v", bytes, got)
				}
				wantFiles(t, e.dir, want)
			})
		}
	}
}

// TestReadbackFindsWhatADiskDid: the file fails, nothing of it stays, the others land, and
// are known to another try.
func TestReadbackFindsWhatADiskDid(t *testing.T) {
	for name, off := range map[string]int64{"large": 17 * mib, "small": 4000} {
		for _, readback := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				files := [][2]string{{"large", random(18 * mib)}, {"small", random(5000)}, {"good", random(2 * mib)}}
				e := newEngine(t, nil, files...)
				d := e.Sink.(*Directory)
				d.Readback = readback
				e.Sink = &rotten{d, t, name, off}
				s, r := e.run(t, t.Context(), t.Context())
				if !readback { // nobody finds out
					if s.err != nil || r.err != nil {
						t.Error(s.err, r.err)
					}
					return
				}
				want := make(map[string]string)
				for _, f := range files {
					if f[0] != name {
						want[f[0]] = f[1]
					}
				}
				for _, end := range []*end{s, r} {
					wantCode(t, end.err, CodePartial, "1 of 3")
					for _, f := range end.files {
						if f.Err != nil {
							wantCode(t, f.Err, CodeIntegrity, "read back", name)
						}
					}
				}
				if _, err := os.Stat(filepath.Join(e.dir, name)); err == nil {
					t.Errorf("%s has its name", name)
				}
				left, err := filepath.Glob(filepath.Join(e.dir, stagingPrefix+"*"))
				if len(left) != 1 || filepath.Ext(left[0]) != ".ledger" || os.Remove(left[0]) != nil {
					t.Errorf("%v, %v", left, err)
				}
				wantFiles(t, e.dir, want)
			})
		}
	}
}

// TestReadbackOfOneFile: its error is that of the transfer.
func TestReadbackOfOneFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil, [2]string{"f", random(3*mib + 1)})
		d := e.Sink.(*Directory)
		d.Readback = true
		e.Sink = &rotten{d, t, "f", 3 * mib}
		s, r := e.run(t, t.Context(), t.Context())
		wantCode(t, s.err, CodeIntegrity, "is not what landed")
		wantCode(t, r.err, CodeIntegrity, "is not what landed")
		wantFiles(t, e.dir, nil)
	})
}

// TestReadbackNeedsDigests of the sender.
func TestReadbackNeedsDigests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil, [2]string{"f", "words"})
		e.Verify = VerifyNone
		e.Sink.(*Directory).Readback = true
		s, r := e.run(t, t.Context(), t.Context())
		wantCode(t, s.err, CodeUsage, "--readback")
		wantCode(t, r.err, CodeUsage, "--readback")
		wantFiles(t, e.dir, nil)
	})
}
