package tcpfallback

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// unreadable makes the descriptor that a source has open one that nothing can be read from.
func unreadable(t *testing.T, src *transfer.Source, path string) {
	t.Helper()
	f, err := src.File(wire.Request{Length: extent})
	if err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := unix.Dup3(int(w.Fd()), int(f.Fd()), unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
}

// wantRefused checks that the source has given its file up.
func wantRefused(t *testing.T, src *transfer.Source) {
	t.Helper()
	if f, err := src.File(wire.Request{Length: extent}); f != nil || err != nil {
		t.Errorf("the file has not failed: %v", err)
	}
}

// TestUnreadableFileFails, and not lane after lane until there are none: by sendfile, which
// has promised it when it finds out.
func TestUnreadableFileFails(t *testing.T) {
	path, _ := file(t, extent)
	src := open(t, path)
	unreadable(t, src, path)
	s := startServing(t, "sendfile", src)
	s.ask(wire.Request{ID: 1, Length: extent})
	if got, err := io.ReadAll(s.conn); err != nil || len(got) != wire.HeaderSize {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := <-s.ended; err == nil {
		t.Error("the lane goes on after a promise that it did not keep")
	}
	wantRefused(t, src)
}

// TestUnreadableInTheMiddle: by splice, when a narrow pipe was filled once.
func TestUnreadableInTheMiddle(t *testing.T) {
	path, _ := file(t, extent)
	src := open(t, path)
	s := narrow(t, src)
	s.ask(wire.Request{ID: 1, Length: extent})
	if _, err := io.ReadFull(s.conn, make([]byte, wire.HeaderSize)); err != nil {
		t.Fatal(err)
	}
	unreadable(t, src, path) // the sockets hold less than an extent
	if got, err := io.ReadAll(s.conn); err != nil || len(got) == extent {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := <-s.ended; err == nil {
		t.Error("the lane goes on after half an answer")
	}
	wantRefused(t, src)
}

// noPages serves by mmap, from pages that can't be had, and from a file that can't be read
// either if that is spoilt.
type noPages struct {
	Transport
	spoil func(*transfer.Source)
}

func (n noPages) Answer(ctx context.Context, p transfer.LaneParams, open *wire.OpenLane, answer *wire.LaneAnswer) (transfer.Server, error) {
	s, err := n.Transport.Answer(ctx, p, open, answer)
	if err == nil {
		s.(*server).method = noPagesOut{s.(*server).method.(*mmapOut), n.spoil}
	}
	return s, err
}

type noPagesOut struct {
	*mmapOut
	spoil func(*transfer.Source)
}

func (m noPagesOut) answer(conn net.Conn, src *transfer.Source, r wire.Request) (moved bool, err error) {
	file, err := src.File(r)
	if file == nil || err != nil {
		return false, err
	}
	if _, err := m.win.of(file, r.Offset, int(r.Length)); err != nil {
		return false, err
	}
	if err := unix.Mprotect(m.win.pages, unix.PROT_NONE); err != nil {
		return false, err
	}
	m.spoil(src)
	return m.mmapOut.answer(conn, src, r)
}

// TestUnreadablePages are no truncated file: by mmap, to which the kernel says the same.
func TestUnreadablePages(t *testing.T) {
	path, _ := file(t, extent)
	for words, spoil := range map[string]func(*transfer.Source){
		"truncated":           func(*transfer.Source) {},
		"bad file descriptor": func(src *transfer.Source) { unreadable(t, src, path) },
	} {
		h := newHosts(t)
		h.push, h.pull = noPages{Transport{Method: "mmap"}, spoil}, Transport{}
		sent, received := h.send(h.l.Addr().String(), "", transfer.VerifyBLAKE3, path)
		for _, err := range []error{sent, received} {
			if transfer.CodeOf(err) != transfer.CodeLocalIO || !strings.Contains(err.Error(), words) {
				t.Errorf("%v; want it to say %q", err, words)
			}
		}
	}
}
