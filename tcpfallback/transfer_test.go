package tcpfallback

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// hosts are a receiver that listens and a sender's key.
type hosts struct {
	t    *testing.T
	key  transfer.Key
	l    *transfer.Listener
	dir  string
	sink *transfer.Directory

	encrypt, demand bool // --encrypt at the sender, at the receiver
	sockets         transfer.Sockets
	change          func(*transfer.Sender)  // before it sends
	push            transfer.ServeTransport // in the place of a Transport
	pull            transfer.PullTransport
}

func newHosts(t *testing.T) *hosts {
	t.Helper()
	return newHostsOf(t, transfer.Sockets{})
}

func newHostsOf(t *testing.T, k transfer.Sockets) *hosts {
	t.Helper()
	h := &hosts{t: t, key: transfer.NewKey(), dir: t.TempDir()}
	var err error
	if h.l, err = k.Listen(t.Context(), "127.0.0.1:0", h.key); err != nil {
		t.Fatal(err)
	}
	if h.sink, err = transfer.OpenDirectory(h.dir, transfer.OverwriteAlways); err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() { h.l.Serve(context.Background()) })
	t.Cleanup(func() {
		h.l.Close()
		served.Wait()
		h.sink.Close()
	})
	return h
}

type silent struct{}

func (silent) Planned(transfer.Plan)      {}
func (silent) Paths(*transfer.PathReport) {}
func (silent) File(transfer.FileResult)   {}

// send moves files to the receiver, by way of addr.
func (h *hosts) send(addr, method, verify string, paths ...string) (sent, received error) {
	h.t.Helper()
	src, err := transfer.OpenSource(paths, transfer.SourceOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	defer src.Close()
	push, pull := h.push, h.pull
	if push == nil {
		push, pull = Transport{Method: method}, Transport{}
	}
	got := make(chan error, 1)
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	go func() {
		s, err := h.l.Accept(ctx)
		if err == nil {
			r := &transfer.Receiver{Listener: h.l, Sink: h.sink, Transport: transfer.TransportTCP, Encrypt: h.demand, TCP: pull, Observer: silent{}}
			_, err = r.Receive(ctx, s)
		}
		got <- err
	}()
	s := &transfer.Sender{Addr: addr, Key: h.key, Source: src, Transport: transfer.TransportTCP, Op: "auto", Verify: verify, Encrypt: h.encrypt, Sockets: h.sockets,
		TCP: push, Observer: silent{}}
	if h.change != nil {
		h.change(s)
	}
	_, sent = s.Send(ctx)
	return sent, <-got
}

func (h *hosts) wantLanded(content []byte) {
	h.t.Helper()
	if got, err := os.ReadFile(filepath.Join(h.dir, "f")); err != nil || !bytes.Equal(got, content) {
		h.t.Errorf("%d bytes landed, %v; want %d, the same", len(got), err, len(content))
	}
	h.wantNames("f")
}

func (h *hosts) wantNames(want ...string) {
	h.t.Helper()
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, want) {
		h.t.Errorf("in the destination: %v, want %v", names, want)
	}
}

func eachLanding(t *testing.T, name string, f func(t *testing.T, landing string)) {
	for _, l := range Landings {
		t.Run(name+"/"+l, func(t *testing.T) { f(t, l) })
	}
}

func TestFilesArriveByEachLanding(t *testing.T) {
	for _, verify := range []string{transfer.VerifyBLAKE3, transfer.VerifyNone} {
		eachLanding(t, verify, func(t *testing.T, landing string) {
			for _, size := range []int{0, 1, extent, 9*extent + 12345} {
				h := newHosts(t)
				h.push, h.pull = Transport{Method: "auto"}, Transport{Landing: landing}
				path, content := file(t, size)
				if sent, received := h.send(h.l.Addr().String(), "", verify, path); sent != nil || received != nil {
					t.Errorf("%d bytes: %v, %v", size, sent, received)
				}
				h.wantLanded(content)
			}
		})
	}
}

func TestFilesArriveByEachMethod(t *testing.T) {
	eachMethod(t, func(t *testing.T, method string) {
		for _, verify := range []string{transfer.VerifyBLAKE3, transfer.VerifyNone} {
			for _, size := range []int{0, 1, extent, 9*extent + 12345} {
				h := newHosts(t)
				path, content := file(t, size)
				if sent, received := h.send(h.l.Addr().String(), method, verify, path); sent != nil || received != nil {
					t.Errorf("%d bytes, %s: %v, %v", size, verify, sent, received)
				}
				h.wantLanded(content)
			}
		}
	})
}

// TestTransfersLeaveNothingRunning: no goroutine and no descriptor, whether they
// succeed or not.
func TestTransfersLeaveNothingRunning(t *testing.T) {
	h := newHosts(t)
	path, _ := file(t, 3*extent)
	h.send(h.l.Addr().String(), "copy", transfer.VerifyBLAKE3, path) // what is made once is made
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	for i := range 12 {
		p := &proxy{to: h.l.Addr().String()}
		if i == 7 {
			p.lane = func(int, []byte) bool { return false }
		}
		sent, received := h.send(p.start(t), Methods[i%len(Methods)], transfer.VerifyBLAKE3, path)
		p.stop()
		if failed := sent != nil || received != nil; failed != (i == 7) {
			t.Errorf("transfer %d: %v, %v", i, sent, received)
		}
	}
	waitFor(t, "goroutines", func() bool { return runtime.NumGoroutine() <= goroutines })
	waitFor(t, "descriptors", func() bool { return descriptors(t) <= files })
}

