package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// intoPipe makes the receiver's sink a pipe.
func (e *engine) intoPipe(ctx context.Context, w io.Writer) {
	e.Sink = NewPipe(ctx, w, "the test's pipe")
}

// fromStdin makes the source a stream.
func (e *engine) fromStdin(t *testing.T, content string) {
	t.Helper()
	source, err := OpenSource([]string{StdinPath}, SourceOptions{Stdin: strings.NewReader(content)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Close)
	e.Source = source
}

// TestPipeIsInOrder whatever the order in which two paths of different speeds deliver.
func TestPipeIsInOrder(t *testing.T) {
	for _, size := range []int{0, 5, mib, (pipeAhead+8)*mib + 7} {
		for _, verify := range []string{VerifyBLAKE3, VerifyNone} {
			for _, stream := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					content := random(size)
					each := map[string]time.Duration{"one": time.Millisecond, "two": 17 * time.Millisecond}
					e := newEngine(t, func(a *memAnswer) error {
						time.Sleep(each[a.path])
						return nil
					}, [2]string{"f", content})
					e.lane.paths, e.Lanes, e.Verify = []string{"one", "two"}, 2, verify
					if stream {
						e.fromStdin(t, content)
					}
					var out bytes.Buffer
					out.Grow(size)
					e.intoPipe(t.Context(), &out)
					s, r := e.run(t, t.Context(), t.Context())
					if s.err != nil || r.err != nil || out.String() != content {
						t.Errorf("%d bytes, %s, stream %v: %d bytes came, %v, %v", size, verify, stream, out.Len(), s.err, r.err)
					}
				})
			}
		}
	}
}

// TestPipeWaitsForItsReader: for longer than lanes and files may stall, with no more in
// memory than is promised.
func TestPipeWaitsForItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answers atomic.Int64
		content := random((2*pipeAhead + 3) * mib)
		e := newEngine(t, func(*memAnswer) error {
			answers.Add(1)
			return nil
		}, [2]string{"f", content})
		out, w := io.Pipe()
		e.intoPipe(t.Context(), w)
		var got []byte
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			time.Sleep(3 * stallLimit)
			if n := answers.Load(); n != pipeAhead {
				t.Errorf("%d extents were asked for before anything was read", n)
			}
			got, _ = io.ReadAll(out)
		}()
		s, r := e.run(t, t.Context(), t.Context())
		w.Close()
		<-ended
		if s.err != nil || r.err != nil || string(got) != content || len(r.plans) != 1 {
			t.Errorf("%d bytes of %d, plans %+v, %v, %v", len(got), len(content), r.plans, s.err, r.err)
		}
	})
}

// TestPipeWritesNothingDamaged: extents that arrive damaged come again, and everything
// waits for them; one that never comes whole ends the pipe before it.
func TestPipeWritesNothingDamaged(t *testing.T) {
	for _, verify := range []string{VerifyBLAKE3, VerifyXXH3} {
		for _, c := range []struct {
			size, at, times int
			code            Code
		}{
			{(pipeAhead + 8) * mib, 0, 1, CodeOK},
			{(pipeAhead + 8) * mib, 0, maxAttempts - 1, CodeOK},
			{(pipeAhead + 8) * mib, (pipeAhead - 1) * mib, 1, CodeOK},
			{(pipeAhead + 8) * mib, 5 * mib, maxAttempts, CodeIntegrity},
			{100, 0, 1, CodeOK},
			{100, 0, maxAttempts, CodeIntegrity},
		} {
			synctest.Test(t, func(t *testing.T) {
				content := random(c.size)
				e := newEngine(t, flipper(c.times, int64(c.at)), [2]string{"f", content})
				e.Verify = verify
				var out bytes.Buffer
				out.Grow(c.size)
				e.intoPipe(t.Context(), &out)
				s, r := e.run(t, t.Context(), t.Context())
				if CodeOf(s.err) != c.code || CodeOf(r.err) != c.code {
					t.Errorf("%+v: %v, %v", c, s.err, r.err)
				}
				good := content
				if c.code != CodeOK {
					good = content[:c.at]
				}
				if got := out.String(); !strings.HasPrefix(good, got) || c.code == CodeOK && got != good {
					t.Errorf("%+v: %d bytes came, and not those that were sent", c, len(got))
				}
			})
		}
	}
}

// failing is a writer that takes n bytes, and fails when everything that was asked for
// has landed: nothing comes that could meet the error.
type failing struct {
	n   int
	err error
}

func (f *failing) Write(b []byte) (int, error) {
	if f.n -= len(b); f.n < 0 {
		time.Sleep(3 * stallLimit) // by the bubble's clock
		return 0, f.err
	}
	return len(b), nil
}

