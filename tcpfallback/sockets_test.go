package tcpfallback

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// option reads one back. Of those that connections negotiate it gives whether they kept to
// what was set.
type option struct {
	name string
	set  SocketOptions
	get  func(fd int) (int, error)
	want int
	both bool // the end that did not set it may have it too
}

func intOption(level, opt int) func(int) (int, error) {
	return func(fd int) (int, error) { return unix.GetsockoptInt(fd, level, opt) }
}

var options = []option{
	{"send buffer", SocketOptions{SendBuffer: 50_000}, intOption(unix.SOL_SOCKET, unix.SO_SNDBUF), 100_000, false},
	{"receive buffer", SocketOptions{ReceiveBuffer: 60_000}, intOption(unix.SOL_SOCKET, unix.SO_RCVBUF), 120_000, false},
	{"congestion", SocketOptions{Congestion: "reno"}, func(fd int) (int, error) {
		name, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		return strings.Index(name, "reno"), err
	}, 0, true},
	{"mss", SocketOptions{MSS: 500}, func(fd int) (int, error) {
		n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG)
		return max(0, n-500), err // less, by what TCP's own options take
	}, 0, true},
	{"dscp", SocketOptions{DSCP: 46}, intOption(unix.IPPROTO_IP, unix.IP_TOS), 46 << 2, false},
	{"pacing", SocketOptions{Pacing: 5 << 32}, func(fd int) (int, error) {
		n, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE)
		return int(n), err
	}, 5 << 32, false},
	{"user time-out", SocketOptions{UserTimeout: 7 * time.Second}, intOption(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT), 7000, false},
	{"notsent", SocketOptions{NotSentLowat: 16 << 10}, intOption(unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT), 16 << 10, false},
}

