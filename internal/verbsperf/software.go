//go:build linux

package verbsperf

import (
	"strings"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// Name is what a report calls a device. One that is a program of its host says so, if it is
// not called after rdma_rxe anyway: its figures are no hardware's ([compare.Report].Soft).
func Name(device string) string {
	if ibverbs.Software(device) && !strings.Contains(device, "rxe") {
		return device + "(software)"
	}
	return device
}
