package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rdmaxfer/rdmaxfer/tcpfallback"
	"github.com/rdmaxfer/rdmaxfer/tcpfallback/compress"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// tcpSendFlags are what a sender can say about its lanes over TCP.
func tcpSendFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "method", Value: "auto", Usage: "how TCP moves the bytes: " + strings.Join(tcpfallback.Methods, ", ")},
		&cli.StringFlag{Name: "compress", Value: string(compress.None), Usage: "what travels over TCP: none, zstd, or auto (where it ends sooner)"},
		&cli.BoolFlag{Name: "encrypt", Usage: "put TLS 1.3 on the payload too, which is then sent over TCP: over RDMA it is clear"},
	}
}

// tcpRecvFlags are what a receiver can.
func tcpRecvFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "encrypt", Usage: "refuse senders whose payload is clear (send without --encrypt)"},
	}
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
	return &tcpfallback.Transport{Method: method, Choice: new(tcpfallback.Choice), Compress: mode}, nil
}

// encryption is what --encrypt says.
func encryption(c *cli.Context) (bool, error) {
	if c.Bool("encrypt") && c.String("transport") == transfer.TransportRDMA {
		return false, usagef("--encrypt and --transport rdma: payload over RDMA is clear; leave --transport to auto, or use tcp")
	}
	return c.Bool("encrypt"), nil
}
