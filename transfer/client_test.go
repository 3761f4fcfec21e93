package transfer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// clients joins a client and a receiver that lands what it sends; result waits for that.
func clients(t *testing.T, ctx context.Context) (c *Client, e *engine, result func() *end) {
	t.Helper()
	e = newEngine(t, nil)
	e.Receiver.Sink.(*Directory).overwrite = OverwriteAlways
	a, b := sessions(t)
	s, r := new(end), new(end)
	e.Sender.Observer, e.Receiver.Observer = s, r
	over := make(chan struct{})
	go func() {
		defer close(over)
		r.Result, r.err = e.Receive(t.Context(), b)
	}()
	return e.Sender.open(ctx, a, SourceOptions{}), e, func() *end { <-over; return r }
}

func TestOneSessionCarriesManySends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, e, result := clients(t, t.Context())
		src := t.TempDir()
		tree, file, empty := filepath.Join(src, "tree"), filepath.Join(src, "file"), filepath.Join(src, "empty")
		for _, dir := range []string{"", "/sub", "/sub/deep", "/last"} {
			if err := os.Mkdir(tree+dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		write(t, tree+"/small", "small")
		write(t, tree+"/sub/deep/large", random(3*mib+1))
		write(t, empty, "")
		want := map[string]string{}
		var files int
		var bytes int64
		for n, content := range []string{"first", "second", random(2*mib + 7), ""} { // of one path
			write(t, file, content)
			want["file"] = content
			paths := []string{file}
			counted := 1
			if n > 0 {
				paths = append(paths, tree, empty)
				want["tree/small"], want["tree/sub/deep/large"], want["empty"] = "small", random(3*mib+1), ""
				counted += 3
			}
			got, err := c.Send(t.Context(), paths...)
			if err != nil || got.Files != counted || got.Failed != 0 || got.Plan.Transport != TransportRDMA {
				t.Fatalf("send %d: %+v, %v", n, got, err)
			}
			for name, content := range want { // already: Close has not been called
				if there, err := os.ReadFile(filepath.Join(e.dir, name)); err != nil || string(there) != content {
					t.Errorf("send %d: %s has %d bytes of %d, %v", n, name, len(there), len(content), err)
				}
			}
			if info, err := os.Stat(filepath.Join(e.dir, "tree/last")); n > 0 && (err != nil || info.Mode().Perm() != 0o755) {
				t.Errorf("send %d: the last directory: %v, %v", n, info, err)
			}
			files += got.Files
			bytes += got.Bytes
		}
		all, err := c.Close()
		r := result()
		if err != nil || r.err != nil || all.Files != files || r.Files != files || all.Bytes != bytes || r.Bytes != bytes {
			t.Errorf("all: %+v, %v, the receiver %+v, %v, want %d files of %d bytes", all, err, r.Result, r.err, files, bytes)
		}
		if n := len(e.lane.lanes); n != 1 {
			t.Errorf("%d lanes were opened", n)
		}
		if _, err := c.Send(t.Context(), file); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// TestSendsFailAlone: what one of them could not send is its own error, and the session
// goes on.
func TestSendsFailAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, e, result := clients(t, t.Context())
		src := t.TempDir()
		good, dir := filepath.Join(src, "good"), filepath.Join(src, "taken")
		write(t, good, "good")
		write(t, dir, "a file")
		if _, err := c.Send(t.Context(), filepath.Join(src, "nothing")); CodeOf(err) != CodeLocalIO {
			t.Errorf("no such file: %v", err)
		}
		if err := os.Mkdir(filepath.Join(e.dir, "taken"), 0o755); err != nil {
			t.Fatal(err)
		}
		got, err := c.Send(t.Context(), good, dir)
		if CodeOf(err) != CodePartial || got.Files != 1 || got.Failed != 1 {
			t.Errorf("one of two: %+v, %v", got, err)
		}
		if got, err = c.Send(t.Context(), good); err != nil || got.Files != 1 || got.Failed != 0 {
			t.Errorf("after that: %+v, %v", got, err)
		}
		all, err := c.Close()
		if r := result(); err != nil || all.Files != 2 || all.Failed != 1 || r.Failed != 1 {
			t.Errorf("all: %+v, %v, the receiver %+v", all, err, r.Result)
		}
	})
}

