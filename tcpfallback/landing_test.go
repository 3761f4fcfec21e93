package tcpfallback

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/tcpfallback/compress"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// files is a feed whose extents have files.
type files struct {
	*feed
	places    map[uint32]*os.File // by the extent's file
	placed    []transfer.Extent
	displaced map[transfer.Extent]error
	verifying bool
	onPlace   func()
	writing   time.Duration
}

func (f *files) Verifying() bool { return f.verifying }

func (f *files) Place(e transfer.Extent) *os.File {
	if f.onPlace != nil {
		f.onPlace()
	}
	return f.places[e.File]
}

func (f *files) Placed(e transfer.Extent, b []byte, writing time.Duration) error {
	f.writing += writing
	f.placed = append(f.placed, e)
	if len(b) != e.Len {
		return errors.New("no room for the extent")
	}
	return f.full
}

func (f *files) Displaced(e transfer.Extent, err error) { f.displaced[e] = err }

func newFiles(extents ...transfer.Extent) *files {
	f := &files{feed: newFeed(0), places: make(map[uint32]*os.File), displaced: make(map[transfer.Extent]error)}
	f.todo = extents
	return f
}

// pulledInto is pulled by a way in.
func pulledInto(t *testing.T, ctx context.Context, landing string, f transfer.Feed, sender func(conn *net.TCPConn)) error {
	t.Helper()
	mine, theirs := pair(t)
	pending, err := Transport{Landing: landing}.Prepare(ctx, nil, params(theirs), opening())
	if err != nil {
		t.Fatal(err)
	}
	puller, err := pending.Connect(ctx, &wire.LaneAnswer{Method: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	played := make(chan struct{})
	go func() {
		defer close(played)
		sender(mine)
		mine.Close()
	}()
	err = puller.Pull(ctx, f)
	puller.Close()
	<-played
	return err
}

// eachWayIn is for those that the program sees nothing of.
func eachWayIn(t *testing.T, f func(t *testing.T, landing string)) {
	for _, l := range Landings[2:] {
		t.Run(l, func(t *testing.T) { f(t, l) })
	}
}

// serveAll answers every request with bytes of its number.
func serveAll(conn *net.TCPConn) {
	for {
		r, err := takeRequest(conn)
		if err != nil {
			return
		}
		reply(conn, wire.Answer{ID: r.ID, Length: r.Length}, r.Length)
	}
}

// memory is a file of some size that can't be written beyond it.
func memory(t *testing.T, size int64) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("landing", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "landing")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_GROW); err != nil {
		t.Fatal(err)
	}
	return f
}

// scratch is an ordinary empty file.
func scratch(t *testing.T) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestLandsInFiles(t *testing.T) {
	eachWayIn(t, func(t *testing.T, landing string) {
		f := newFiles(transfer.Extent{File: 1, Off: extent, Len: extent}, transfer.Extent{File: 1, Off: 0, Len: extent},
			transfer.Extent{File: 2, Off: 0, Len: 300}, transfer.Extent{File: 1, Off: 2 * extent, Len: 77}, transfer.Extent{File: 3, Off: 100, Len: extent - 1})
		f.places[1], f.places[3] = scratch(t), scratch(t)
		if err := pulledInto(t, t.Context(), landing, f, serveAll); err != nil {
			t.Fatal(err)
		}
		if turns := f.writing > 0; turns != (landing == "splice") { // which alone has the kernel's lock of the file while it copies
			t.Errorf("lanes are said to take turns for %v", f.writing)
		}
		for file, want := range map[uint32][]byte{
			1: append(append(bytes.Repeat([]byte{1}, extent), bytes.Repeat([]byte{0}, extent)...), bytes.Repeat([]byte{3}, 77)...),
			3: append(make([]byte, 100), bytes.Repeat([]byte{4}, extent-1)...),
		} {
			got := make([]byte, len(want)+1)
			if n, err := f.places[file].ReadAt(got, 0); n != len(want) || err != io.EOF || !bytes.Equal(got[:n], want) {
				t.Errorf("file %d: %d bytes, %v; want %d, others", file, n, err, len(want))
			}
		}
		if len(f.placed) != 4 || len(f.landed) != 1 || len(f.landed[transfer.Extent{File: 2, Len: 300}]) != 300 || len(f.displaced) != 0 {
			t.Errorf("placed %v, landed %d, displaced %v", f.placed, len(f.landed), f.displaced)
		}
	})
}

