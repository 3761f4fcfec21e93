package transfer

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// Control is called with a socket before it connects or listens ([net.Dialer], [net.ListenConfig]).
type Control = func(network, address string, c syscall.RawConn) error

// Sockets says how TCP connections are made, of sessions and lanes alike. Its zero value
// leaves everything to the system.
type Sockets struct {
	Network string     // tcp4 or tcp6; empty for either
	Bind    netip.Addr // where a sender's connections come from; the zero value for any
	// Control is for each socket. Its error is what the user is told, if it is an [*Error].
	Control Control
}

func (k Sockets) network() string {
	if k.Network == "" {
		return "tcp"
	}
	return k.Network
}

// dial connects. Go's own keep-alives are on; MPTCP is off. then, if any, is called after
// Control.
func (k Sockets) dial(ctx context.Context, addr string, then Control) (*net.TCPConn, error) {
	d := net.Dialer{Control: func(network, address string, c syscall.RawConn) error {
		for _, control := range []Control{k.Control, then} {
			if control == nil {
				continue
			}
			if err := control(network, address, c); err != nil {
				return err
			}
		}
		return nil
	}}
	if k.Bind.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(k.Bind, 0))
	}
	d.SetMultipathTCP(false)
	conn, err := d.DialContext(ctx, k.network(), addr)
	if err != nil {
		return nil, k.blameBind(err)
	}
	return conn.(*net.TCPConn), nil
}

// blameBind says so where Bind is why a connection can't be made.
func (k Sockets) blameBind(err error) error {
	var kind *net.AddrError
	switch {
	case !k.Bind.IsValid():
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return errorf(CodeUsage, "--bind %v: it is no address of this host (ip address shows them)", k.Bind)
	case k.Bind.Zone() != "" && (errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENODEV)):
		return errorf(CodeUsage, "--bind %v: there is no interface %q (ip link shows them)", k.Bind, k.Bind.Zone())
	case errors.As(err, &kind):
		return errorf(CodeUsage, "--bind %v: the receiver's address is of the other kind (IPv4, IPv6): bind one of its kind", k.Bind)
	}
	return err
}

// listen opens a port. Connections that it accepts inherit what Control sets (Linux).
func (k Sockets) listen(ctx context.Context, addr string) (net.Listener, error) {
	lc := net.ListenConfig{Control: k.Control}
	lc.SetMultipathTCP(false) // Go listens with MPTCP unless told not to
	l, err := lc.Listen(ctx, k.network(), addr)
	if e := ownWords(err); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, errorf(CodeConnect, "listening on %s: %w (choose another with --listen)", addr, err)
	}
	return l, nil
}

// ownWords gives the error of Control without what net says around it; nil if it is none.
func ownWords(err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	return nil
}
