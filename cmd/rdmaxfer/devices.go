package main

import (
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/Mellanox/rdmamap"
	"github.com/urfave/cli/v2"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/rdma"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

func devicesCommand() *cli.Command {
	return &cli.Command{
		Name:         "devices",
		Usage:        "list the RDMA devices: network device, port state, MTU, GIDs",
		Flags:        []cli.Flag{jsonFlag()},
		OnUsageError: onUsageError,
		Action:       devices,
	}
}

// deviceInfo is one port of a device, as --json prints it.
type deviceInfo struct {
	Schema  int       `json:"schema"`
	Event   string    `json:"event"`
	Device  string    `json:"device"`
	Netdev  string    `json:"netdev"`
	Char    []string  `json:"char_devices"`
	Port    int       `json:"port"`
	State   string    `json:"state"`
	Link    string    `json:"link_layer"`
	MTU     int       `json:"mtu_bytes"`
	Rate    int64     `json:"bits_per_second"`
	Node    int       `json:"numa_node"` // -1: nobody knows
	LID     uint16    `json:"lid"`
	GIDs    []gidInfo `json:"gids"`
	Problem string    `json:"problem,omitempty"` // why no transfer can use it
}

type gidInfo struct {
	Index  int    `json:"index"`
	Type   string `json:"type"`
	Addr   string `json:"address"`
	Netdev string `json:"netdev"`
	Usable bool   `json:"usable"` // a transfer from this host can use it
}

func devices(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("devices takes no arguments, and got %q", c.Args().First())
	}
	host, err := rdma.Inventory()
	if err != nil {
		return &transfer.Error{Code: transfer.CodeNoRDMA, Err: err}
	}
	usable, refused := host.Candidates(new(rdma.Selection))
	var infos []deviceInfo
	for i := range host.Ports {
		infos = append(infos, describePort(&host.Ports[i], usable, refused))
	}
	if c.Bool("json") {
		for _, i := range infos {
			if err := json.NewEncoder(os.Stdout).Encode(i); err != nil {
				return err
			}
		}
	} else {
		printDevices(infos)
	}
	if len(usable) == 0 {
		complain(rdma.Explain(refused))
	}
	return nil
}

func describePort(p *rdma.Port, usable []rdma.Candidate, refused []wire.Refusal) deviceInfo {
	info := deviceInfo{
		Schema: schema, Event: "device", Device: p.Device, Netdev: p.Netdev, Char: rdmamap.GetRdmaCharDevices(p.Device), Port: p.Port, State: p.State,
		Link: p.Link, MTU: p.MTU, Rate: int64(p.Mbps) * 1e6, Node: p.Node, LID: p.LID,
	}
	for _, r := range refused {
		if r.Device == p.Device && int(r.Port) == p.Port {
			info.Problem = r.Reason
		}
	}
	for _, g := range p.GIDs {
		i := gidInfo{Index: g.Index, Type: g.Type, Addr: g.GID.Unmap().String(), Netdev: g.Netdev}
		for _, u := range usable {
			i.Usable = i.Usable || u.Device == p.Device && int(u.Port) == p.Port && int(u.GIDIndex) == g.Index
		}
		info.GIDs = append(info.GIDs, i)
	}
	return info
}

func printDevices(infos []deviceInfo) {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	defer w.Flush()
	if len(infos) > 0 {
		fmt.Fprintln(w, "DEVICE\tPORT\tSTATE\tMTU\tRATE\tNETDEV\tGID\tTYPE\tADDRESS\tUSABLE HERE")
	}
	for _, i := range infos {
		if len(i.GIDs) == 0 {
			fmt.Fprintf(w, "%s\t%d\t%s\n", i.Device, i.Port, i.Problem)
		}
		for _, g := range i.GIDs {
			yes := "no"
			if g.Usable {
				yes = "yes"
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%s\t%s\t%d\t%s\t%s\t%s\n", i.Device, i.Port, i.State, i.MTU, rateWords(uint32(i.Rate/1e6)), i.Netdev, g.Index, g.Type, g.Addr, yes)
		}
	}
}