// TestWhatIsForNobodyIsDropped: as many bytes as it has, and nothing of what follows.
func TestWhatIsForNobodyIsDropped(t *testing.T) {
	f := newFiles(transfer.Extent{File: 1, Len: extent}, transfer.Extent{File: 1, Off: extent, Len: 77}, transfer.Extent{File: 2, Len: extent}, transfer.Extent{File: 1, Len: extent})
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	f.places[1], f.places[2] = null, scratch(t)
	if !nowhere(null) || nowhere(f.places[2]) {
		t.Error("what is for nobody is not told from what is kept")
	}
	if err := pulledInto(t, t.Context(), "auto", f, serveAll); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(f.places[2].Name())
	if len(f.placed) != 4 || err != nil || !bytes.Equal(got, bytes.Repeat([]byte{2}, extent)) {
		t.Errorf("placed %v; %d bytes, or others, %v", f.placed, len(got), err)
	}
}

// TestFileThatTakesNoMore fails by itself: the lane goes on with the next one.
func TestFileThatTakesNoMore(t *testing.T) {
	eachWayIn(t, func(t *testing.T, landing string) {
		first, second, third := transfer.Extent{File: 1, Len: extent}, transfer.Extent{File: 2, Len: extent}, transfer.Extent{File: 3, Len: extent}
		f := newFiles(first, second, third)
		f.places[1], f.places[2], f.places[3] = memory(t, extent/2), scratch(t), scratch(t)
		f.places[2].Close()
		if err := pulledInto(t, t.Context(), landing, f, serveAll); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(f.displaced[first], unix.EPERM) || !errors.Is(f.displaced[second], errSettled) || len(f.displaced) != 2 {
			t.Errorf("displaced: %v", f.displaced)
		}
		got, err := os.ReadFile(f.places[3].Name())
		if len(f.placed) != 1 || f.placed[0] != third || err != nil || !bytes.Equal(got, bytes.Repeat([]byte{2}, extent)) {
			t.Errorf("placed %v, %d bytes, %v", f.placed, len(got), err)
		}
	})
}

// TestFileThatHasNoWayIn: what was moved until that is found out, and all that follows,
// lands as copy does. /dev/full can't be spliced into, mapped or made room in.
func TestFileThatHasNoWayIn(t *testing.T) {
	eachWayIn(t, func(t *testing.T, landing string) {
		first, second := transfer.Extent{File: 1, Len: extent}, transfer.Extent{File: 2, Len: extent}
		f := newFiles(first, second)
		full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer full.Close()
		f.places[1], f.places[2] = full, scratch(t)
		if err := pulledInto(t, t.Context(), landing, f, serveAll); err != nil {
			t.Fatal(err)
		}
		for i, e := range []transfer.Extent{first, second} {
			if !bytes.Equal(f.landed[e], bytes.Repeat([]byte{byte(i)}, extent)) {
				t.Errorf("%v: %d bytes landed", e, len(f.landed[e]))
			}
		}
		if len(f.placed)+len(f.displaced) != 0 {
			t.Errorf("placed %v, displaced %v", f.placed, f.displaced)
		}
	})
}

// TestNothingLandsLate: a lane that has ended in the middle of an extent writes nothing of
// what comes after that, and says nothing of the extent.
func TestNothingLandsLate(t *testing.T) {
	eachWayIn(t, func(t *testing.T, landing string) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		e := transfer.Extent{File: 1, Len: extent}
		f := newFiles(e)
		f.places[1] = scratch(t)
		f.onPlace = cancel
		err := pulledInto(t, ctx, landing, f, func(conn *net.TCPConn) {
			r, err := takeRequest(conn)
			if err != nil {
				t.Error(err)
				return
			}
			reply(conn, wire.Answer{ID: r.ID, Length: r.Length}, 1000)
			io.Copy(io.Discard, conn) // until the puller has hung up
			conn.Write(bytes.Repeat([]byte{9}, extent))
		})
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		got, err := os.ReadFile(f.places[1].Name())
		if err != nil || bytes.IndexByte(got, 9) >= 0 {
			t.Errorf("%v, or something of it is there", err)
		}
		if len(f.placed)+len(f.landed)+len(f.displaced) != 0 {
			t.Errorf("placed %v, landed %d, displaced %v", f.placed, len(f.landed), f.displaced)
		}
	})
}