// TestPipeWhoseReaderEnds fails the transfer, whatever there was still to come.
func TestPipeWhoseReaderEnds(t *testing.T) {
	for _, size := range []int{100, mib, (pipeAhead + 20) * mib} {
		for _, c := range []struct {
			err   error
			words string
		}{{io.ErrClosedPipe, "its reader ended"}, {errors.New("full"), "writing to the test's pipe: full"}} {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, nil, [2]string{"f", random(size)})
				e.intoPipe(t.Context(), &failing{n: min(size-1, 3*mib), err: c.err})
				s, r := e.run(t, t.Context(), t.Context())
				wantCode(t, r.err, CodeLocalIO, c.words)
				wantCode(t, s.err, CodeLocalIO, c.words)
			})
		}
	}
}

// TestPipeIsNotWaitedForWhenStopped: its reader hangs when the receiver is stopped,
// with the file on its way or all here.
func TestPipeIsNotWaitedForWhenStopped(t *testing.T) {
	for _, size := range []int{100, (pipeAhead + 8) * mib} {
		synctest.Test(t, func(t *testing.T) {
			ctx, stop := context.WithCancelCause(t.Context())
			e := newEngine(t, nil, [2]string{"f", random(size)})
			out, w := io.Pipe()
			e.intoPipe(ctx, w)
			time.AfterFunc(2*stallLimit, func() { stop(&Error{Code: 130, Err: errors.New("stopped")}) })
			_, r := e.run(t, t.Context(), ctx)
			wantCode(t, r.err, 130, "stopped")
			out.Close() // the write that hangs ends with its reader
		})
	}
}

// TestOneFileAlone is what a pipe and a name have room for.
func TestOneFileAlone(t *testing.T) {
	for _, named := range []bool{false, true} {
		for what, c := range map[string]struct {
			make  func(t *testing.T, dir string)
			paths []string
			code  Code
			words string
			lands bool
		}{
			"two files":   {func(t *testing.T, dir string) { write(t, dir+"/g", "x") }, []string{"f", "g"}, CodePartial, "takes one file", true},
			"a directory": {func(t *testing.T, dir string) { os.Mkdir(dir+"/d", 0o700) }, []string{"d"}, CodeUsage, "is no file", false},
			"a tree":      {func(t *testing.T, dir string) { os.Mkdir(dir+"/d", 0o700); write(t, dir+"/d/g", "x") }, []string{"d"}, CodeUsage, "is no file", false},
			"two names":   {func(t *testing.T, dir string) { os.Link(dir+"/f", dir+"/g") }, []string{"f", "g"}, CodePartial, "takes one file", true},
		} {
			t.Run(what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := newEngine(t, nil, [2]string{"f", "hello"})
					src := filepath.Dir(e.Source.walk.roots[0])
					c.make(t, src)
					var paths []string
					for _, p := range c.paths {
						paths = append(paths, filepath.Join(src, p))
					}
					var err error
					if e.Source, err = OpenSource(paths, SourceOptions{HardLinks: true}); err != nil {
						t.Fatal(err)
					}
					t.Cleanup(e.Source.Close)
					var out bytes.Buffer
					e.intoPipe(t.Context(), &out)
					if named {
						e.Sink = openNamed(t, filepath.Join(e.dir, "name"))
					}
					s, r := e.run(t, t.Context(), t.Context())
					// What was refused, the sender's own report says; the exit status is that of both.
					wantCode(t, s.err, c.code)
					wantCode(t, r.err, c.code)
					refused := false
					for _, f := range s.files {
						refused = refused || f.Err != nil && strings.Contains(f.Err.Error(), c.words)
					}
					if !refused {
						t.Errorf("nothing says %q: %+v", c.words, s.files)
					}
					want := map[string]string{}
					if c.lands && named {
						want["name"] = "hello"
					}
					wantStagedBut(t, e.dir, want)
					if got := out.String(); !named && got != map[bool]string{true: "hello"}[c.lands] {
						t.Errorf("%q came", got)
					}
				})
			})
		}
	}
}

// wantStagedBut checks what a directory holds beside what may be gone on from.
func wantStagedBut(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	for name, words := range want {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != words {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		os.Remove(filepath.Join(dir, name))
	}
	wantStaged(t, dir)
}

// TestPipeIsForOneTransfer: what a second one sends would follow the first.
func TestPipeIsForOneTransfer(t *testing.T) {
	p := NewPipe(t.Context(), io.Discard, "the test's pipe")
	if _, err := p.Begin([16]byte{1}); err != nil {
		t.Error(err)
	}
	_, err := p.Begin([16]byte{2})
	wantCode(t, err, CodeUsage, "the test's pipe takes one transfer")
}
