package wire

import "slices"

// AskHardware asks the receiver what its host is; Hardware is the answer.
type AskHardware struct{}

// Hardware is a host, as its kernel tells it: what somebody who reads a report needs to know
// of a machine that is not theirs. There are no names of hosts, no addresses and no serial
// numbers in it.
type Hardware struct {
	Kernel    string `json:"kernel,omitempty" cbor:"1,keyasint,omitempty"`
	CPUs      int    `json:"cpus,omitempty" cbor:"2,keyasint,omitempty"` // that the program may run on
	Processor string `json:"processor,omitempty" cbor:"3,keyasint,omitempty"`
	NUMANodes int    `json:"numa_nodes" cbor:"4,keyasint"`
	// RDMACore is the file of libibverbs that the program has loaded, with rdma-core's
	// version at its end; empty where RDMA was not used.
	RDMACore string           `json:"rdma_core,omitempty" cbor:"5,keyasint,omitempty"`
	Devices  []HardwareDevice `json:"devices" cbor:"6,keyasint"`
}

// HardwareDevice is an RDMA device.
type HardwareDevice struct {
	Name     string         `json:"name" cbor:"1,keyasint"`
	Driver   string         `json:"driver,omitempty" cbor:"2,keyasint,omitempty"`
	Provider string         `json:"provider,omitempty" cbor:"3,keyasint,omitempty"` // the driver's library that was loaded
	Firmware string         `json:"firmware,omitempty" cbor:"4,keyasint,omitempty"`
	Board    string         `json:"board,omitempty" cbor:"5,keyasint,omitempty"`
	NUMANode *int           `json:"numa_node,omitempty" cbor:"6,keyasint,omitempty"` // -1: the kernel knows of none
	PCIe     string         `json:"pcie,omitempty" cbor:"7,keyasint,omitempty"`      // "16.0 GT/s PCIe x16", as it is and not as it could be
	Ports    []HardwarePort `json:"ports" cbor:"8,keyasint"`
}

// HardwarePort is a port of a device.
type HardwarePort struct {
	Number    int    `json:"number" cbor:"1,keyasint"`
	State     string `json:"state" cbor:"2,keyasint"`
	LinkLayer string `json:"link_layer" cbor:"3,keyasint"`
	Rate      string `json:"rate" cbor:"4,keyasint"` // "100 Gb/sec (4X EDR)"
	NetDev    string `json:"netdev,omitempty" cbor:"5,keyasint,omitempty"`
	NetMTU    int    `json:"netdev_mtu_bytes,omitempty" cbor:"6,keyasint,omitempty"` // the path MTU is in the cells
	// ServiceLevel is what lanes, and perftest unless it is told, send with.
	ServiceLevel int `json:"service_level" cbor:"7,keyasint"`
	// Counters are the port's: in a report those that changed meanwhile, by how much.
	Counters map[string]uint64 `json:"counters,omitempty" cbor:"8,keyasint,omitempty"`
}

// What a host may say of itself.
const (
	MaxHardwareDevices  = 64
	MaxHardwarePorts    = 16  // of a device
	MaxHardwareCounters = 256 // of a port
	maxHardwareText     = 128 // bytes
)

func (*AskHardware) kind() Kind { return kindAskHardware }
func (*Hardware) kind() Kind    { return kindHardware }

func (*AskHardware) check() error { return nil }

func (h *Hardware) check() error {
	if h.Devices == nil || len(h.Devices) > MaxHardwareDevices || h.CPUs < 0 || h.NUMANodes < 0 {
		return malformed("a host of %d devices, %d processors and %d nodes", len(h.Devices), h.CPUs, h.NUMANodes)
	}
	if err := shortTexts(h.Kernel, h.Processor, h.RDMACore); err != nil {
		return err
	}
	for i := range h.Devices {
		d := &h.Devices[i]
		if d.Ports == nil || len(d.Ports) > MaxHardwarePorts || d.NUMANode != nil && *d.NUMANode < -1 {
			return malformed("a device of %d ports", len(d.Ports))
		}
		if err := shortTexts(d.Name, d.Driver, d.Provider, d.Firmware, d.Board, d.PCIe); err != nil {
			return err
		}
		for j := range d.Ports {
			if err := d.Ports[j].check(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *HardwarePort) check() error {
	if p.Number < 0 || p.NetMTU < 0 || p.ServiceLevel < 0 || p.ServiceLevel > 15 || len(p.Counters) > MaxHardwareCounters {
		return malformed("port %d with %d counters", p.Number, len(p.Counters))
	}
	for name := range p.Counters {
		if err := shortTexts(name); err != nil {
			return err
		}
	}
	return shortTexts(p.State, p.LinkLayer, p.Rate, p.NetDev)
}

func shortTexts(words ...string) error {
	for _, w := range words {
		if len(w) > maxHardwareText {
			return malformed("%d bytes of text about hardware", len(w))
		}
	}
	return texts(words...)
}

// ClipHardware makes of a line of the kernel's one that Hardware may have.
func ClipHardware(s string) string {
	if s = Clip(s); len(s) > maxHardwareText {
		s = Clip(s[:maxHardwareText-2])
	}
	return s
}

// Since leaves of the counters those that have changed since before, and by how much.
func (h *Hardware) Since(before *Hardware) {
	for i := range h.Devices {
		d := &h.Devices[i]
		was := slices.IndexFunc(before.Devices, func(b HardwareDevice) bool { return b.Name == d.Name })
		for j := range d.Ports {
			p := &d.Ports[j]
			for name, v := range p.Counters {
				var then uint64
				if was >= 0 && j < len(before.Devices[was].Ports) {
					then = before.Devices[was].Ports[j].Counters[name]
				}
				if p.Counters[name] = v - then; v <= then { // "lifespan" and its like stand still
					delete(p.Counters, name)
				}
			}
		}
	}
}