// TestSendThatWaitsForItsTurn is nobody's loss but its caller's when that one wants it no more.
func TestSendThatWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, e, result := clients(t, t.Context())
		file := filepath.Join(t.TempDir(), "file")
		write(t, file, "content")
		goOn := make(chan struct{})
		e.lane.meddle = func(*memAnswer) error {
			<-goOn
			return nil
		}
		first := make(chan error)
		go func() {
			_, err := c.Send(t.Context(), file)
			first <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Send(ctx, file); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the second: %v", err)
		}
		close(goOn)
		if err := <-first; err != nil {
			t.Errorf("the first: %v", err)
		}
		if all, err := c.Close(); err != nil || all.Files != 1 {
			t.Errorf("all: %+v, %v", all, err)
		}
		if r := result(); r.err != nil {
			t.Error(r.err)
		}
	})
}

// TestSendsEndWithTheSession, whoever ends that.
func TestSendsEndWithTheSession(t *testing.T) {
	for name, end := range map[string]func(cancel context.CancelFunc, e *engine){
		"the caller": func(cancel context.CancelFunc, _ *engine) { cancel() },
		"a lane that never answers, then the caller": func(cancel context.CancelFunc, e *engine) {
			e.lane.meddle = func(*memAnswer) error { return errLost }
			cancel()
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, e, result := clients(t, t.Context())
			file := filepath.Join(t.TempDir(), "file")
			write(t, file, "content")
			if _, err := c.Send(t.Context(), file); err != nil {
				t.Fatal(name, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			end(cancel, e)
			write(t, file, "other")
			if _, err := c.Send(ctx, file); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := c.Close(); err == nil {
				t.Errorf("%s: the session ended well", name)
			}
			if r := result(); r.err == nil {
				t.Errorf("%s: the receiver ended well", name)
			}
		})
	}
}

func TestReceiverRefusesABatchInABatch(t *testing.T) {
	a, b := entry(0, "a", 5), entry(1, "b", 5)
	pause := &wire.ManifestEnd{Files: 1, Bytes: 5, More: true}
	for name, messages := range map[string][]wire.Message{
		"an entry before the Done": {a, pause, b},
		"two ends of a batch":      {a, pause, pause},
		"the end before the Done":  {a, pause, &wire.ManifestEnd{Files: 1, Bytes: 5}},
		"a file too many":          {a, b, pause},
	} {
		synctest.Test(t, func(t *testing.T) {
			bad := againstReceiver(t, t.Context(), VerifyBLAKE3, nil)
			bad.say(messages...)
			if end := bad.finish(); !errors.Is(end.err, wire.ErrMalformed) {
				t.Errorf("%s: %v", name, end.err)
			}
			wantFiles(t, bad.dir, nil)
		})
	}
}

// withHostile opens a client whose receiver is hostile, and makes a file to send.
func withHostile(t *testing.T, e *engine) (c *Client, h *hostile, file string) {
	e.Sender.Observer = new(end)
	a, b := sessions(t)
	h = newHostile(t, b)
	c = e.Sender.open(t.Context(), a, SourceOptions{})
	await[*wire.Hello](h)
	h.say(welcome, &wire.Plan{Transport: TransportRDMA})
	file = filepath.Join(t.TempDir(), "file")
	write(t, file, "content")
	return c, h, file
}

// TestClientRefusesWhatNoReceiverSays: a Done for which nothing was sent, or too much.
func TestClientRefusesWhatNoReceiverSays(t *testing.T) {
	for name, done := range map[string]*wire.Done{
		"before anything was sent":       {},
		"of a file that has not settled": {Files: 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, h, file := withHostile(t, newEngine(t, nil))
			sent := make(chan error, 1)
			if done.Files > 0 {
				go func() {
					_, err := c.Send(t.Context(), file)
					sent <- err
				}()
				await[*wire.ManifestEnd](h)
			}
			h.say(done)
			synctest.Wait()
			h.s.Close()
			if _, err := c.Close(); !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("%s: %v", name, err)
			}
			if done.Files > 0 {
				if err := <-sent; !errors.Is(err, wire.ErrMalformed) {
					t.Errorf("%s: the send: %v", name, err)
				}
			}
		})
	}
}

// TestClientTakesNoTotalForASend: the Done of a send counts what that send brought.
func TestClientTakesNoTotalForASend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil)
		e.Verify = VerifyNone
		c, h, file := withHostile(t, e)
		send := func(said uint32, landed *wire.Receipt) error {
			sent := make(chan error, 1)
			go func() {
				_, err := c.Send(t.Context(), file)
				sent <- err
			}()
			await[*wire.ManifestEnd](h)
			h.say(landed, &wire.Done{Files: said})
			return <-sent
		}
		if err := send(1, receipt(0)); err != nil {
			t.Errorf("the first: %v", err)
		}
		if err := send(2, receipt(1)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("the second, of two: %v", err)
		}
		h.s.Close()
		if _, err := c.Close(); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("the session: %v", err)
		}
	})
}
