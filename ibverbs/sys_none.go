//go:build !linux || !cgo

package ibverbs

import (
	"fmt"
	"syscall"
	"unsafe"
)

// The crossings of sys_cgo.go in a build that has no C: loading fails, so
// nothing else is ever reached with a live handle.

const none = -int(syscall.EOPNOTSUPP)

func sysLoad() error {
	return fmt.Errorf("RDMA verbs: %w (this is a build without cgo, or not for Linux)", ErrUnsupported)
}

type handle = unsafe.Pointer

func sysDevices() ([]Device, int)                         { return nil, none }
func sysOpen(string) (handle, int)                        { return nil, none }
func sysCloseDevice(handle) int                           { return none }
func sysQueryDevice(handle) (DeviceAttr, int)             { return DeviceAttr{}, none }
func sysQueryPort(handle, int) (PortAttr, int)            { return PortAttr{}, none }
func sysQueryPKey(handle, int, int) int                   { return none }
func sysQueryGIDs(handle, int) ([]GIDEntry, int)          { return nil, none }
func sysAsyncFD(handle) int                               { return none }
func sysNextEvent(handle) (Event, int)                    { return Event{}, none }
func sysAllocPD(handle) (handle, int)                     { return nil, none }
func sysDeallocPD(handle) int                             { return none }
func sysDeregMR(handle) int                               { return none }
func sysAllocMW(handle, MWType) (handle, int)             { return nil, none }
func sysMWRKey(handle) uint32                             { return 0 }
func sysDeallocMW(handle) int                             { return none }
func sysBindMW(_, _, _ handle, _ *Bind, _ uint64) int     { return none }
func sysCreateAH(handle, *vector) (handle, int)           { return nil, none }
func sysDestroyAH(handle) int                             { return none }
func sysCreateCQ(handle, int) (cq, ch handle, fd, rc int) { return nil, nil, -1, none }
func sysDestroyCQ(_, _ handle) int                        { return none }
func sysPoll(handle, []WC) int                            { return none }
func sysPollSpin(handle, []WC, int64) int                 { return none }
func sysCreateSRQ(handle, int, int) (handle, int)         { return nil, none }
func sysSRQLimit(handle, int) int                         { return none }
func sysDestroySRQ(handle) int                            { return none }
func sysPostSRQ(handle, []RecvWR) (posted, rc int)        { return 0, none }
func sysQPInit(handle, *QPConfig) int                     { return none }
func sysQPErr(handle) int                                 { return none }
func sysQPState(handle) int                               { return none }
func sysDestroyQP(handle) int                             { return none }
func sysPostSend(handle, []SendWR) (posted, rc int)       { return 0, none }
func sysPostRecv(handle, []RecvWR) (posted, rc int)       { return 0, none }

func sysPump(*loop, []loopQueue, int64, int64) int          { return none }
func sysPing(*loop, []loopQueue, []int64, int64) int        { return none }
func sysPong(*loop, []loopQueue) int                        { return none }
func sysPollArm(_, _ handle, _ []WC, _, _ bool) (int, bool) { return none, false }
func sysPollHold(_, _ handle, _ []WC, _, _ bool, _ int) (int, bool) {
	return none, false
}

func sysRegMR(handle, []byte, Access) (h handle, lkey, rkey uint32, rc int) {
	return nil, 0, 0, none
}

func sysRegDMABuf(handle, uint64, int, uint64, int, Access) (h handle, lkey, rkey uint32, rc int) {
	return nil, 0, 0, none
}

func sysCreateQP(handle, *QPConfig, int, int) (h handle, qpn uint32, inline, rc int) {
	return nil, 0, 0, none
}

func sysQPConnect(handle, *vector, *Endpoint, *Endpoint, *ConnectParams) (string, int) {
	return "RTR", none
}