// descriptors counts them, but for pipes: those are what the proxies' io.Copy splices
// through, which Go's runtime keeps until a collection.
func descriptors(t *testing.T) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && !strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%s are left:\n%s", what, buf[:runtime.Stack(buf, true)])
		}
	}
}

// proxy is a man in the middle: he sees sessions, which are TLS, and lanes, which
// are clear.
type proxy struct {
	to string
	// lane is called with what a lane carries to the receiver, the nth piece, after
	// its preamble. It may change it; false cuts the connection.
	lane func(n int, b []byte) bool

	l       net.Listener
	running sync.WaitGroup
}

func (p *proxy) start(t *testing.T) (addr string) {
	t.Helper()
	var err error
	if p.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	p.running.Go(func() {
		for {
			conn, err := p.l.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { p.carry(conn) })
		}
	})
	return p.l.Addr().String()
}

// stop stops accepting and waits until both ends have hung up.
func (p *proxy) stop() {
	p.l.Close()
	p.running.Wait()
}

func (p *proxy) carry(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer out.Close()
	var first [1]byte
	if _, err := io.ReadFull(in, first[:]); err != nil {
		return
	}
	out.Write(first[:])
	p.running.Go(func() {
		io.Copy(in, out)
		in.Close()
	})
	if first[0] != wire.LaneMagic || p.lane == nil {
		io.Copy(out, in)
		return
	}
	io.CopyN(out, in, wire.PreambleSize-1)
	buf := make([]byte, 64<<10)
	for n := 0; ; n++ {
		k, err := in.Read(buf)
		if k > 0 && !p.lane(n, buf[:k]) || err != nil {
			return
		}
		if _, err := out.Write(buf[:k]); err != nil {
			return
		}
	}
}

// TestMeddlerOnTheLanes: what he changes is found out, what he cuts is replaced,
// and nothing wrong gets its name.
func TestMeddlerOnTheLanes(t *testing.T) {
	path, content := file(t, 5*extent+7)
	for name, c := range map[string]struct {
		meddle func() func(n int, b []byte) bool
		code   transfer.Code
	}{
		"looks on": {func() func(int, []byte) bool {
			return func(int, []byte) bool { return true }
		}, transfer.CodeOK},
		"flips one bit": {func() func(int, []byte) bool {
			var done atomic.Bool // lanes are carried side by side
			return func(n int, b []byte) bool {
				if n > 3 && len(b) > 10000 && done.CompareAndSwap(false, true) {
					b[5000] ^= 1
				}
				return true
			}
		}, transfer.CodeOK},
		"flips bits in every piece": {func() func(int, []byte) bool {
			return func(n int, b []byte) bool {
				if len(b) > wire.HeaderSize {
					b[len(b)-1] ^= 1
				}
				return true
			}
		}, transfer.CodeIntegrity},
		"cuts a lane": {func() func(int, []byte) bool {
			var cut atomic.Bool
			return func(n int, b []byte) bool {
				return n != 20 || !cut.CompareAndSwap(false, true)
			}
		}, transfer.CodeOK},
		"cuts every lane": {func() func(int, []byte) bool {
			return func(int, []byte) bool { return false }
		}, transfer.CodeConnect},
		"writes headers of his own": {func() func(int, []byte) bool {
			return func(n int, b []byte) bool {
				clear(b[:min(len(b), wire.HeaderSize)])
				return true
			}
		}, transfer.CodeConnect},
	} {
		eachLanding(t, name, func(t *testing.T, landing string) {
			t.Parallel() // most of it waits for broken lanes
			h := newHosts(t)
			h.push, h.pull = Transport{Method: "copy"}, Transport{Landing: landing}
			p := &proxy{to: h.l.Addr().String(), lane: c.meddle()}
			sent, received := h.send(p.start(t), "copy", transfer.VerifyBLAKE3, path)
			p.stop()
			if transfer.CodeOf(sent) != c.code || transfer.CodeOf(received) != c.code {
				t.Errorf("%v, %v; want code %d", sent, received, c.code)
			}
			if c.code == transfer.CodeOK {
				h.wantLanded(content)
			} else {
				h.wantNames()
			}
		})
	}
}

// TestTreesArriveByEachMethod: small files travel in packs, whatever the method, beside
// one that does not, over a lane that is cut once.
func TestTreesArriveByEachMethod(t *testing.T) {
	eachMethod(t, func(t *testing.T, method string) {
		t.Parallel()
		tree := filepath.Join(t.TempDir(), "tree")
		want := make(map[string][]byte)
		for i := range 40 {
			size := 3000 + i
			if i == 20 {
				size = 5*extent + 7
			}
			from, content := file(t, size)
			name := filepath.Join("tree", string(rune('a'+i%4)), filepath.Base(t.TempDir())+string(rune('A'+i)))
			to := filepath.Join(filepath.Dir(tree), name)
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
			want[name] = content
		}
		h := newHosts(t)
		var cut atomic.Bool
		p := &proxy{to: h.l.Addr().String(), lane: func(n int, _ []byte) bool {
			return n != 20 || !cut.CompareAndSwap(false, true)
		}}
		sent, received := h.send(p.start(t), method, transfer.VerifyBLAKE3, tree)
		p.stop()
		if sent != nil || received != nil || !cut.Load() {
			t.Errorf("%v, %v; cut: %t", sent, received, cut.Load())
		}
		for name, content := range want {
			if got, err := os.ReadFile(filepath.Join(h.dir, name)); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s: %d bytes, %v; want %d, the same", name, len(got), err, len(content))
			}
		}
	})
}
