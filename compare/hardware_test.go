package compare

import (
	"reflect"
	"testing"
	"testing/fstest"
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
	}
	proc := fstest.MapFS{"cpuinfo": file("processor\t: 0\nmodel name\t: A Processor @ 3 GHz\nmodel name\t: Another")}
	before := ReadHardware(sys, proc)
	sys[dev+"ports/1/counters/port_xmit_data"] = file("1500")
	h := ReadHardware(sys, proc)
	h.Since(before)
	node := 1
	want := &Hardware{Processor: "A Processor @ 3 GHz", NUMANodes: 2, Devices: []Device{
		{Name: "broken", Ports: []Port{}},
		{Name: "mlx5_0", Driver: "mlx5_core", Firmware: "16.35.2000", Board: "MT_0000000008", NUMANode: &node, PCIe: "16.0 GT/s PCIe x16", Ports: []Port{
			{Number: 1, State: "4: ACTIVE", LinkLayer: "Ethernet", Rate: "100 Gb/sec (4X EDR)", NetDev: "eth2", NetMTU: 9000, Counters: map[string]uint64{"port_xmit_data": 500}},
		}},
	}}
	if !reflect.DeepEqual(h, want) {
		t.Errorf("%+v\nwant %+v", h, want)
	}
	if h := ReadHardware(fstest.MapFS{}, fstest.MapFS{}); len(h.Devices) != 0 {
		t.Errorf("%+v", h)
	}
}
