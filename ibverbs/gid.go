package ibverbs

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"
)

// maxGIDs is how many entries are asked for, all ports of a device together: what
// fits into the 64 KiB of an attribute of the kernel's ioctl.
const maxGIDs = 2047

// GIDTable gives every entry of every port's GID table that is set: by the library
// (ibv_query_gid_table, rdma-core 32 or later), and from sysfs where the library or
// the kernel has no such call.
//
// The table is the device's, not the network namespace's: in rdma's shared mode
// it also shows entries whose address belongs to another namespace, over which
// this one can't send.
func (c *Context) GIDTable() ([]GIDEntry, error) {
	entries, err := c.gids()
	names := make(map[int]string)
	for i := range entries {
		e := &entries[i]
		name, known := names[e.IfIndex]
		if !known && e.IfIndex > 0 {
			if l, err := net.InterfaceByIndex(e.IfIndex); err == nil {
				name = l.Name
			}
			names[e.IfIndex] = name
		}
		e.Netdev = name
	}
	return entries, err
}

// gids is the table without the names of network devices, which take longer to find
// than all the rest.
func (c *Context) gids() ([]GIDEntry, error) {
	entries, rc := sysQueryGIDs(c.h, maxGIDs)
	err := opError("ibv_query_gid_table", rc)
	if errors.Is(err, ErrUnsupported) {
		return sysfsGIDs(os.DirFS("/sys/class/infiniband"), c.name)
	}
	return entries, err
}

// FindGID gives the entry that holds the address in the given type. Look GIDs up
// in this way: an index means nothing, it shifts as addresses come and go.
func (c *Context) FindGID(port int, addr netip.Addr, typ GIDType) (GIDEntry, error) {
	entries, err := c.GIDTable()
	if err != nil {
		return GIDEntry{}, err
	}
	for _, e := range entries {
		if e.Port == port && e.Type == typ && e.GID.Addr() == addr.Unmap() {
			return e, nil
		}
	}
	return GIDEntry{}, fmt.Errorf("%s port %d has no %v GID for %v (see: rdmaxfer devices, and ip addr)", c.name, port, typ, addr)
}

// endpoint is what a port and a GID of it say of a queue pair, whatever that will be.
// InfiniBand does without a GID.
func (c *Context) endpoint(port, gidIndex int, attr *PortAttr) (Endpoint, error) {
	e := Endpoint{LID: attr.LID, MTU: attr.ActiveMTU, NeedsGRH: attr.NeedsGRH}
	if gidIndex < 0 || gidIndex > math.MaxUint8 { // more would be cut in struct ibv_global_route
		return e, &ParamError{"GID index", fmt.Sprint(gidIndex), "must be 0 to 255"}
	}
	gid, err := c.gidAt(port, gidIndex)
	if err != nil && attr.LinkLayer == LinkEthernet {
		return e, err
	}
	e.GID = gid
	return e, nil
}

// gidAt gives the GID of a table's index.
func (c *Context) gidAt(port, index int) (GID, error) {
	entries, err := c.gids()
	if err != nil {
		return GID{}, err
	}
	for _, e := range entries {
		if e.Port == port && e.Index == index {
			return e.GID, nil
		}
	}
	return GID{}, fmt.Errorf("%s port %d has no GID at index %d (see: rdmaxfer devices)", c.name, port, index)
}

// sysfsGIDs reads a device's tables as the kernel shows them in files
// (Documentation/ABI/stable/sysfs-class-infiniband). root is /sys/class/infiniband.
func sysfsGIDs(root fs.FS, device string) ([]GIDEntry, error) {
	ports, err := fs.ReadDir(root, path.Join(device, "ports"))
	if err != nil {
		return nil, fmt.Errorf("GID table of %s: %w", device, err)
	}
	var list []GIDEntry
	for _, p := range ports {
		port, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		dir := path.Join(device, "ports", p.Name())
		gids, err := fs.ReadDir(root, path.Join(dir, "gids"))
		if err != nil {
			return nil, fmt.Errorf("GID table of %s: %w", device, err)
		}
		for _, g := range gids {
			if e, ok := sysfsGID(root, dir, g.Name()); ok {
				e.Port = port
				list = append(list, e)
			}
		}
	}
	return list, nil
}

// sysfsGID reads one entry. One that is not set reads as zero, or as EINVAL.
func sysfsGID(root fs.FS, dir, index string) (e GIDEntry, ok bool) {
	word := func(file string) string {
		b, _ := fs.ReadFile(root, path.Join(dir, file, index))
		return strings.TrimSpace(string(b))
	}
	var err error
	if e.Index, err = strconv.Atoi(index); err != nil {
		return e, false
	}
	if e.GID, err = ParseGID(word("gids")); err != nil || e.GID.IsZero() {
		return e, false
	}
	switch word("gid_attrs/types") {
	case "RoCE v2":
		e.Type = GIDTypeRoCEv2
	case "IB/RoCE v1": // the kernel's one word for both; only Ethernet has a netdev here
		e.Type = GIDTypeIB
	}
	e.Netdev = word("gid_attrs/ndevs")
	if e.Netdev != "" {
		if e.Type == GIDTypeIB {
			e.Type = GIDTypeRoCEv1
		}
		if l, err := net.InterfaceByName(e.Netdev); err == nil {
			e.IfIndex = l.Index
		}
	}
	return e, true
}

// ParseGID reads a GID in any way of writing an IPv6 address, sysfs's and
// ibv_devinfo's long ones among them, or as an IPv4 address, which it maps.
func ParseGID(s string) (GID, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return GID{}, fmt.Errorf("%q is no GID", s)
	}
	return GID(a.As16()), nil
}
