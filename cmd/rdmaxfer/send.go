package main

import (
	"net"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/filter"
	"github.com/rdmaxfer/rdmaxfer/transfer/limit"
	"github.com/rdmaxfer/rdmaxfer/transfer/rdma"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

func sendCommand() *cli.Command {
	rules := new(filter.Rules)
	return &cli.Command{
		Name:      "send",
		Usage:     "send files, trees and streams (-: standard input) to a host that runs rdmaxfer recv",
		ArgsUsage: "PATH... HOST[:PORT]",
		Flags: append([]cli.Flag{
			keyFileFlag(),
			transportFlag(),
			&cli.StringFlag{Name: "op", Value: "auto", Usage: "how RDMA moves the bytes: auto, read, write or send"},
			&cli.IntFlag{Name: "lanes", Usage: "`N` lanes at once, spread over all rails", DefaultText: "one on each rail, two where its device is software, over TCP one, and more where that is found to move more"},
			&cli.StringFlag{Name: "verify", Value: transfer.VerifyBLAKE3, Usage: "what is compared at both ends: blake3, xxh3, crc32c or none"},
			&cli.StringFlag{Name: "limit", Usage: "no faster than `RATE`: 20MB/s, 160Mbit/s, 20M (binary bytes a second)"},
			&cli.BoolFlag{Name: "links", Usage: "send the symbolic links of a tree, as links; else they are left out"},
			&cli.BoolFlag{Name: "hard-links", Usage: "keep the hard links of a tree; else each name lands as a file of its own"},
			&cli.BoolFlag{Name: "owner", Usage: "keep owner and group, by name where the receiver's host has that, else by number; the receiver must run as root"},
			&cli.BoolFlag{Name: "xattrs", Usage: "keep the extended attributes that are users' own (user.*)"},
			&cli.BoolFlag{Name: "acls", Usage: "keep access control lists, which name users by number"},
			&cli.StringFlag{Name: "name", Usage: "what standard input (-) lands as: `NAME`; else stdin"},
			&cli.BoolFlag{Name: "delete-source", Usage: "when all is over, remove files and links that the receiver has verified and made durable; directories stay"},
			&cli.BoolFlag{Name: "dry-run", Usage: "move nothing and change nothing, here or there: say what the receiver would do with each file"},
			memoryFlag(),
			jsonFlag(),
			verboseFlag(),
		}, slices.Concat(storageSendFlags(), rdmaFlags(), tcpSendFlags(), filterFlags(rules))...),
		OnUsageError: onUsageError,
		Action:       func(c *cli.Context) error { return send(c, rules) },
	}
}

func send(c *cli.Context, rules *filter.Rules) error {
	sender, err := newSender(c)
	if err != nil {
		return err
	}
	args := c.Args().Slice()
	if len(args) < 2 {
		return usagef("send takes at least two arguments: PATH... HOST[:PORT]")
	}
	paths := args[:len(args)-1]
	if sender.Addr, err = hostPort(args[len(paths)]); err != nil {
		return err
	}
	stdin := slices.Contains(paths, transfer.StdinPath)
	if c.String("key-file") == "-" && stdin {
		return usagef("--key-file -: standard input is the PATH already; name a file")
	}
	if c.IsSet("name") && !stdin {
		return usagef("--name: it is for standard input (-), which is not among what is sent; a file gets another name by recv --as")
	}
	opt := transfer.SourceOptions{
		Links:     c.Bool("links"),
		HardLinks: c.Bool("hard-links"),
		Owner:     c.Bool("owner"),
		XAttrs:    c.Bool("xattrs"),
		ACLs:      c.Bool("acls"),
		StdinName: c.String("name"),
		Skip:      rules.Skip,
	}
	if err := sourceStorage(c, &opt); err != nil {
		return err
	}
	out := newOutput(c.Context, "send", c.Bool("json"))
	out.verbose = c.Bool("verbose")
	if slices.ContainsFunc(paths, isDirectory) {
		go hugeHeap()
	}
	if sender.Source, err = transfer.OpenSource(paths, opt); err != nil {
		return out.failed(err)
	}
	defer sender.Source.Close()
	if sender.Key, err = readKey(c); err != nil {
		return out.failed(err)
	}
	sender.Observer = &batched{output: out} // until it ends
	sender.Progress = &out.progress
	out.moved = func() int64 { // what two lanes were asked for is served twice
		return min(sender.Source.Served(), out.progress.Total.Load())
	}
	stop := out.showProgress()
	result, err := sender.Send(c.Context)
	stop()
	return out.summary(result, err)
}

// isDirectory reports whether there is one at path, or behind a link there.
func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// newSender checks the flags.
func newSender(c *cli.Context) (*transfer.Sender, error) {
	devices, err := newRDMA(c)
	if err != nil {
		return nil, err
	}
	if devices.Source, err = oneOf(c, "source", rdma.Sources...); err != nil {
		return nil, err
	}
	s := &transfer.Sender{RDMA: devices}
	if s.Transport, err = oneOf(c, "transport", transfer.TransportAuto, transfer.TransportRDMA, transfer.TransportTCP); err != nil {
		return nil, err
	}
	if s.Op, err = oneOf(c, "op", rdma.Ops...); err != nil {
		return nil, err
	}
	if s.Verify, err = oneOf(c, "verify", transfer.VerifyBLAKE3, transfer.VerifyXXH3, transfer.VerifyCRC32C, transfer.VerifyNone); err != nil {
		return nil, err
	}
	if s.DeleteSource = c.Bool("delete-source"); s.DeleteSource && s.Verify == transfer.VerifyNone {
		return nil, usagef("--delete-source: nothing is removed for what nobody verified; leave out --verify none")
	}
	s.DryRun = c.Bool("dry-run")
	if s.Lanes = c.Int("lanes"); c.IsSet("lanes") && (s.Lanes < 1 || s.Lanes > wire.MaxLanes) {
		return nil, usagef("--lanes %d: from 1 to %d", s.Lanes, wire.MaxLanes)
	}
	if c.IsSet("limit") {
		if s.Limit, err = limit.ParseRate(c.String("limit")); err != nil {
			return nil, usagef("--limit: %v", err)
		}
	}
	if s.Encrypt, err = encryption(c); err != nil {
		return nil, err
	}
	if s.Sockets, err = sockets(c); err != nil {
		return nil, err
	}
	s.TCP, err = sendTCP(c)
	return s, err
}

// hostPort adds the default port. An IPv6 address may stand in brackets or bare.
func hostPort(arg string) (string, error) {
	if host, port, err := net.SplitHostPort(arg); err == nil {
		if host == "" || port == "" {
			return "", usagef("%q is no HOST[:PORT]", arg)
		}
		return arg, nil
	}
	if n := len(arg); n > 2 && arg[0] == '[' && arg[n-1] == ']' {
		arg = arg[1 : n-1]
	}
	if arg == "" {
		return "", usagef("the last argument must be a HOST[:PORT]")
	}
	return net.JoinHostPort(arg, DefaultPort), nil
}