// check compares a connection's option with what was set.
func (o option) check(t *testing.T, conn syscall.Conn, set bool) {
	t.Helper()
	if !set && o.both {
		return
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	var got int
	if cerr := raw.Control(func(fd uintptr) { got, err = o.get(int(fd)) }); cerr != nil || err != nil {
		t.Errorf("%s: %v, %v", o.name, cerr, err)
	}
	if (got == o.want) != set {
		t.Errorf("%s: set %t, is %d, to be %d", o.name, set, got, o.want)
	}
}

// lanesOf records the connections of a transport's lanes.
type lanesOf struct {
	Transport
	seen func(*net.TCPConn)
}

func (l lanesOf) watch(p transfer.LaneParams) transfer.LaneParams {
	dial := p.Conn
	p.Conn = func(ctx context.Context, control transfer.Control) (*net.TCPConn, error) {
		c, err := dial(ctx, control)
		if err == nil {
			l.seen(c)
		}
		return c, err
	}
	return p
}

func (l lanesOf) Prepare(ctx context.Context, h *wire.Hello, p transfer.LaneParams, o *wire.OpenLane) (transfer.PendingPuller, error) {
	return l.Transport.Prepare(ctx, h, l.watch(p), o)
}

func (l lanesOf) Answer(ctx context.Context, p transfer.LaneParams, o *wire.OpenLane, a *wire.LaneAnswer) (transfer.Server, error) {
	return l.Transport.Answer(ctx, l.watch(p), o, a)
}

// TestOptionsReachLanes, of the end whose user set them, and nobody else's.
func TestOptionsReachLanes(t *testing.T) {
	path, content := file(t, extent)
	for _, o := range options {
		for _, here := range []bool{false, true} { // at the sender, at the receiver
			k := transfer.Sockets{Network: "tcp4", Control: o.set.Control}
			var mine, theirs transfer.Sockets
			if here {
				theirs = k
			} else {
				mine = k
				mine.Bind = netip.AddrFrom4([4]byte{127, 0, 0, 9})
			}
			h := newHostsOf(t, theirs)
			h.sockets = mine
			var mu sync.Mutex
			var from []string
			h.push = lanesOf{seen: func(c *net.TCPConn) {
				o.check(t, c, !here)
			}}
			h.pull = lanesOf{seen: func(c *net.TCPConn) {
				mu.Lock()
				defer mu.Unlock()
				from = append(from, c.RemoteAddr().(*net.TCPAddr).IP.String())
				o.check(t, c, here)
			}}
			if sent, received := h.send(h.l.Addr().String(), "auto", transfer.VerifyNone, path); sent != nil || received != nil {
				t.Errorf("%s: %v, %v", o.name, sent, received)
			}
			h.wantLanded(content)
			if want := map[bool]string{false: "127.0.0.9", true: "127.0.0.1"}[here]; len(from) != 1 || from[0] != want {
				t.Errorf("lanes from %v, want %s", from, want)
			}
		}
	}
}

// TestFastOpen is set on what dials, and refused to what listens where the kernel would
// take it and do nothing.
func TestFastOpen(t *testing.T) {
	k := transfer.Sockets{Control: SocketOptions{FastOpenDial: true}.Control}
	h := newHosts(t)
	h.sockets = k
	path, content := file(t, extent)
	h.push = lanesOf{seen: func(c *net.TCPConn) {
		option{name: "fast open", get: intOption(unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT), want: 1}.check(t, c, true)
	}}
	h.pull = Transport{}
	if sent, received := h.send(h.l.Addr().String(), "auto", transfer.VerifyNone, path); sent != nil || received != nil {
		t.Errorf("%v, %v", sent, received)
	}
	h.wantLanded(content)

	for value, ok := range map[string]bool{"3\n": true, "2\n": true, "0x602\n": true, "1\n": false, "0\n": false, "\n": false} {
		if err := mayFastOpen(value); (err == nil) != ok {
			t.Errorf("%q: %v", value, err)
		}
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	now, err := os.ReadFile("/proc/sys/net/ipv4/tcp_fastopen")
	if err != nil {
		t.Fatal(err)
	}
	err = SocketOptions{FastOpenListen: true}.set(fd, "tcp4")
	if mayFastOpen(string(now)) != nil {
		if transfer.CodeOf(err) != transfer.CodeUsage || !strings.Contains(err.Error(), "--fast-open: ") || !strings.Contains(err.Error(), "tcp_fastopen=3") {
			t.Errorf("listeners can't: %v", err)
		}
	} else if n, gerr := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN); err != nil || gerr != nil || n == 0 {
		t.Errorf("%v, %v: %d may wait", err, gerr, n)
	}
}

// TestBothProtocolsAreMarked where a socket may speak both.
func TestBothProtocolsAreMarked(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := (SocketOptions{DSCP: 10}).set(fd, "tcp6"); err != nil {
		t.Fatal(err)
	}
	for _, get := range []func(int) (int, error){intOption(unix.IPPROTO_IP, unix.IP_TOS), intOption(unix.IPPROTO_IPV6, unix.IPV6_TCLASS)} {
		if got, err := get(fd); got != 40 || err != nil {
			t.Errorf("%d, %v", got, err)
		}
	}
}

// TestOptionsThatCannotBeHad are named, with the mend, whoever makes the socket.
func TestOptionsThatCannotBeHad(t *testing.T) {
	available, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o     SocketOptions
		words []string
	}{
		{SocketOptions{Congestion: "smoke"}, []string{"--congestion smoke", "modprobe tcp_smoke", "there are: ", strings.Fields(string(available))[0]}},
		{SocketOptions{MSS: 10}, []string{"--mss 10", "from 88 to 32767"}},
		{SocketOptions{NotSentLowat: 1, UserTimeout: -time.Second}, []string{"--user-timeout -1s"}},
	} {
		k := transfer.Sockets{Control: c.o.Control}
		_, listening := k.Listen(t.Context(), "127.0.0.1:0", transfer.NewKey())
		h := newHosts(t)
		path, _ := file(t, 1)
		src, err := transfer.OpenSource([]string{path}, transfer.SourceOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, dialling := (&transfer.Sender{Addr: h.l.Addr().String(), Key: h.key, Source: src, Verify: transfer.VerifyNone, Sockets: k, Observer: silent{}}).Send(t.Context())
		src.Close()
		for _, err := range []error{listening, dialling} {
			if transfer.CodeOf(err) != transfer.CodeUsage {
				t.Errorf("%+v: %v, code %d", c.o, err, transfer.CodeOf(err))
				continue
			}
			for _, w := range c.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%+v: %v does not say %q", c.o, err, w)
				}
			}
		}
	}
}

