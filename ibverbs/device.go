package ibverbs

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"unsafe"
)

// Transport is the protocol family of a device (enum ibv_transport_type).
type Transport int

// The transports that are told apart; queue pairs set up by exchanging an
// [Endpoint] work on the first alone, which RoCE belongs to.
const (
	TransportIB    Transport = 0
	TransportIWARP Transport = 1
)

// Device is an RDMA device of this host, as ibv_get_device_list gives it.
type Device struct {
	Name      string // e.g. "mlx5_0"
	NodeType  int    // enum ibv_node_type: 1 is a channel adapter
	Transport Transport
}

// Devices lists the RDMA devices. It is not an error to have none: that is an
// empty list, also where the kernel has no RDMA support at all.
func Devices() ([]Device, error) {
	if err := sysLoad(); err != nil {
		return nil, err
	}
	devs, rc := sysDevices()
	if err := opError("ibv_get_device_list", rc); err != nil {
		if err.(*Error).Is(ErrUnsupported) { // ENOSYS: no uverbs in the kernel
			return nil, nil
		}
		return nil, err
	}
	slices.SortFunc(devs, func(a, b Device) int {
		return compareNatural(a.Name, b.Name)
	})
	return devs, nil
}

// compareNatural sorts mlx5_2 before mlx5_10.
func compareNatural(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// Context is an open device (struct ibv_context). Its methods may be called
// from several goroutines; Close from one, after everything else.
type Context struct {
	name     string
	h        unsafe.Pointer
	children atomic.Int32
}

// Open opens the device of that name (ibv_open_device). Its ports need not be up.
// It fails with [ErrNoDevice] where there is none of that name.
func Open(name string) (*Context, error) {
	devs, err := Devices()
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(devs, func(d Device) bool { return d.Name == name }) {
		return nil, fmt.Errorf("%w called %q (see: ibv_devices, rdma link)", ErrNoDevice, name)
	}
	h, rc := sysOpen(name)
	if rc < 0 {
		return nil, withHint(opError("ibv_open_device "+name, rc), "is /dev/infiniband/uverbs* there and readable?")
	}
	return &Context{name: name, h: h}, nil
}

// Name is the device's name.
func (c *Context) Name() string { return c.name }

// Close closes the device (ibv_close_device). It is a [*BusyError] while PDs or
// CQs of it live.
func (c *Context) Close() error {
	return closeHandle("ibv_close_device", "device "+c.name, &c.h, &c.children, nil, sysCloseDevice)
}

// closeHandle is what every Close does: refuse a second time, refuse while
// children live, destroy, and tell the parent.
func closeHandle(op, what string, h *unsafe.Pointer, children, parent *atomic.Int32, destroy func(unsafe.Pointer) int) error {
	if *h == nil {
		return fmt.Errorf("%s: %s: %w", op, what, ErrClosed)
	}
	if children != nil {
		if n := children.Load(); n > 0 {
			return &BusyError{Parent: what, Children: int(n)}
		}
	}
	if err := opError(op, destroy(*h)); err != nil && !err.(*Error).Is(ErrDeviceGone) {
		return err
	}
	// A removed device answers EIO to every destructor; the library has freed its
	// side of the object all the same.
	*h = nil
	if parent != nil {
		parent.Add(-1)
	}
	return nil
}

// QueryDevice gives the device's limits (ibv_query_device).
func (c *Context) QueryDevice() (DeviceAttr, error) {
	a, rc := sysQueryDevice(c.h)
	return a, opError("ibv_query_device", rc)
}

// QueryPort gives the state of a port, counted from 1 (ibv_query_port).
func (c *Context) QueryPort(port int) (PortAttr, error) {
	a, rc := sysQueryPort(c.h, port)
	return a, opError("ibv_query_port", rc)
}

// maxGIDs is how many entries are asked for, all ports of a device together: what
// fits into the 64 KiB of an attribute of the kernel's ioctl.
const maxGIDs = 2047

// GIDTable gives every entry of every port's GID table that is set
// (ibv_query_gid_table, rdma-core 32 or later; ErrUnsupported before).
//
// The table is the device's, not the network namespace's: in rdma's shared mode
// it also shows entries whose address belongs to another namespace, over which
// this one can't send.
func (c *Context) GIDTable() ([]GIDEntry, error) {
	entries, rc := sysQueryGIDs(c.h, maxGIDs)
	return entries, opError("ibv_query_gid_table", rc)
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
	return GIDEntry{}, fmt.Errorf("%s port %d has no %v GID for %v (see: rdmaxfer devices)", c.name, port, typ, addr)
}
