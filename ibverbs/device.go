package ibverbs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Transport is the protocol family of a device (enum ibv_transport_type).
type Transport int

// The transports that are told apart; queue pairs set up by exchanging an
// [Endpoint] work on the first alone, which RoCE belongs to.
const (
	TransportIB    Transport = 0
	TransportIWARP Transport = 1
)

// String names the transport, and by its number one that has no name here. What names
// itself unspecified speaks a protocol of its maker's, such as EFA.
func (t Transport) String() string {
	switch t {
	case TransportIB:
		return "InfiniBand or RoCE"
	case TransportIWARP:
		return "iWARP"
	case 2, 3:
		return "usNIC"
	case 4:
		return "unspecified"
	}
	return fmt.Sprintf("transport %d", int(t))
}

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

// Software reports whether the device of that name is a program of this host, as rdma_rxe and
// siw are: it hangs on no bus (/sys/class/infiniband/NAME/device). Where that can't be seen it
// is taken for hardware.
func Software(device string) bool {
	_, err := os.Stat(filepath.Join("/sys/class/infiniband", device, "device"))
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err = os.Stat(filepath.Join("/sys/class/infiniband", device))
	return err == nil
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
	object
	name string

	attrMu sync.Mutex
	attr   *DeviceAttr // once it was asked for

	eventsMu sync.Mutex // of who waits for events
	events   *notifier  // made when somebody first does
	fatal    bool       // the last of the events has been taken
	probes   probes
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
	c := &Context{name: name}
	c.made(kindContext, h)
	return c, nil
}

// Name is the device's name.
func (c *Context) Name() string { return c.name }

// Close closes the device (ibv_close_device). It is a [*BusyError] while objects
// that were made of it live.
func (c *Context) Close() error {
	if err := c.close(sysCloseDevice); err != nil {
		return err
	}
	if c.events != nil {
		return c.events.close()
	}
	return nil
}

// QueryDevice gives the device's limits and abilities (ibv_query_device_ex; where
// the kernel or the library lacks that, ibv_query_device, which knows nothing of
// on-demand paging). They don't change: the device is asked once.
func (c *Context) QueryDevice() (DeviceAttr, error) {
	c.attrMu.Lock()
	defer c.attrMu.Unlock()
	if c.attr == nil {
		a, rc := sysQueryDevice(c.h)
		if rc < 0 {
			return a, opError("ibv_query_device", rc)
		}
		c.attr = &a
	}
	return *c.attr, nil
}

// QueryPort gives the state of a port, counted from 1 (ibv_query_port).
func (c *Context) QueryPort(port int) (PortAttr, error) {
	if port < 1 || port > 255 {
		return PortAttr{}, &ParamError{"port", fmt.Sprint(port), "ports are counted from 1"}
	}
	a, rc := sysQueryPort(c.h, port)
	return a, opError("ibv_query_port", rc)
}

// PKeys gives a port's partition keys that are set, by their index in the table
// (ibv_query_pkey). Bit 15 of a key means full membership, without which two members
// can't talk to each other (IBTA vol. 1, 10.9). Ethernet has the default one alone.
func (c *Context) PKeys(port int) (map[int]uint16, error) {
	attr, err := c.QueryPort(port)
	if err != nil {
		return nil, err
	}
	keys := make(map[int]uint16)
	for i := range attr.PKeys {
		rc := sysQueryPKey(c.h, port, i)
		if err := opError("ibv_query_pkey", rc); err != nil {
			return nil, err
		}
		if rc&0x7fff != 0 {
			keys[i] = uint16(rc)
		}
	}
	return keys, nil
}
