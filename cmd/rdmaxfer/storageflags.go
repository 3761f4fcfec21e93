package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/rdma"
)

// storageSendFlags are what a sender can say about how it reads its files.
func storageSendFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "direct", Value: string(transfer.DirectNever), Usage: "read files past the page cache (O_DIRECT): never, always (where the file system can), or auto (what of them is not in it, on local disks)"},
		&cli.BoolFlag{Name: "keep-cache", Usage: "leave the page cache as it was found: drop again what was read into it"},
		&cli.StringFlag{Name: "source", Value: rdma.SourceAuto, Usage: "where RDMA has the bytes of files from: " + strings.Join(rdma.Sources, ", ") + " (window is their pages, registered as they are; pool memory of its own, which they are read into; auto what takes less of the CPU, and pool where digests are taken)"},
	}
}

// storageRecvFlags are what a receiver can say about how it writes them.
func storageRecvFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "direct", Value: string(transfer.DirectNever), Usage: "write files past the page cache (O_DIRECT): never, or always (where the file system can)"},
		&cli.BoolFlag{Name: "keep-cache", Usage: "keep nothing of what lands in the page cache: write it to the disk as it comes, and drop it"},
		&cli.StringFlag{Name: "sink", Value: rdma.SinkAuto, Usage: "where RDMA lands the bytes: " + strings.Join(rdma.Sinks, ", ") + " (ring is memory of its own; mapped, of send --op write and read, the file's pages, where device and file system allow that)"},
		&cli.BoolFlag{Name: "readback", Usage: "read each file from the disk again, and compare, before it gets its name"},
	}
}

// sourceStorage puts what storageSendFlags say into the options.
func sourceStorage(c *cli.Context, o *transfer.SourceOptions) error {
	direct, err := oneOf(c, "direct", transfer.Directs...)
	if err != nil {
		return err
	}
	if method := c.String("method"); direct == string(transfer.DirectAlways) && method != "auto" && method != "copy" {
		return usagef("--direct always: %s moves pages of the page cache; leave --method to auto, or use copy", method)
	}
	o.Direct, o.KeepCache = transfer.Direct(direct), c.Bool("keep-cache")
	return nil
}

// sinkStorage puts what storageRecvFlags say into a directory; nil for a sink that has no
// files.
func sinkStorage(c *cli.Context, d *transfer.Directory) error {
	direct, err := oneOf(c, "direct", string(transfer.DirectNever), string(transfer.DirectAlways))
	if err != nil {
		return err
	}
	if d == nil {
		for _, flag := range []string{"direct", "keep-cache", "readback", "overwrite", "no-sync"} {
			// Who measures with and without a disk may say --no-sync of both.
			if c.IsSet(flag) && (flag != "no-sync" || !c.Bool("discard")) {
				return usagef("--%s: it is for files that land on a disk; leave it out with --discard and --stdout", flag)
			}
		}
		return nil
	}
	if landing := c.String("landing"); direct == string(transfer.DirectAlways) && landing != "auto" && landing != "copy" {
		return usagef("--direct always: %s moves bytes into pages of the page cache; leave --landing to auto, or use copy", landing)
	}
	d.Direct, d.KeepCache, d.Readback = transfer.Direct(direct), c.Bool("keep-cache"), c.Bool("readback")
	return nil
}