// TestLaneThatBreaksWhileItLands ends, and says nothing of the extent.
func TestLaneThatBreaksWhileItLands(t *testing.T) {
	eachWayIn(t, func(t *testing.T, landing string) {
		f := newFiles(transfer.Extent{File: 1, Len: extent})
		f.places[1] = scratch(t)
		err := pulledInto(t, t.Context(), landing, f, func(conn *net.TCPConn) {
			if r, err := takeRequest(conn); err == nil {
				reply(conn, wire.Answer{ID: r.ID, Length: r.Length}, r.Length/2)
			}
		})
		if err == nil || len(f.placed)+len(f.landed)+len(f.displaced) != 0 {
			t.Errorf("%v; placed %v, landed %d, displaced %v", err, f.placed, len(f.landed), f.displaced)
		}
	})
}

// TestAutoLandsUnseenWhatNobodyVerifies, and nothing else.
func TestAutoLandsUnseenWhatNobodyVerifies(t *testing.T) {
	for _, verifying := range []bool{false, true} {
		f := newFiles(transfer.Extent{File: 1, Len: extent})
		f.places[1] = scratch(t)
		f.verifying = verifying
		if err := pulledInto(t, t.Context(), "auto", f, serveAll); err != nil {
			t.Fatal(err)
		}
		if len(f.placed) == 0 != verifying || len(f.landed) == 1 != verifying {
			t.Errorf("verifying %t: placed %v, landed %d", verifying, f.placed, len(f.landed))
		}
	}
}

// TestCompressedExtentsAreSeen: they are decompressed on the way, also between others.
func TestCompressedExtentsAreSeen(t *testing.T) {
	eachWayIn(t, func(t *testing.T, landing string) {
		f := newFiles(transfer.Extent{File: 1, Len: extent}, transfer.Extent{File: 1, Off: extent, Len: extent})
		f.places[1] = scratch(t)
		zeroes := make([]byte, extent)
		out, chooser := make([]byte, compress.Bound(extent)), compress.NewChooser(compress.Zstd)
		err := pulledInto(t, t.Context(), landing, f, func(conn *net.TCPConn) {
			for i := range 2 {
				r, err := takeRequest(conn)
				if err != nil {
					t.Error(err)
					return
				}
				if i == 1 {
					reply(conn, wire.Answer{ID: r.ID, Length: r.Length}, r.Length)
					continue
				}
				chooser.Start()
				p, _ := chooser.Payload(out, zeroes)
				var head [wire.HeaderSize]byte
				a := wire.Answer{ID: r.ID, Status: wire.StatusCompressed, Length: uint32(len(p))}
				a.Put(head[:])
				conn.Write(append(head[:], p...))
			}
			takeRequest(conn)
		})
		if err != nil || !bytes.Equal(f.landed[transfer.Extent{File: 1, Len: extent}], zeroes) || len(f.placed) != 1 || f.placed[0].Off != extent {
			t.Errorf("%v; placed %v, landed %d", err, f.placed, len(f.landed))
		}
	})
}

// TestPipesAreClosed, however a lane ends.
func TestPipesAreClosed(t *testing.T) {
	before := pipes(t)
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for name, c := range map[string]struct {
		file   *os.File
		sender func(*net.TCPConn)
		ok     bool
	}{
		"well":                          {scratch(t), serveAll, true},
		"after a file without a way in": {full, serveAll, true},
		"by the peer":                   {scratch(t), func(*net.TCPConn) {}, false},
	} {
		f := newFiles(transfer.Extent{File: 1, Len: extent})
		f.places[1] = c.file
		if err := pulledInto(t, t.Context(), "splice", f, c.sender); (err == nil) != c.ok {
			t.Errorf("ended %s: %v", name, err)
		}
		if n := pipes(t); n > before {
			t.Errorf("ended %s: %d ends of pipes are open, %d were before", name, n, before)
		}
	}
}

// pipes counts the ends of pipes that this process has open.
func pipes(t *testing.T) (n int) {
	t.Helper()
	const dir = "/proc/self/fd/"
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink(dir + e.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}

// TestLandingIsToldAsUsed, where it can't be what was asked for.
func TestLandingIsToldAsUsed(t *testing.T) {
	for name, c := range map[string]struct {
		conn    net.Conn
		landing string
		unfit   bool
		want    string
	}{
		"as asked":       {new(net.TCPConn), "mmap", false, " landing=mmap"},
		"not possible":   {new(net.TCPConn), "mmap", true, " landing=copy"},
		"encrypted":      {new(secured), "splice", false, " landing=copy"},
		"up to the lane": {new(net.TCPConn), "auto", true, ""},
	} {
		p := &puller{conn: c.conn, landing: c.landing}
		p.unfit.Store(c.unfit)
		if got := strings.TrimPrefix(p.Describe(), describe(c.conn, "")); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
