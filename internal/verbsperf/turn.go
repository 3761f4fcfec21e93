//go:build linux

package verbsperf

import (
	"os"
	"path/filepath"
)

// software says whether a device is a program of this host, as rdma_rxe is: it hangs on no
// bus.
func software(device string) bool {
	_, err := os.Stat(filepath.Join("/sys/class/infiniband", device, "device"))
	return os.IsNotExist(err)
}
