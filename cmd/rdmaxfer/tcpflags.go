package main

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/rdmaxfer/rdmaxfer/tcpfallback"
	"github.com/rdmaxfer/rdmaxfer/tcpfallback/compress"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/limit"
)

// tcpSendFlags are what a sender can say about its lanes over TCP.
func tcpSendFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "method", Value: "auto", Usage: "how TCP moves the bytes: " + strings.Join(tcpfallback.Methods, ", ")},
		&cli.StringFlag{Name: "compress", Value: string(compress.None), Usage: "what travels over TCP: none, zstd, or auto (where it ends sooner)"},
		&cli.BoolFlag{Name: "encrypt", Usage: "put TLS 1.3 on the payload too, which is then sent over TCP: over RDMA it is clear"},
		&cli.BoolFlag{Name: "fast-open", Usage: "send the first bytes together with a connection's SYN, where the receiver takes that (recv --fast-open)"},
		&cli.StringFlag{Name: "bind", Usage: "connect from this host's `ADDRESS`"},
	}, socketFlags()...)
}

// tcpRecvFlags are what a receiver can.
func tcpRecvFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "landing", Value: tcpfallback.Landings[0], Usage: "how what comes over TCP gets into its file: " + strings.Join(tcpfallback.Landings, ", ")},
		&cli.BoolFlag{Name: "fast-open", Usage: "take bytes that come with a connection's SYN, which saves senders a round trip (send --fast-open)"},
		&cli.BoolFlag{Name: "encrypt", Usage: "refuse senders whose payload is clear (send without --encrypt)"},
	}, socketFlags()...)
}

// sendTCP checks what tcpSendFlags say.
func sendTCP(c *cli.Context) (*tcpfallback.Transport, error) {
	method, err := oneOf(c, "method", tcpfallback.Methods...)
	if err != nil {
		return nil, err
	}
	mode, err := compress.ParseMode(c.String("compress"))
	moved := method != "auto" && method != "copy"
	switch {
	case err != nil:
		return nil, usagef("--compress: %v", err)
	case mode != compress.None && moved:
		return nil, usagef("--compress %s: %s moves pages as they are; leave --method to auto, or use copy", mode, method)
	case c.Bool("encrypt") && moved:
		return nil, usagef("--encrypt: %s moves pages as they are; leave --method to auto, or use copy", method)
	}
	return &tcpfallback.Transport{Method: method, Choice: new(tcpfallback.Choice), Compress: mode, Congestion: c.String("congestion")}, nil
}

// encryption is what --encrypt says.
func encryption(c *cli.Context) (bool, error) {
	if c.Bool("encrypt") && c.String("transport") == transfer.TransportRDMA {
		return false, usagef("--encrypt and --transport rdma: payload over RDMA is clear; leave --transport to auto, or use tcp")
	}
	return c.Bool("encrypt"), nil
}

// socketFlags are what both can say about their TCP sockets.
func socketFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "ipv4", Aliases: []string{"4"}, Usage: "use IPv4 alone"},
		&cli.BoolFlag{Name: "ipv6", Aliases: []string{"6"}, Usage: "use IPv6 alone"},
		&cli.StringFlag{Name: "send-buffer", Usage: "of each TCP socket, `SIZE` (default: the kernel's, which grows as needed)"},
		&cli.StringFlag{Name: "recv-buffer", Usage: "of each TCP socket, `SIZE` (default: the kernel's, which grows as needed)"},
		&cli.StringFlag{Name: "congestion", Usage: "TCP's congestion control, such as bbr: `NAME` (default: the kernel's, but within a host reno for BBR)"},
		&cli.IntFlag{Name: "mss", Usage: "TCP segments of `N` bytes at the most", DefaultText: "what the path has room for"},
		&cli.StringFlag{Name: "dscp", Usage: "mark TCP packets with `CLASS`: cs0 to cs7, af11 to af43, ef, le, or 0 to 63"},
		&cli.StringFlag{Name: "pacing", Usage: "have the kernel spread each TCP socket's packets over time, at `RATE` (as in send --limit, which is for all lanes)"},
		&cli.DurationFlag{Name: "user-timeout", Usage: "give a TCP connection up when what it sent is not acknowledged for `TIME`", DefaultText: "the kernel's retries"},
		&cli.StringFlag{Name: "notsent-lowat", Usage: "let no more than `SIZE` wait unsent in each TCP socket (default: the kernel's)"},
	}
}

