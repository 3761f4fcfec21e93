package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/rdma"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:         "doctor",
		Usage:        "say what stands in the way of RDMA, here or to a host that runs rdmaxfer recv, and what mends it",
		ArgsUsage:    "[HOST[:PORT]]",
		Flags:        append([]cli.Flag{keyFileFlag(), memoryFlag(), jsonFlag()}, rdmaFlags()...),
		OnUsageError: onUsageError,
		Action:       doctor,
	}
}

// finding is one thing that was looked at.
type finding struct {
	Schema int    `json:"schema"`
	Event  string `json:"event"` // "check"
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // what there is, or what is wrong and what mends it
}

func doctor(c *cli.Context) error {
	if c.NArg() > 1 {
		return usagef("doctor takes one argument at the most: HOST[:PORT]")
	}
	t, err := newRDMA(c)
	if err != nil {
		return err
	}
	show := func(check string, ok bool, format string, args ...any) {
		f := finding{Schema: schema, Event: "check", Check: check, OK: ok, Detail: fmt.Sprintf(format, args...)}
		if c.Bool("json") {
			_ = json.NewEncoder(os.Stdout).Encode(f) // a reader that is gone needs nothing more
			return
		}
		mark := "ok"
		if !ok {
			mark = "!!"
		}
		fmt.Printf("%s  %-9s %s\n", mark, check, f.Detail)
	}
	here := examine(t, show)
	if c.NArg() == 0 {
		return here
	}
	return examinePaths(c, t, here)
}

// examine looks at this host. An error is why no lane can run over RDMA from here.
func examine(t *rdma.Transport, show func(check string, ok bool, format string, args ...any)) error {
	host, err := rdma.Inventory()
	if err != nil {
		show("library", false, "%v", err)
		return &transfer.Error{Code: transfer.CodeNoRDMA, Err: fmt.Errorf("%w: %w", rdma.ErrNoPath, err)}
	}
	show("library", true, "libibverbs is there")
	if len(host.Ports) == 0 {
		show("devices", false, "%s", noDevice())
	}
	list, refused := host.Candidates(&t.Selection)
	for i := range list {
		p := &list[i]
		show("port", true, "%s netdev %s, MTU %d, %s", addressWords(&p.Candidate), orNone(p.Netdev), ibverbs.MTU(p.MTU).Bytes(), rateWords(p.Mbps))
	}
	for _, r := range refused {
		show("port", false, "%s %s", r.Device, r.Reason)
	}
	memory := t.Memory.Enough()
	if memory != nil {
		show("memory", false, "%v", memory)
	} else {
		show("memory", true, "%s may be registered (--memory)", iec(float64(t.Memory.Total())))
	}
	if len(list) > 0 {
		examineDevice(list[0].Device, show)
	}
	switch {
	case len(list) > 0 && memory == nil:
		return nil
	case len(list) > 0:
		return &transfer.Error{Code: transfer.CodeNoRDMA, Err: memory}
	}
	return &transfer.Error{Code: transfer.CodeNoRDMA, Err: rdma.Explain(refused)}
}

// examineDevice says what a device can do that makes lanes faster.
func examineDevice(name string, show func(check string, ok bool, format string, args ...any)) {
	ctx, err := ibverbs.Open(name)
	if err != nil {
		show("device", false, "%v", err)
		return
	}
	defer ctx.Close()
	switch err := ctx.CanRegisterReadOnly(); {
	case err == nil:
		show("windows", true, "%s sends from the page cache of files (source=window)", name)
	case errors.Is(err, ibverbs.ErrUnsupported):
		show("windows", true, "%s sends from buffers (source=pool): this kernel does not register read-only pages of files, as 6.2 and later do", name)
	default:
		show("windows", false, "%v", err)
	}
}

// noDevice says why there may be none.
func noDevice() string {
	if _, err := os.Stat("/sys/class/infiniband"); err != nil {
		return "no RDMA device, and the kernel has no RDMA loaded: modprobe ib_uverbs, and the driver of the card; without a card, soft-RoCE: modprobe rdma_rxe && rdma link add rxe0 type rxe netdev NETDEV (or testbed/vm)"
	}
	return "no RDMA device: is the driver of the card loaded (ibv_devices)? Without a card, soft-RoCE: rdma link add rxe0 type rxe netdev NETDEV (or testbed/vm)"
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// examinePaths tries every pair of addresses of the two hosts.
func examinePaths(c *cli.Context, t *rdma.Transport, here error) error {
	key, err := readKey(c)
	if err != nil {
		return err
	}
	f := &transfer.PathFinder{Key: key, RDMA: t}
	if f.Addr, err = hostPort(c.Args().First()); err != nil {
		return err
	}
	report, err := f.Find(c.Context)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		out := newOutput(c.Context, "doctor", true)
		out.event("paths", pathFields(report))
		out.results.flush()
	} else {
		fmt.Print("\n" + pathTable(report))
	}
	switch {
	case here != nil:
		return here
	case report.Reason != "":
		return &transfer.Error{Code: transfer.CodeNoRDMA, Err: errors.New(report.Reason)}
	}
	return nil
}
