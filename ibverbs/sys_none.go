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

func sysDevices() ([]Device, int)                              { return nil, none }
func sysOpen(string) (unsafe.Pointer, int)                     { return nil, none }
func sysQueryDevice(unsafe.Pointer) (DeviceAttr, int)          { return DeviceAttr{}, none }
func sysQueryPort(unsafe.Pointer, int) (PortAttr, int)         { return PortAttr{}, none }
func sysQueryGIDs(unsafe.Pointer, int) ([]GIDEntry, int)       { return nil, none }
func sysCloseDevice(unsafe.Pointer) int                        { return none }
func sysAllocPD(unsafe.Pointer) (unsafe.Pointer, int)          { return nil, none }
func sysDeallocPD(unsafe.Pointer) int                          { return none }
func sysDeregMR(unsafe.Pointer) int                            { return none }
func sysDestroyCQ(_, _ unsafe.Pointer) int                     { return none }
func sysPoll(unsafe.Pointer, []WC) int                         { return none }
func sysDrainEvents(unsafe.Pointer) int                        { return none }
func sysQPInit(unsafe.Pointer, int, int, Access) int           { return none }
func sysQPErr(unsafe.Pointer) int                              { return none }
func sysDestroyQP(unsafe.Pointer) int                          { return none }
func sysPostSend(unsafe.Pointer, []SendWR) (posted, rc int)    { return 0, none }
func sysPostRecv(unsafe.Pointer, []RecvWR) (posted, rc int)    { return 0, none }
func sysPollArm(unsafe.Pointer, []WC, int64, bool) (int, bool) { return none, false }

func sysRegMR(unsafe.Pointer, []byte, Access) (h unsafe.Pointer, lkey, rkey uint32, rc int) {
	return nil, 0, 0, none
}

func sysCreateCQ(unsafe.Pointer, int) (cq, ch unsafe.Pointer, fd, rc int) {
	return nil, nil, -1, none
}

func sysCreateQP(unsafe.Pointer, *QPConfig) (h unsafe.Pointer, qpn uint32, inline, rc int) {
	return nil, 0, 0, none
}

func sysQPConnect(unsafe.Pointer, *QPConfig, *Endpoint, *Endpoint, *ConnectParams) (string, int) {
	return "RTR", none
}
