package compare

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

func TestHardwareIsReadOfSys(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text + "\n")} }
	const dev = "class/infiniband/mlx5_0/"
	sys := fstest.MapFS{
		"devices/system/node/node0/x":             file(""),
		"devices/system/node/node1/x":             file(""),
		dev + "fw_ver":                            file("16.35.2000"),
		dev + "board_id":                          file("MT_0000000008"),
		dev + "device/numa_node":                  file("1"),
		dev + "device/current_link_speed":         file("16.0 GT/s PCIe"),
		dev + "device/current_link_width":         file("16"),
		dev + "device/uevent":                     file("DRIVER=mlx5_core\nPCI_CLASS=20000"),
		dev + "ports/1/state":                     file("4: ACTIVE"),
		dev + "ports/1/link_layer":                file("Ethernet"),
		dev + "ports/1/rate":                      file("100 Gb/sec (4X EDR)"),
		dev + "ports/1/gid_attrs/ndevs/0":         file("eth2"),
		dev + "ports/1/counters/port_xmit_data":   file("1000"),
		dev + "ports/1/hw_counters/out_of_buffer": file("7"),
		dev + "ports/1/hw_counters/lifespan":      file("10"),
		"class/net/eth2/mtu":                      file("9000"),
		"class/infiniband/broken/ports/x/state":   file("?"),
		"class/infiniband/rxe_a/fw_ver":           file(""),
	}
	maps := strings.Join([]string{
		"7f0000000000-7f0000001000 r--p 00000000 fe:00 1    /usr/lib/x86_64-linux-gnu/libibverbs.so.1.14.44.0",
		"7f0000001000-7f0000002000 r-xp 00001000 fe:00 1    /usr/lib/x86_64-linux-gnu/libibverbs.so.1.14.44.0",
		"7f0000002000-7f0000003000 r-xp 00000000 fe:00 2    /usr/lib/x86_64-linux-gnu/libmlx5.so.1.24.44.0",
		"7f0000003000-7f0000004000 r-xp 00000000 fe:00 3    /usr/lib/x86_64-linux-gnu/libibverbs/librxe-rdmav34.so",
		"7f0000004000-7f0000005000 r-xp 00000000 fe:00 4    /usr/lib/x86_64-linux-gnu/libc.so.6",
		"7f0000005000-7f0000006000 rw-p 00000000 00:00 0    [stack]",
		"7f0000006000-7f0000007000 rw-p 00000000 00:00 0 ",
	}, "\n")
	proc := fstest.MapFS{"cpuinfo": file("processor\t: 0\nmodel name\t: A Processor @ 3 GHz\nmodel name\t: Another"), "self/maps": file(maps), "sys/kernel/osrelease": file("7.3.4")}
	before := ReadHardware(sys, proc)
	sys[dev+"ports/1/counters/port_xmit_data"] = file("1500")
	h := ReadHardware(sys, proc)
	h.Since(before)
	node := 1
	want := &Hardware{Kernel: "7.3.4", CPUs: runtime.NumCPU(), RDMACore: "libibverbs.so.1.14.44.0",
		Processor: "A Processor @ 3 GHz", NUMANodes: 2, Devices: []Device{
			{Name: "broken", Ports: []Port{}},
			{Name: "mlx5_0", Driver: "mlx5_core", Provider: "libmlx5.so.1.24.44.0", Firmware: "16.35.2000", Board: "MT_0000000008", NUMANode: &node, PCIe: "16.0 GT/s PCIe x16", Ports: []Port{
				{Number: 1, State: "4: ACTIVE", LinkLayer: "Ethernet", Rate: "100 Gb/sec (4X EDR)", NetDev: "eth2", NetMTU: 9000, Counters: map[string]uint64{"port_xmit_data": 500}},
			}},
			{Name: "rxe_a", Provider: "librxe-rdmav34.so", Ports: []Port{}},
		}}
	if !reflect.DeepEqual(h, want) {
		t.Errorf("%+v\nwant %+v", h, want)
	}
	if h := ReadHardware(fstest.MapFS{}, fstest.MapFS{}); h.Devices == nil || len(h.Devices) != 0 {
		t.Errorf("%+v", h)
	}
}

// Whatever a kernel says can be told: it is bounded, and on one line.
func TestHardwareCanBeTold(t *testing.T) {
	sys := fstest.MapFS{}
	for d := range wire.MaxHardwareDevices + 1 {
		dev := fmt.Sprintf("class/infiniband/dev%03d/", d)
		sys[dev+"board_id"] = &fstest.MapFile{Data: []byte(strings.Repeat("\xff", 500))}
		for p := range wire.MaxHardwarePorts + 1 {
			sys[fmt.Sprintf("%sports/%d/state", dev, p)] = &fstest.MapFile{Data: []byte("4:\x1b[2J\nACTIVE")}
		}
	}
	for c := range wire.MaxHardwareCounters + 1 {
		sys[fmt.Sprintf("class/infiniband/dev000/ports/0/counters/c%d", c)] = &fstest.MapFile{Data: []byte("1\n")}
		sys[fmt.Sprintf("class/infiniband/dev000/ports/0/hw_counters/h%d", c)] = &fstest.MapFile{Data: []byte("1\n")}
	}
	if _, err := wire.Append(nil, ReadHardware(sys, fstest.MapFS{"cpuinfo": {Data: []byte("model name : " + strings.Repeat("é", 500))}})); err != nil {
		t.Error(err)
	}
}