// sockets checks what socketFlags and --bind say. What the kernel has to say about it is
// heard when a socket is made.
func sockets(c *cli.Context) (transfer.Sockets, error) {
	o := tcpfallback.SocketOptions{Congestion: c.String("congestion")}
	o.FastOpenDial = c.Bool("fast-open") && c.Command.Name == "send"
	o.FastOpenListen = c.Bool("fast-open") && !o.FastOpenDial
	var k transfer.Sockets
	switch {
	case c.Bool("ipv4") && c.Bool("ipv6"):
		return k, usagef("--ipv4 and --ipv6: only one of them (either is tried where there is neither)")
	case c.Bool("ipv4"):
		k.Network = "tcp4"
	case c.Bool("ipv6"):
		k.Network = "tcp6"
	}
	if b := c.String("bind"); b != "" {
		addr, err := netip.ParseAddr(b)
		k.Bind = addr.Unmap()
		switch {
		case err != nil:
			return k, usagef("--bind %s: an IP address of this host (ip address shows them)", b)
		case k.Bind.Is6() && k.Bind.IsLinkLocalUnicast() && k.Bind.Zone() == "":
			return k, usagef("--bind %s: a link-local address wants its interface, as in %s%%eth0", b, b)
		}
	}
	for flag, to := range map[string]*int{"send-buffer": &o.SendBuffer, "recv-buffer": &o.ReceiveBuffer, "notsent-lowat": &o.NotSentLowat} {
		if !c.IsSet(flag) {
			continue
		}
		n, err := units.RAMInBytes(c.String(flag))
		if err != nil || n < 1<<10 || n > 1<<30-1 {
			return k, usagef("--%s %s: a size from 1K to less than 1G, such as 4M", flag, c.String(flag))
		}
		*to = int(n)
	}
	if o.MSS = c.Int("mss"); c.IsSet("mss") && (o.MSS < 88 || o.MSS > 32767) {
		return k, usagef("--mss %d: from 88 to 32767 bytes", o.MSS)
	}
	if o.UserTimeout = c.Duration("user-timeout"); c.IsSet("user-timeout") && (o.UserTimeout < time.Millisecond || o.UserTimeout > 24*time.Hour) {
		return k, usagef("--user-timeout %v: from 1ms to 24h", o.UserTimeout)
	}
	var err error
	if c.IsSet("pacing") {
		if o.Pacing, err = limit.ParseRate(c.String("pacing")); err != nil {
			return k, usagef("--pacing: %v", err)
		}
	}
	if o.DSCP, err = dscp(c.String("dscp")); err != nil {
		return k, err
	}
	k.Control = o.Control
	return k, nil
}

// dscp understands names, and numbers.
func dscp(class string) (int, error) {
	if n, ok := dscpNames()[strings.ToLower(class)]; ok || class == "" {
		return n, nil
	}
	if n, err := strconv.Atoi(class); err == nil && n >= 0 && n < 64 {
		return n, nil
	}
	return 0, usagef("--dscp %s: cs0 to cs7, af11 to af43, ef, le, or a number from 0 to 63", class)
}

// dscpNames are those of RFC 2474, 2597, 3246 and 8622.
func dscpNames() map[string]int {
	named := map[string]int{"ef": 46, "le": 1}
	for n := range 8 {
		named["cs"+strconv.Itoa(n)] = 8 * n
	}
	for class := 1; class <= 4; class++ {
		for drop := 1; drop <= 3; drop++ {
			named["af"+strconv.Itoa(10*class+drop)] = 8*class + 2*drop
		}
	}
	return named
}
