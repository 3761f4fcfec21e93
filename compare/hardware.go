package compare

import (
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Hardware is what this host's RDMA runs on, as /sys has it: what somebody who reads a
// report needs to know of a machine that is not theirs.
type Hardware struct {
	Processor string   `json:"processor,omitempty"`
	NUMANodes int      `json:"numa_nodes"`
	Devices   []Device `json:"devices"`
}

// Device is an RDMA device.
type Device struct {
	Name     string `json:"name"`
	Driver   string `json:"driver,omitempty"`
	Firmware string `json:"firmware,omitempty"`
	Board    string `json:"board,omitempty"`
	NUMANode *int   `json:"numa_node,omitempty"` // -1: the kernel knows of none
	PCIe     string `json:"pcie,omitempty"`      // "16.0 GT/s PCIe x16", as it is and not as it could be
	Ports    []Port `json:"ports"`
}

// Port is a port of a device.
type Port struct {
	Number    int    `json:"number"`
	State     string `json:"state"`
	LinkLayer string `json:"link_layer"`
	Rate      string `json:"rate"` // "100 Gb/sec (4X EDR)"
	NetDev    string `json:"netdev,omitempty"`
	NetMTU    int    `json:"netdev_mtu_bytes,omitempty"` // the path MTU is in the cells
	// ServiceLevel is what lanes, and perftest unless it is told, send with.
	ServiceLevel int `json:"service_level"`
	// Counters are those of the port that changed while the report was made, by how much.
	Counters map[string]uint64 `json:"counters,omitempty"`
}

// ReadHardware reads /sys and /proc, or what a test has in their place. What is not there
// is left out.
func ReadHardware(sys, proc fs.FS) *Hardware {
	h := &Hardware{Devices: []Device{}}
	if b, err := fs.ReadFile(proc, "cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				h.Processor = strings.TrimSpace(v)
				break
			}
		}
	}
	nodes, _ := fs.Glob(sys, "devices/system/node/node[0-9]*") // the pattern is good
	h.NUMANodes = len(nodes)
	for _, name := range names(sys, "class/infiniband") {
		h.Devices = append(h.Devices, readDevice(sys, name))
	}
	return h
}

// word is a file's one line; empty where there is none.
func word(sys fs.FS, elem ...string) string {
	b, err := fs.ReadFile(sys, path.Join(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// names lists a directory; of what is not there nothing.
func names(sys fs.FS, dir string) (list []string) {
	entries, err := fs.ReadDir(sys, dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func readDevice(sys fs.FS, name string) Device {
	dir := path.Join("class/infiniband", name)
	d := Device{Name: name, Firmware: word(sys, dir, "fw_ver"), Board: word(sys, dir, "board_id"), Ports: []Port{}}
	if n, err := strconv.Atoi(word(sys, dir, "device/numa_node")); err == nil {
		d.NUMANode = &n
	}
	if speed, width := word(sys, dir, "device/current_link_speed"), word(sys, dir, "device/current_link_width"); speed != "" {
		d.PCIe = speed + " x" + width
	}
	for line := range strings.Lines(word(sys, dir, "device/uevent")) {
		if driver, ok := strings.CutPrefix(strings.TrimSpace(line), "DRIVER="); ok {
			d.Driver = driver
		}
	}
	for _, port := range names(sys, path.Join(dir, "ports")) {
		n, err := strconv.Atoi(port)
		if err != nil {
			continue
		}
		at := path.Join(dir, "ports", port)
		p := Port{Number: n, State: word(sys, at, "state"), LinkLayer: word(sys, at, "link_layer"), Rate: word(sys, at, "rate"), Counters: make(map[string]uint64)}
		if p.NetDev = word(sys, at, "gid_attrs/ndevs/0"); p.NetDev == "" {
			p.NetDev = word(sys, dir, "parent") // rxe's, and siw's
		}
		p.NetMTU, _ = strconv.Atoi(word(sys, "class/net", p.NetDev, "mtu")) // 0: another namespace's, or none
		for _, kind := range []string{"counters", "hw_counters"} {
			for _, counter := range names(sys, path.Join(at, kind)) {
				if v, err := strconv.ParseUint(word(sys, at, kind, counter), 10, 64); err == nil {
					p.Counters[counter] = v
				}
			}
		}
		d.Ports = append(d.Ports, p)
	}
	return d
}

// Since has of the counters those that changed since before, and by how much.
func (h *Hardware) Since(before *Hardware) {
	for i := range h.Devices {
		d := &h.Devices[i]
		was := slices.IndexFunc(before.Devices, func(b Device) bool { return b.Name == d.Name })
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
