package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"text/tabwriter"

	"github.com/Mellanox/rdmamap"
	"github.com/urfave/cli/v2"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/rdma"
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
	MTU     int       `json:"mtu_bytes"`
	LID     uint16    `json:"lid"`
	GIDs    []gidInfo `json:"gids"`
	Problem string    `json:"problem,omitempty"`
}

type gidInfo struct {
	Index  int    `json:"index"`
	Type   string `json:"type"`
	Addr   string `json:"address"`
	Netdev string `json:"netdev"`
	Usable bool   `json:"usable"` // a transfer from this host can use it
}

func devices(c *cli.Context) error {
	list, err := ibverbs.Devices()
	if err != nil {
		return &transfer.Error{Code: transfer.CodeNoRDMA, Err: err}
	}
	usable, why := rdma.Candidates()
	netdevs := netdevOf()
	var infos []deviceInfo
	for _, d := range list {
		infos = append(infos, describeDevice(d.Name, netdevs[d.Name], usable)...)
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
	if why != nil {
		complain(why)
	}
	return nil
}

// netdevOf maps RDMA devices to the network devices that they run over.
func netdevOf() map[string]string {
	m := make(map[string]string)
	links, _ := net.Interfaces()
	for _, l := range links {
		if dev, err := rdmamap.GetRdmaDeviceForNetdevice(l.Name); err == nil {
			m[dev] = l.Name
		}
	}
	return m
}

func describeDevice(name, netdev string, usable []rdma.Candidate) []deviceInfo {
	base := deviceInfo{Schema: schema, Event: "device", Device: name, Netdev: netdev, Char: rdmamap.GetRdmaCharDevices(name)}
	broken := func(err error) []deviceInfo {
		base.Problem = err.Error()
		return []deviceInfo{base}
	}
	ctx, err := ibverbs.Open(name)
	if err != nil {
		return broken(err)
	}
	defer ctx.Close()
	attr, err := ctx.QueryDevice()
	if err != nil {
		return broken(err)
	}
	gids, err := ctx.GIDTable()
	if err != nil {
		return broken(err)
	}
	var infos []deviceInfo
	for port := 1; port <= attr.Ports; port++ {
		i := base
		i.Port = port
		pa, err := ctx.QueryPort(port)
		if err != nil {
			i.Problem = err.Error()
		}
		i.State, i.MTU, i.LID = pa.State.String(), pa.ActiveMTU.Bytes(), pa.LID
		for _, g := range gids {
			if g.Port == port {
				i.GIDs = append(i.GIDs, describeGID(g, name, usable))
			}
		}
		infos = append(infos, i)
	}
	return infos
}

func describeGID(g ibverbs.GIDEntry, device string, usable []rdma.Candidate) gidInfo {
	info := gidInfo{Index: g.Index, Type: g.Type.String(), Addr: g.GID.Addr().String(), Netdev: g.Netdev}
	for _, u := range usable {
		if u.Device == device && int(u.Port) == g.Port && int(u.GIDIndex) == g.Index {
			info.Usable = true
		}
	}
	return info
}

func printDevices(infos []deviceInfo) {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	defer w.Flush()
	if len(infos) > 0 {
		fmt.Fprintln(w, "DEVICE\tPORT\tSTATE\tMTU\tNETDEV\tGID\tTYPE\tADDRESS\tUSABLE HERE")
	}
	for _, i := range infos {
		if i.Problem != "" {
			fmt.Fprintf(w, "%s\t%d\t%s\n", i.Device, i.Port, i.Problem)
		}
		for _, g := range i.GIDs {
			yes := "no"
			if g.Usable {
				yes = "yes"
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%s\t%d\t%s\t%s\t%s\n", i.Device, i.Port, i.State, i.MTU, i.Netdev, g.Index, g.Type, g.Addr, yes)
		}
	}
}
