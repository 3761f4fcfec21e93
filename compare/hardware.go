package compare

import (
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Hardware is a host, Device one of its RDMA devices and Port one of that's ports, as a
// receiver tells its own.
type (
	Hardware = wire.Hardware
	Device   = wire.HardwareDevice
	Port     = wire.HardwarePort
)

// ReadHardware reads /sys and /proc, or what a test has in their place. What is not there
// is left out.
func ReadHardware(sys, proc fs.FS) *Hardware {
	h := &Hardware{CPUs: runtime.NumCPU(), Kernel: word(proc, "sys/kernel/osrelease"), Devices: []Device{}}
	var drivers map[string]string
	h.RDMACore, drivers = loaded(proc)
	if b, err := fs.ReadFile(proc, "cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				h.Processor = wire.ClipHardware(strings.TrimSpace(v))
				break
			}
		}
	}
	nodes, _ := fs.Glob(sys, "devices/system/node/node[0-9]*") // the pattern is good
	h.NUMANodes = len(nodes)
	for _, name := range names(sys, "class/infiniband", wire.MaxHardwareDevices) {
		d := readDevice(sys, name)
		for of, library := range drivers {
			if strings.HasPrefix(d.Driver, of) || strings.HasPrefix(d.Name, of) {
				d.Provider = library
			}
		}
		h.Devices = append(h.Devices, d)
	}
	return h
}

// word is a file's one line; empty where there is none.
func word(sys fs.FS, elem ...string) string {
	b, err := fs.ReadFile(sys, path.Join(elem...))
	if err != nil {
		return ""
	}
	return wire.ClipHardware(strings.TrimSpace(string(b)))
}

// loaded finds libibverbs and the drivers' libraries among what the program has mapped, those
// by what they are called after: libmlx5.so.1.24.44.0 is mlx5's, librxe-rdmav34.so rxe's.
func loaded(proc fs.FS) (core string, drivers map[string]string) {
	drivers = make(map[string]string)
	b, _ := fs.ReadFile(proc, "self/maps") // without it nothing is known
	for line := range strings.Lines(string(b)) {
		_, file, _ := strings.Cut(line, "/") // of a mapping without a file nothing
		name := wire.ClipHardware(path.Base(strings.TrimSpace(file)))
		of, library, _ := strings.Cut(strings.TrimPrefix(name, "lib"), ".so")
		of, _, provider := strings.Cut(of, "-rdmav")
		switch {
		case of == "ibverbs":
			core = name
		case provider, library != "" && slices.Contains([]string{"mlx4", "mlx5", "efa", "hns", "mana"}, of): // that programs may link with
			drivers[of] = name
		}
	}
	return core, drivers
}

// names lists a directory, up to so many; of what is not there nothing.
func names(sys fs.FS, dir string, most int) (list []string) {
	entries, err := fs.ReadDir(sys, dir)
	if err != nil {
		return nil
	}
	for _, e := range entries[:min(len(entries), most)] {
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
		d.PCIe = wire.ClipHardware(speed + " x" + width)
	}
	events, _ := fs.ReadFile(sys, path.Join(dir, "device/uevent")) // rxe has none
	for line := range strings.Lines(string(events)) {
		if driver, ok := strings.CutPrefix(strings.TrimSpace(line), "DRIVER="); ok {
			d.Driver = wire.ClipHardware(driver)
		}
	}
	for _, port := range names(sys, path.Join(dir, "ports"), wire.MaxHardwarePorts) {
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
			for _, counter := range names(sys, path.Join(at, kind), wire.MaxHardwareCounters/2) {
				if v, err := strconv.ParseUint(word(sys, at, kind, counter), 10, 64); err == nil {
					p.Counters[counter] = v
				}
			}
		}
		d.Ports = append(d.Ports, p)
	}
	return d
}
