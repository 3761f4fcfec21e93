//go:build linux

package verbsperf

import (
	"os"
	"path/filepath"
	"strings"
)

// Name is what a report calls a device. One that is a program of its host says so, if it is
// not called after rdma_rxe anyway: its figures are no hardware's ([compare.Report].Soft).
func Name(device string) string {
	if software(device) && !strings.Contains(device, "rxe") {
		return device + "(software)"
	}
	return device
}

// software says whether a device is a program of this host, as rdma_rxe is: it hangs on no
// bus.
func software(device string) bool {
	_, err := os.Stat(filepath.Join("/sys/class/infiniband", device, "device"))
	return os.IsNotExist(err)
}
