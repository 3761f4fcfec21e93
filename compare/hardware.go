package compare

import (
	"io/fs"
	"path"
	"regexp"
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
	h.RDMACore, h.Providers = loaded(proc)
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
	return wire.ClipHardware(strings.TrimSpace(string(b)))
}

// providers are the libraries of drivers: those of them that programs may link with lie
// beside libibverbs, the others in a directory of its name.
var providers = regexp.MustCompile(`/lib(mlx4|mlx5|efa|hns|mana)\.so[^/]*$|/libibverbs/[^/]+\.so[^/]*$`)

// loaded finds libibverbs and the drivers' libraries among what the program has mapped.
func loaded(proc fs.FS) (core string, drivers []string) {
	b, err := fs.ReadFile(proc, "self/maps")
	if err != nil {
		return "", nil
	}
	for line := range strings.Lines(string(b)) {
		_, file, _ := strings.Cut(line, "/") // of a mapping without a file nothing
		file = strings.TrimSpace("/" + file)
		name := wire.ClipHardware(path.Base(file))
		switch {
		case strings.HasPrefix(name, "libibverbs.so"):
			core = name
		case providers.MatchString(file) && !slices.Contains(drivers, name) && len(drivers) < wire.MaxHardwareDevices:
			drivers = append(drivers, name)
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