// TestBufferThatTheKernelCutsIsAnError: without CAP_NET_ADMIN it would go down to its bound
// and say nothing.
func TestBufferThatTheKernelCutsIsAnError(t *testing.T) {
	a, _ := pair(t)
	raw, err := a.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		const noForce = unix.SO_RCVLOWAT // takes any size, and is no buffer's
		if err = setBuffer(int(fd), noForce, unix.SO_SNDBUF, 900<<20); err == nil || !strings.Contains(err.Error(), "the kernel allows ") {
			t.Errorf("900 MiB: %v", err)
		}
		if err = setBuffer(int(fd), unix.SO_PEERCRED, unix.SO_SNDBUF, 1<<12); !errors.Is(err, unix.ENOPROTOOPT) {
			t.Errorf("%v", err)
		}
	})
}

// TestNothingPacesWithinOneHost, unless its user wants it so.
func TestNothingPacesWithinOneHost(t *testing.T) {
	control := func(c *net.TCPConn) (name string) {
		raw, err := c.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) {
				name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	_, usually := pair(t)
	usual := control(usually)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range []struct {
		chosen, want string
	}{{"", unpacedOf(usual)}, {usual, usual}} {
		var conn net.Conn
		p := params(nil)
		// Only what is set before it connects ends BBR's pacing.
		p.Conn = func(ctx context.Context, before transfer.Control) (_ *net.TCPConn, err error) {
			d := net.Dialer{Control: before}
			if conn, err = d.DialContext(ctx, "tcp", l.Addr().String()); err != nil {
				return nil, err
			}
			return conn.(*net.TCPConn), nil
		}
		open := opening()
		if _, err := (Transport{}).Prepare(t.Context(), nil, p, open); err != nil {
			t.Fatal(err)
		}
		server, err := Transport{Congestion: c.chosen}.Answer(t.Context(), p, open, new(wire.LaneAnswer))
		if err != nil {
			t.Fatal(err)
		}
		if got := control(conn.(*net.TCPConn)); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
		server.Close()
	}
	own := map[string]bool{"127.0.0.2": true, "::1": true, "::ffff:127.0.0.1": true, "192.0.2.1": false, "2001:db8::1": false, "fe80::1%lo": false}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		addrs, err := link.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			ip := a.(*net.IPNet).IP
			own[ip.String()] = !ip.IsLinkLocalUnicast() // of those, other links' may be the same
			if ip.IsLinkLocalUnicast() {
				own[ip.String()+"%"+link.Name] = true
			}
		}
	}
	for a, want := range own {
		if got := ofThisHost(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %t", a, got)
		}
	}
}

// TestLanesGoWhereTheSessionWent, wherever the receiver's name leads to meanwhile.
func TestLanesGoWhereTheSessionWent(t *testing.T) {
	path, content := file(t, 1)
	h := newHosts(t)
	h.change = func(s *transfer.Sender) {
		s.Sockets.Control = func(string, string, syscall.RawConn) error {
			s.Addr = "127.0.0.1:1" // nobody is there
			return nil
		}
	}
	if sent, received := h.send(h.l.Addr().String(), "copy", transfer.VerifyBLAKE3, path); sent != nil || received != nil {
		t.Error(sent, received)
	}
	h.wantLanded(content)
}
