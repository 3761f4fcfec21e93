package transfer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lukechampine.com/blake3"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

const mib = 1 << 20

func TestFilesLandWhole(t *testing.T) {
	for name, files := range map[string][][2]string{
		"no file":       {},
		"an empty file": {{"empty", ""}},
		"one byte":      {{"byte", "x"}},
		"one extent":    {{"extent", random(DefaultExtentSize)}},
		"many extents":  {{"many", random(40*mib/2 + 17)}},
		"several files": {{"a", random(3*mib + 1)}, {"b", ""}, {"c", random(5)}, {"d", random(mib)}},
	} {
		t.Run(name, func(t *testing.T) {
			want := make(map[string]string)
			var bytes int64
			for _, f := range files {
				want[f[0]] = f[1]
				bytes += int64(len(f[1]))
			}
			s, r := transfer(t, nil, want, files...)
			for _, e := range []*end{s, r} {
				if e.err != nil || e.Files != len(files) || e.Failed != 0 || e.Bytes != bytes {
					t.Errorf("%d files, %d failed, %d bytes, %v", e.Files, e.Failed, e.Bytes, e.err)
				}
				if len(e.plans) != 1 || e.plans[0].Transport != TransportRDMA {
					t.Errorf("plans: %+v", e.plans)
				}
				for _, f := range e.files {
					if sum := Digest(blake3.Sum256([]byte(want[filepath.Base(f.Path)]))); f.Digest == nil || *f.Digest != sum {
						t.Errorf("receipt of %s: %x, want %x", f.Path, f.Digest, sum)
					}
				}
				if len(e.files) != len(files) {
					t.Errorf("%d files were reported", len(e.files))
				}
			}
		})
	}
}

// flipper damages the first n answers that carry the extent at off.
func flipper(n int, off int64) func(*memAnswer) error {
	return func(a *memAnswer) error {
		if a.r.Offset == off && n > 0 {
			n--
			a.p[len(a.p)/2] ^= 0x10
		}
		return nil
	}
}

func TestDamagedExtentIsAskedForAgain(t *testing.T) {
	for n := 1; n < maxAttempts; n++ {
		file := random(3*mib + 5)
		s, r := transfer(t, flipper(n, mib), map[string]string{"f": file}, [2]string{"f", file})
		if s.err != nil || r.err != nil {
			t.Errorf("damaged %d times: %v, %v", n, s.err, r.err)
		}
	}
}

func TestAlwaysDamagedIsAnIntegrityError(t *testing.T) {
	s, r := transfer(t, flipper(1000, 2*mib), nil, [2]string{"f", random(3 * mib)})
	wantCode(t, s.err, CodeIntegrity, "damaged")
	wantCode(t, r.err, CodeIntegrity, "damaged")
}

// TestOneFailedFileOfSeveralIsPartial, and the next try sends that one alone.
func TestOneFailedFileOfSeveralIsPartial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := random(2 * mib)
		damage := true
		meddle := func(a *memAnswer) error {
			if a.r.File == 1 && damage {
				a.p[0] ^= 1
			}
			return nil
		}
		e := newEngine(t, meddle, [2]string{"a", file}, [2]string{"b", file}, [2]string{"c", file})
		paths := e.Source.walk.roots
		s, r := e.run(t, t.Context(), t.Context())
		for _, e := range []*end{s, r} {
			wantCode(t, e.err, CodePartial, "1 of 3")
			if e.Files != 2 || e.Failed != 1 || e.Bytes != 4*mib {
				t.Errorf("%+v", e.Result)
			}
		}
		damage = false
		var err error
		if e.Source, err = OpenSource(paths, SourceOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Source.Close)
		s, r = e.run(t, t.Context(), t.Context())
		if s.err != nil || r.err != nil || r.Files != 3 || r.Resumed != 4*mib {
			t.Errorf("%+v, %v, %v", r.Result, s.err, r.err)
		}
		wantFiles(t, e.dir, map[string]string{"a": file, "b": file, "c": file})
	})
}

// TestBrokenLaneIsReplaced: what it had taken and not landed travels over the
// next one.
func TestBrokenLaneIsReplaced(t *testing.T) {
	broke := errors.New("a cable was pulled")
	file := random(40 * mib / 2)
	for _, after := range []int{0, 1, 7, 19} {
		meddle := func(a *memAnswer) error {
			if a.lane == 1 && a.nth == after {
				return broke
			}
			return nil
		}
		s, r := transfer(t, meddle, map[string]string{"f": file}, [2]string{"f", file})
		if s.err != nil || r.err != nil {
			t.Errorf("after %d extents: %v, %v", after, s.err, r.err)
		}
		if n := len(r.plans); n != 2 || r.plans[1].Transport != TransportTCP || !strings.Contains(r.plans[1].Reason, "rdma lane lost") {
			t.Errorf("plans: %+v", r.plans)
		}
	}
}

func TestLanesThatAlwaysBreakEndTheTransfer(t *testing.T) {
	meddle := func(a *memAnswer) error { return errors.New("a cable was pulled") }
	s, r := transfer(t, meddle, nil, [2]string{"f", random(mib)})
	wantCode(t, r.err, CodeConnect, "lanes broke")
	wantCode(t, s.err, CodeConnect, "lanes broke")
}

