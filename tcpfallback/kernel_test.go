package tcpfallback

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// TestLanesWithinAKernel have no congestion control, whatever their address is: those of a container
// beside this one. Others keep what the kernel gives.
func TestLanesWithinAKernel(t *testing.T) {
	_, conn := pair(t)
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	congestion := func() (name string) {
		t.Helper()
		cerr := raw.Control(func(fd uintptr) { name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION) })
		if err := errors.Join(cerr, err); err != nil {
			t.Fatal(err)
		}
		return name
	}
	usual := congestion()
	refused := errors.New("that is all")
	answer := func(open *wire.OpenLane) {
		t.Helper()
		p := params(nil)
		p.Conn = func(_ context.Context, before transfer.Control) (*net.TCPConn, error) {
			if err := before("tcp4", "192.0.2.1:1", raw); err != nil {
				t.Error(err)
			}
			return nil, refused
		}
		if _, err := (Transport{}).Answer(t.Context(), p, open, new(wire.LaneAnswer)); !errors.Is(err, refused) {
			t.Fatal(err)
		}
	}
	open := &wire.OpenLane{TCP: &wire.TCPLane{Ticket: [32]byte{1}}}
	if answer(open); congestion() != usual {
		t.Errorf("%s to a host that does not say what it is", congestion())
	}
	if _, err := (Transport{}).Prepare(t.Context(), nil, params(nil), open); err != nil {
		t.Fatal(err)
	}
	if answer(open); congestion() != unpacedOf(usual) {
		t.Errorf("%s to this host", congestion())
	}
}

// unpacedOf is the congestion control of a lane within a host, where the kernel gives name.
func unpacedOf(name string) string {
	if strings.HasPrefix(name, "bbr") {
		return "reno"
	}
	return name
}

func TestWhichKernelItIs(t *testing.T) {
	id := func(content string) string {
		path := filepath.Join(t.TempDir(), "boot_id")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, other, none := id("one"), id("other"), filepath.Join(t.TempDir(), "none")
	for _, c := range []struct {
		told, read string
		ticket     byte // of who reads; 1 is the one that was told
		same       bool
	}{
		{one, one, 1, true}, {one, id("one"), 1, true}, {one, other, 1, false}, {one, one, 2, false},
		{none, one, 1, false}, {one, none, 1, false}, {none, none, 1, false}, {id(""), id(""), 1, false},
	} {
		l := &wire.TCPLane{Ticket: [32]byte{c.ticket}, Kernel: kernel(c.told, [32]byte{1})}
		if got := sameKernel(c.read, l); got != c.same {
			t.Errorf("%+v: %t", c, got)
		}
	}
}
