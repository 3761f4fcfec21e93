package rdma

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// Host is what paths depend on of a host, in plain words: it can be recorded on one
// machine (as JSON) and judged on another.
type Host struct {
	Ports     []Port    `json:"ports"`
	Netdevs   []string  `json:"netdevs"` // of this network namespace
	Addresses []Address `json:"addresses"`
	// Nodes are the NUMA nodes that this process may run on. Empty where there is one.
	Nodes []int `json:"numa_nodes,omitempty"`
}

// Port is one port of a device.
type Port struct {
	Device    string   `json:"device"`
	Transport string   `json:"transport"` // as [ibverbs.Transport] prints itself
	Port      int      `json:"port"`      // from 1; 0 with Problem, of the whole device
	State     string   `json:"state"`     // as [ibverbs.PortState] prints itself
	Link      string   `json:"link_layer"`
	LID       uint16   `json:"lid,omitempty"`
	MTU       int      `json:"mtu_bytes"`          // that the port carries now
	Mbps      int      `json:"mbps"`               // 0: nobody knows
	Node      int      `json:"numa_node"`          // -1: nobody knows
	Software  bool     `json:"software,omitempty"` // as [ibverbs.Software] has it
	PKeys     []uint16 `json:"pkeys,omitempty"`    // in the order of the table
	// Netdev is the network device that the kernel names, whichever network namespace
	// that is in.
	Netdev  string `json:"netdev"`
	GIDs    []GID  `json:"gids"`
	Problem string `json:"problem,omitempty"` // why there is no more to say
}

// GID is an entry of a port's table.
type GID struct {
	Index  int        `json:"index"`
	GID    netip.Addr `json:"gid"`
	Type   string     `json:"type"`             // as [ibverbs.GIDType] prints itself
	Netdev string     `json:"netdev,omitempty"` // of this network namespace, as far as can be told
}

// Address is one of a network device.
type Address struct {
	Netdev string       `json:"netdev"`
	Prefix netip.Prefix `json:"address"`
}

// The link layers.
const (
	linkEthernet   = "Ethernet"
	linkInfiniBand = "InfiniBand"
)

// Inventory looks at this host. Without the library there is nothing to look with: an
// error; a device that can't be opened is a [Port] that says so.
func Inventory() (*Host, error) {
	devices, err := ibverbs.Devices()
	if err != nil {
		return nil, err
	}
	h := &Host{Nodes: allowedNodes()}
	if err = h.network(); err != nil {
		return nil, err
	}
	h.Ports = ask(&asked, devices, portsOf)
	return h, nil
}

// inquiryLimit is how long devices may take to answer, together. A card whose firmware hangs
// takes a minute, and TCP waits for what becomes of RDMA.
const inquiryLimit = 3 * time.Second

// asked are devices that have not answered yet: whoever asks meanwhile waits for that answer.
var asked singleflight.Group

// ask asks devices side by side.
func ask(asked *singleflight.Group, devices []ibverbs.Device, of func(ibverbs.Device) []Port) (list []Port) {
	ctx, cancel := context.WithTimeout(context.Background(), inquiryLimit)
	defer cancel()
	var answers []<-chan singleflight.Result
	for _, d := range devices {
		answers = append(answers, asked.DoChan(d.Name, func() (any, error) { return of(d), nil }))
	}
	for i, d := range devices {
		select {
		case a := <-answers[i]:
			list = append(list, a.Val.([]Port)...)
			continue
		case <-ctx.Done():
		}
		select {
		case a := <-answers[i]: // while another hung
			list = append(list, a.Val.([]Port)...)
		default:
			list = append(list, Port{Device: d.Name, Transport: d.Transport.String(), Node: -1, Problem: fmt.Sprintf("has not answered for %v: does its driver hang (dmesg)?", inquiryLimit)})
		}
	}
	return list
}

// network lists what there is in this network namespace. A GID table also shows the
// addresses of others; a packet with such a source goes nowhere.
func (h *Host) network() error {
	links, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("network devices: %w", err)
	}
	for _, l := range links {
		h.Netdevs = append(h.Netdevs, l.Name)
		addrs, err := l.Addrs()
		if err != nil {
			continue // it has gone meanwhile
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				h.Addresses = append(h.Addresses, Address{l.Name, p})
			}
		}
	}
	return nil
}

// portsOf asks a device.
func portsOf(d ibverbs.Device) []Port {
	base := Port{Device: d.Name, Transport: d.Transport.String(), Node: deviceNode(d.Name), Software: ibverbs.Software(d.Name)}
	broken := func(what string, err error) []Port {
		base.Problem = fmt.Sprintf("%s: %v", what, err)
		return []Port{base}
	}
	ctx, err := ibverbs.Open(d.Name)
	if err != nil {
		return broken("can't be opened", err)
	}
	defer ctx.Close()
	attr, err := ctx.QueryDevice()
	if err != nil {
		return broken("does not answer", err)
	}
	gids, err := ctx.GIDTable()
	if err != nil {
		return broken("has no GID table", err)
	}
	var list []Port
	for n := 1; n <= attr.Ports; n++ {
		p := base
		p.Port = n
		if err := p.ask(ctx, gids); err != nil {
			p.Problem = fmt.Sprintf("does not answer: %v", err)
		}
		list = append(list, p)
	}
	return list
}

// ask fills in what a device says of a port.
func (p *Port) ask(ctx *ibverbs.Context, gids []ibverbs.GIDEntry) error {
	a, err := ctx.QueryPort(p.Port)
	if err != nil {
		return err
	}
	p.State, p.LID, p.MTU, p.Mbps = a.State.String(), a.LID, a.ActiveMTU.Bytes(), a.Mbps()
	p.Link = linkInfiniBand
	if a.LinkLayer == ibverbs.LinkEthernet {
		p.Link = linkEthernet
	} else {
		keys, err := ctx.PKeys(p.Port)
		if err != nil {
			return err
		}
		for _, i := range slices.Sorted(maps.Keys(keys)) {
			p.PKeys = append(p.PKeys, keys[i])
		}
	}
	for _, g := range gids {
		if g.Port == p.Port {
			p.GIDs = append(p.GIDs, GID{g.Index, netip.AddrFrom16(g.GID), g.Type.String(), g.Netdev})
		}
	}
	p.Netdev = kernelNetdev(p.Device, p.Port, p.GIDs)
	return nil
}

// kernelNetdev is the name of a port's network device by the kernel's word
// (Documentation/ABI/stable/sysfs-class-infiniband), which does not care in which
// network namespace it is, as the library's index of it does.
func kernelNetdev(device string, port int, gids []GID) string {
	for _, g := range gids {
		b, err := os.ReadFile(fmt.Sprintf("/sys/class/infiniband/%s/ports/%d/gid_attrs/ndevs/%d", device, port, g.Index))
		if name := strings.TrimSpace(string(b)); err == nil && name != "" {
			return name
		}
	}
	return ""
}

// deviceNode is the NUMA node of a device; -1 where nobody knows, as of software's.
func deviceNode(device string) int {
	b, err := os.ReadFile("/sys/class/infiniband/" + device + "/device/numa_node")
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return -1
	}
	return n
}

// final reports whether there will be no RDMA as long as this process runs.
func final(err error) bool {
	return errors.Is(err, ibverbs.ErrNoLibrary) || errors.Is(err, ibverbs.ErrUnsupported)
}