// TestRequiredRDMAIsNotReplaced at either end's wish.
func TestRequiredRDMAIsNotReplaced(t *testing.T) {
	for _, who := range []string{"sender", "receiver"} {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine(t, func(*memAnswer) error { return errors.New("pulled") }, [2]string{"f", "hello"})
			if who == "sender" {
				e.Sender.Transport = TransportRDMA
			} else {
				e.Receiver.Transport = TransportRDMA
			}
			s, r := e.run(t, t.Context(), t.Context())
			wantCode(t, s.err, CodeNoRDMA, "lost")
			wantCode(t, r.err, CodeNoRDMA, "lost")
			wantFiles(t, e.dir, nil)
		})
	}
}

func TestPolicy(t *testing.T) {
	for _, c := range []struct {
		recv, send string
		want       string
		code       Code
	}{
		{TransportAuto, TransportAuto, TransportRDMA, CodeOK},
		{TransportTCP, TransportAuto, TransportTCP, CodeOK},
		{TransportAuto, TransportTCP, TransportTCP, CodeOK},
		{TransportTCP, TransportTCP, TransportTCP, CodeOK},
		{TransportRDMA, TransportAuto, TransportRDMA, CodeOK},
		{TransportTCP, TransportRDMA, "", CodeNoRDMA},
		{TransportRDMA, TransportTCP, "", CodeNoRDMA},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine(t, nil, [2]string{"f", "hello"})
			e.Receiver.Transport, e.Sender.Transport = c.recv, c.send
			s, r := e.run(t, t.Context(), t.Context())
			if CodeOf(s.err) != c.code || CodeOf(r.err) != c.code || r.Plan.Transport != c.want || s.Plan.Transport != c.want {
				t.Errorf("receiver %s, sender %s: %q, %v; %q, %v", c.recv, c.send, r.Plan.Transport, r.err, s.Plan.Transport, s.err)
			}
		})
	}
}

// TestLaneThatNeverAnswersIsReplaced: the peer lives, its lane hangs.
func TestLaneThatNeverAnswersIsReplaced(t *testing.T) {
	file := random(20 * mib)
	meddle := func(a *memAnswer) error {
		if a.lane == 1 && a.nth >= 3 {
			return errLost
		}
		return nil
	}
	s, r := transfer(t, meddle, map[string]string{"f": file}, [2]string{"f", file})
	if s.err != nil || r.err != nil {
		t.Error(s.err, r.err)
	}
	if n := len(r.plans); n != 2 || !strings.Contains(r.plans[1].Reason, "storage hangs") {
		t.Errorf("plans: %+v", r.plans)
	}
}

// TestForgedRefusalDoesNotHang: a man in the middle on a clear lane answers that a
// file has failed, of which the sender knows nothing.
func TestForgedRefusalDoesNotHang(t *testing.T) {
	meddle := func(a *memAnswer) error {
		a.ok = a.r.Offset != mib
		return nil
	}
	s, r := transfer(t, meddle, nil, [2]string{"f", random(3 * mib)})
	wantCode(t, s.err, CodeConnect, "has not said")
	wantCode(t, r.err, CodeConnect, "has not said")
}

// TestDivertedRequestDoesNotHang: he makes the sender serve another extent than
// was asked for, over and over.
func TestDivertedRequestDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil, [2]string{"f", random(3 * mib)})
		e.lane.divert = func(r *wire.Request) {
			if r.Offset == mib {
				r.Offset = 0
			}
		}
		s, r := e.run(t, t.Context(), t.Context())
		wantCode(t, s.err, CodeIntegrity, "damaged")
		wantCode(t, r.err, CodeIntegrity, "damaged")
		wantFiles(t, e.dir, nil)
	})
}

// TestSourceThatFailsOnTheWay is truncated, or changes, when its first extent has
// left.
func TestSourceThatFailsOnTheWay(t *testing.T) {
	for words, change := range map[string]func(path string) error{
		"truncated": func(p string) error { return os.Truncate(p, mib+5) },
		"changed":   func(p string) error { return os.Chtimes(p, time.Time{}, time.Unix(5, 5)) },
	} {
		synctest.Test(t, func(t *testing.T) {
			var path string
			meddle := func(a *memAnswer) error {
				if a.nth == 0 {
					return change(path)
				}
				return nil
			}
			e := newEngine(t, meddle, [2]string{"f", random(20 * mib)})
			path = e.Source.walk.roots[0]
			s, r := e.run(t, t.Context(), t.Context())
			wantCode(t, s.err, CodeLocalIO, words)
			wantCode(t, r.err, CodeLocalIO, words)
			wantFiles(t, e.dir, nil)
		})
	}
}

func TestDestinationsThatExistFailAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var files [][2]string
		want := make(map[string]string)
		for i := range 10 {
			files = append(files, [2]string{fmt.Sprint("f", i), random(mib + i)})
			want[files[i][0]] = files[i][1]
		}
		e := newEngine(t, nil, files...)
		for _, f := range files[:4] {
			write(t, filepath.Join(e.dir, f[0]), "precious")
			want[f[0]] = "precious"
		}
		s, r := e.run(t, t.Context(), t.Context())
		for _, end := range []*end{s, r} {
			wantCode(t, end.err, CodePartial, "4 of 10", "exists")
			if end.Files != 6 || end.Failed != 4 {
				t.Errorf("%+v", end.Result)
			}
		}
		wantFiles(t, e.dir, want)
	})
}

func TestNothingVerifiedOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := random(2*mib + 1)
		e := newEngine(t, nil, [2]string{"f", file})
		e.Verify = VerifyNone
		s, r := e.run(t, t.Context(), t.Context())
		for _, end := range []*end{s, r} {
			if end.err != nil || end.Files != 1 || len(end.files) != 1 || end.files[0].Digest != nil {
				t.Errorf("%v, %+v", end.err, end.files)
			}
		}
		wantFiles(t, e.dir, map[string]string{"f": file})
	})
}
