//go:build linux && cgo

package ibverbs

// Every crossing into C is in this file. sys_none.go has the same functions for
// builds that have no C; nothing else in the package knows which it is.

/*
#cgo LDFLAGS: -ldl
#cgo noescape rx_post_send
#cgo nocallback rx_post_send
#cgo noescape rx_post_recv
#cgo nocallback rx_post_recv
#cgo noescape rx_post_srq
#cgo nocallback rx_post_srq
#cgo noescape rx_poll
#cgo nocallback rx_poll
#cgo noescape rx_poll_hold
#cgo nocallback rx_poll_hold
#cgo noescape rx_poll_arm
#cgo nocallback rx_poll_arm
#cgo noescape rx_poll_spin
#cgo nocallback rx_poll_spin
#cgo noescape rx_pump
#cgo nocallback rx_pump
#cgo noescape rx_ping
#cgo nocallback rx_ping
#cgo noescape rx_pong
#cgo nocallback rx_pong
#include <stdlib.h>
#include "verbs.h"

static struct ibv_device **rx_get_device_list(int *n)
{
	return rx.get_device_list(n);
}
static void rx_free_device_list(struct ibv_device **list)
{
	rx.free_device_list(list);
}
*/
import "C"

import (
	"encoding/binary"
	"fmt"
	"sync"
	"syscall"
	"unsafe"
)

// The layouts that C and Go must agree on; a difference does not compile.
var (
	_ [unsafe.Sizeof(SendWR{}) - C.sizeof_struct_rx_send_wr]struct{}
	_ [C.sizeof_struct_rx_send_wr - unsafe.Sizeof(SendWR{})]struct{}
	_ [unsafe.Sizeof(RecvWR{}) - C.sizeof_struct_rx_recv_wr]struct{}
	_ [C.sizeof_struct_rx_recv_wr - unsafe.Sizeof(RecvWR{})]struct{}
	_ [unsafe.Sizeof(WC{}) - C.sizeof_struct_ibv_wc]struct{}
	_ [C.sizeof_struct_ibv_wc - unsafe.Sizeof(WC{})]struct{}
	_ [unsafe.Sizeof(SGE{}) - C.sizeof_struct_ibv_sge]struct{}
	_ [unsafe.Offsetof(WC{}.QPN) - unsafe.Offsetof(C.struct_ibv_wc{}.qp_num)]struct{}
	_ [unsafe.Offsetof(SendWR{}.SGE) - unsafe.Offsetof(C.struct_rx_send_wr{}.sge)]struct{}
	_ [unsafe.Offsetof(C.struct_rx_send_wr{}.remote_qkey) - unsafe.Offsetof(SendWR{}.RemoteQKey)]struct{}
	_ [unsafe.Offsetof(C.struct_ibv_wc{}.sl) - unsafe.Offsetof(WC{}.SL)]struct{}
	_ [MaxSGE - C.RX_MAX_SGE]struct{}
	_ [unsafe.Sizeof(loop{}) - C.sizeof_struct_rx_loop]struct{}
	_ [C.sizeof_struct_rx_loop - unsafe.Sizeof(loop{})]struct{}
	_ [unsafe.Offsetof(loop{}.most) - unsafe.Offsetof(C.struct_rx_loop{}.most)]struct{}
	_ [unsafe.Offsetof(C.struct_rx_loop{}.stop) - unsafe.Offsetof(loop{}.stop)]struct{}
	_ [unsafe.Sizeof(loopQueue{}) - C.sizeof_struct_rx_loop_queue]struct{}
	_ [C.sizeof_struct_rx_loop_queue - unsafe.Sizeof(loopQueue{})]struct{}
	_ [unsafe.Offsetof(loopQueue{}.open) - unsafe.Offsetof(C.struct_rx_loop_queue{}.open)]struct{}
	_ [MaxLoopChain - C.RX_LOOP_CHAIN]struct{}
	_ [C.RX_LOOP_CHAIN - MaxLoopChain]struct{}
)

// sysLoad opens the library once a process.
var sysLoad = sync.OnceValue(func() error {
	why := C.rx_load()
	if why == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(why))
	return fmt.Errorf("%w: %s (apt install libibverbs1 ibverbs-providers)", ErrNoLibrary, C.GoString(why))
})

func sysDevices() ([]Device, int) {
	var n C.int
	list, errno := C.rx_get_device_list(&n)
	if list == nil {
		if errno == nil {
			errno = syscall.ENOSYS
		}
		return nil, -int(errno.(syscall.Errno))
	}
	defer C.rx_free_device_list(list)
	devs := make([]Device, 0, int(n))
	for _, d := range unsafe.Slice(list, int(n)) {
		devs = append(devs, Device{
			Name:      C.GoString(&d.name[0]),
			NodeType:  int(d.node_type),
			Transport: Transport(d.transport_type),
		})
	}
	return devs, 0
}

func sysOpen(name string) (unsafe.Pointer, int) {
	c := C.CString(name)
	defer C.free(unsafe.Pointer(c))
	var out *C.struct_ibv_context
	rc := C.rx_open(c, &out)
	return unsafe.Pointer(out), int(rc)
}

func sysQueryDevice(ctx unsafe.Pointer) (DeviceAttr, int) {
	var x C.struct_ibv_device_attr_ex
	if rc := C.rx_query_device((*C.struct_ibv_context)(ctx), &x); rc < 0 {
		return DeviceAttr{}, int(rc)
	}
	a := &x.orig_attr
	guid := *(*[8]byte)(unsafe.Pointer(&a.node_guid)) // network byte order
	odp := &x.odp_caps
	return DeviceAttr{
		Firmware:     C.GoString(&a.fw_ver[0]),
		NodeGUID:     binary.BigEndian.Uint64(guid[:]),
		VendorID:     uint32(a.vendor_id),
		VendorPartID: uint32(a.vendor_part_id),
		Ports:        int(a.phys_port_cnt),
		Flags:        DeviceFlags(a.device_cap_flags),
		PageSizes:    uint64(a.page_size_cap),
		MaxMRSize:    uint64(a.max_mr_size),
		MaxQP:        int(a.max_qp),
		MaxQPWR:      int(a.max_qp_wr),
		MaxSGE:       int(a.max_sge),
		MaxCQ:        int(a.max_cq),
		MaxCQE:       int(a.max_cqe),
		MaxMR:        int(a.max_mr),
		MaxPD:        int(a.max_pd),
		MaxMW:        int(a.max_mw),
		MaxAH:        int(a.max_ah),
		MaxSRQ:       int(a.max_srq),
		MaxSRQWR:     int(a.max_srq_wr),
		MaxSRQSGE:    int(a.max_srq_sge),
		MaxQPRead:    int(a.max_qp_rd_atom),
		MaxQPInitRd:  int(a.max_qp_init_rd_atom),
		MaxPKeys:     int(a.max_pkeys),
		Atomics:      a.atomic_cap != C.IBV_ATOMIC_NONE,
		ODP: ODPCaps{
			Supported: odp.general_caps&C.IBV_ODP_SUPPORT != 0,
			Implicit:  odp.general_caps&C.IBV_ODP_SUPPORT_IMPLICIT != 0,
			RC:        ODPOps(odp.per_transport_caps.rc_odp_caps),
			UC:        ODPOps(odp.per_transport_caps.uc_odp_caps),
			UD:        ODPOps(odp.per_transport_caps.ud_odp_caps),
		},
	}, 0
}

func sysQueryPort(ctx unsafe.Pointer, port int) (PortAttr, int) {
	var a C.struct_ibv_port_attr
	if rc := C.rx_query_port((*C.struct_ibv_context)(ctx), C.uint8_t(port), &a); rc < 0 {
		return PortAttr{}, int(rc)
	}
	return PortAttr{
		State:     PortState(a.state),
		MaxMTU:    MTU(a.max_mtu),
		ActiveMTU: MTU(a.active_mtu),
		GIDs:      int(a.gid_tbl_len),
		PKeys:     int(a.pkey_tbl_len),
		LID:       uint16(a.lid),
		LinkLayer: uint8(a.link_layer),
		MaxMsg:    uint32(a.max_msg_sz),
		Speed:     uint8(a.active_speed),
		Width:     uint8(a.active_width),
		NeedsGRH:  a.flags&C.IBV_QPF_GRH_REQUIRED != 0,
	}, 0
}

func sysQueryPKey(ctx unsafe.Pointer, port, index int) int {
	return int(C.rx_query_pkey((*C.struct_ibv_context)(ctx), C.uint8_t(port), C.int(index)))
}

func sysQueryGIDs(ctx unsafe.Pointer, most int) ([]GIDEntry, int) {
	raw := make([]C.struct_ibv_gid_entry, most)
	rc := C.rx_query_gids((*C.struct_ibv_context)(ctx), unsafe.SliceData(raw), C.size_t(most))
	if rc < 0 {
		return nil, int(rc)
	}
	out := make([]GIDEntry, 0, int(rc))
	for _, e := range raw[:rc] {
		out = append(out, GIDEntry{
			GID:     GID(e.gid),
			Index:   int(e.gid_index),
			Port:    int(e.port_num),
			Type:    GIDType(e.gid_type),
			IfIndex: int(e.ndev_ifindex),
		})
	}
	return out, 0
}

func sysCloseDevice(h unsafe.Pointer) int {
	return int(C.rx_close_device((*C.struct_ibv_context)(h)))
}

// sysAsyncFD answers the descriptor of a device's events, non-blocking, or -errno.
func sysAsyncFD(ctx unsafe.Pointer) int {
	return int(C.rx_async_nonblock((*C.struct_ibv_context)(ctx)))
}

func sysNextEvent(ctx unsafe.Pointer) (Event, int) {
	var e C.struct_rx_event
	rc := int(C.rx_next_event((*C.struct_ibv_context)(ctx), &e))
	if rc <= 0 {
		return Event{}, rc
	}
	out := Event{Type: EventType(e._type), QPN: uint32(e.qpn), element: uint64(e.element)}
	switch out.Type {
	case EventPortActive, EventPortErr, EventLIDChange, EventPKeyChange, EventSMChange, EventClientReregister, EventGIDChange:
		out.Port, out.element = int(e.element), 0
	}
	return out, rc
}

func sysAllocPD(ctx unsafe.Pointer) (unsafe.Pointer, int) {
	var out *C.struct_ibv_pd
	rc := C.rx_alloc_pd((*C.struct_ibv_context)(ctx), &out)
	return unsafe.Pointer(out), int(rc)
}

func sysDeallocPD(h unsafe.Pointer) int { return int(C.rx_dealloc_pd((*C.struct_ibv_pd)(h))) }

// sysRegMR answers the handle, the lkey and the rkey. addr is never Go memory.
func sysRegMR(pd unsafe.Pointer, addr []byte, access Access) (h unsafe.Pointer, lkey, rkey uint32, rc int) {
	var out *C.struct_ibv_mr
	rc = int(C.rx_reg_mr((*C.struct_ibv_pd)(pd), unsafe.Pointer(unsafe.SliceData(addr)), C.size_t(len(addr)), C.uint(access), &out))
	return keysOf(out, rc)
}

func sysRegDMABuf(pd unsafe.Pointer, offset uint64, length int, iova uint64, fd int, access Access) (h unsafe.Pointer, lkey, rkey uint32, rc int) {
	var out *C.struct_ibv_mr
	rc = int(C.rx_reg_dmabuf((*C.struct_ibv_pd)(pd), C.uint64_t(offset), C.size_t(length), C.uint64_t(iova), C.int(fd), C.uint(access), &out))
	return keysOf(out, rc)
}

func keysOf(mr *C.struct_ibv_mr, rc int) (h unsafe.Pointer, lkey, rkey uint32, _ int) {
	if rc < 0 {
		return nil, 0, 0, rc
	}
	return unsafe.Pointer(mr), uint32(mr.lkey), uint32(mr.rkey), 0
}

func sysDeregMR(h unsafe.Pointer) int { return int(C.rx_dereg_mr((*C.struct_ibv_mr)(h))) }

func sysAllocMW(pd unsafe.Pointer, typ MWType) (unsafe.Pointer, int) {
	var out *C.struct_ibv_mw
	rc := C.rx_alloc_mw((*C.struct_ibv_pd)(pd), C.int(typ), &out)
	return unsafe.Pointer(out), int(rc)
}

func sysMWRKey(h unsafe.Pointer) uint32 { return uint32((*C.struct_ibv_mw)(h).rkey) }
func sysDeallocMW(h unsafe.Pointer) int { return int(C.rx_dealloc_mw((*C.struct_ibv_mw)(h))) }

func sysBindMW(qp, mw, mr unsafe.Pointer, b *Bind, addr uint64) int {
	bind := C.struct_rx_bind{
		id:     C.uint64_t(b.ID),
		addr:   C.uint64_t(addr),
		length: C.uint64_t(b.Len),
		flags:  C.uint32_t(b.Flags),
		access: C.uint32_t(b.Access),
	}
	return int(C.rx_bind_mw((*C.struct_ibv_qp)(qp), (*C.struct_ibv_mw)(mw), (*C.struct_ibv_mr)(mr), &bind))
}

func pathOf(v *vector) C.struct_rx_path {
	p := C.struct_rx_path{
		flow_label:    C.uint32_t(v.FlowLabel),
		dlid:          C.uint16_t(v.dlid),
		port:          C.uint8_t(v.port),
		sgid_index:    C.uint8_t(v.gidIndex),
		hop_limit:     C.uint8_t(v.HopLimit),
		traffic_class: C.uint8_t(v.TrafficClass),
		sl:            C.uint8_t(v.ServiceLevel),
		dgid:          *(*[16]C.uint8_t)(unsafe.Pointer(&v.dgid)),
	}
	if v.global {
		p.global = 1
	}
	return p
}

func sysCreateAH(pd unsafe.Pointer, v *vector) (unsafe.Pointer, int) {
	p := pathOf(v)
	var out *C.struct_ibv_ah
	rc := C.rx_create_ah((*C.struct_ibv_pd)(pd), &p, &out)
	return unsafe.Pointer(out), int(rc)
}

func sysDestroyAH(h unsafe.Pointer) int { return int(C.rx_destroy_ah((*C.struct_ibv_ah)(h))) }

// sysCreateCQ makes a channel and the one CQ that it serves.
func sysCreateCQ(ctx unsafe.Pointer, depth int) (cq, ch unsafe.Pointer, fd, rc int) {
	var c *C.struct_ibv_cq
	var e *C.struct_ibv_comp_channel
	rc = int(C.rx_create_cq((*C.struct_ibv_context)(ctx), C.int(depth), &e, &c))
	if rc < 0 {
		return nil, nil, -1, rc
	}
	return unsafe.Pointer(c), unsafe.Pointer(e), int(e.fd), 0
}

func sysDestroyCQ(cq, ch unsafe.Pointer) int {
	return int(C.rx_destroy_cq((*C.struct_ibv_cq)(cq), (*C.struct_ibv_comp_channel)(ch)))
}

func sysPoll(cq unsafe.Pointer, wcs []WC) int {
	return int(C.rx_poll(C.uintptr_t(uintptr(cq)), (*C.struct_ibv_wc)(unsafe.Pointer(unsafe.SliceData(wcs))), C.int(len(wcs))))
}

func sysPollSpin(cq unsafe.Pointer, wcs []WC, spinNS int64) int {
	return int(C.rx_poll_spin(C.uintptr_t(uintptr(cq)), (*C.struct_ibv_wc)(unsafe.Pointer(unsafe.SliceData(wcs))), C.int(len(wcs)), C.int64_t(spinNS)))
}

func sysPollArm(cq, ch unsafe.Pointer, wcs []WC, solicited, armed bool) (n int, armedNow bool) {
	asked := cBool(armed)
	rc := C.rx_poll_arm(C.uintptr_t(uintptr(cq)), C.uintptr_t(uintptr(ch)), (*C.struct_ibv_wc)(unsafe.Pointer(unsafe.SliceData(wcs))), C.int(len(wcs)), cBool(solicited), &asked)
	return int(rc), asked != 0
}

func sysPollHold(cq, ch unsafe.Pointer, wcs []WC, solicited, armed bool, wake int) (n int, armedNow bool) {
	asked := cBool(armed)
	rc := C.rx_poll_hold(C.uintptr_t(uintptr(cq)), C.uintptr_t(uintptr(ch)), (*C.struct_ibv_wc)(unsafe.Pointer(unsafe.SliceData(wcs))), C.int(len(wcs)), cBool(solicited), &asked, C.int(wake))
	return int(rc), asked != 0
}

// The state of a loop is Go's memory without pointers to Go's, and C keeps none of it.
func sysPump(l *loop, queues []loopQueue, warmNS, forNS int64) int {
	return int(C.rx_pump((*C.struct_rx_loop)(unsafe.Pointer(l)), (*C.struct_rx_loop_queue)(unsafe.Pointer(unsafe.SliceData(queues))), C.int64_t(warmNS), C.int64_t(forNS)))
}

func sysPing(l *loop, queues []loopQueue, trips []int64, forNS int64) int {
	return int(C.rx_ping((*C.struct_rx_loop)(unsafe.Pointer(l)), (*C.struct_rx_loop_queue)(unsafe.Pointer(unsafe.SliceData(queues))), (*C.int64_t)(unsafe.SliceData(trips)), C.int64_t(len(trips)), C.int64_t(forNS)))
}

func sysPong(l *loop, queues []loopQueue) int {
	return int(C.rx_pong((*C.struct_rx_loop)(unsafe.Pointer(l)), (*C.struct_rx_loop_queue)(unsafe.Pointer(unsafe.SliceData(queues)))))
}

func cBool(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

func sysCreateSRQ(pd unsafe.Pointer, depth, sges int) (unsafe.Pointer, int) {
	var out *C.struct_ibv_srq
	rc := C.rx_create_srq((*C.struct_ibv_pd)(pd), C.uint32_t(depth), C.uint32_t(sges), &out)
	return unsafe.Pointer(out), int(rc)
}

func sysSRQLimit(h unsafe.Pointer, limit int) int {
	return int(C.rx_srq_limit((*C.struct_ibv_srq)(h), C.uint32_t(limit)))
}

func sysDestroySRQ(h unsafe.Pointer) int { return int(C.rx_destroy_srq((*C.struct_ibv_srq)(h))) }

func sysCreateQP(pd unsafe.Pointer, c *QPConfig, sends, recvs int) (h unsafe.Pointer, qpn uint32, inline, rc int) {
	a := C.struct_rx_qp_args{
		send_cq:      (*C.struct_ibv_cq)(c.SendCQ.h),
		recv_cq:      (*C.struct_ibv_cq)(c.RecvCQ.h),
		max_send_wr:  C.uint32_t(sends),
		max_recv_wr:  C.uint32_t(recvs),
		max_send_sge: C.uint32_t(c.MaxSendSGE),
		max_recv_sge: C.uint32_t(c.MaxRecvSGE),
		max_inline:   C.uint32_t(c.MaxInline),
		_type:        C.uint32_t(c.Type),
	}
	if c.SRQ != nil {
		a.srq = (*C.struct_ibv_srq)(c.SRQ.h)
	}
	var out *C.struct_ibv_qp
	var got C.uint32_t
	if rc = int(C.rx_create_qp((*C.struct_ibv_pd)(pd), &a, &out, &got)); rc < 0 {
		return nil, 0, 0, rc
	}
	return unsafe.Pointer(out), uint32(out.qp_num), int(got), 0
}

func sysQPInit(qp unsafe.Pointer, c *QPConfig) int {
	return int(C.rx_qp_init((*C.struct_ibv_qp)(qp), C.uint8_t(c.Port), C.uint16_t(c.PKeyIndex), C.uint32_t(c.Access), C.uint32_t(c.QKey)))
}

func sysQPConnect(qp unsafe.Pointer, v *vector, local, remote *Endpoint, p *ConnectParams) (step string, rc int) {
	a := C.struct_rx_connect_args{
		path:               pathOf(v),
		dest_qpn:           C.uint32_t(remote.QPN),
		rq_psn:             C.uint32_t(remote.PSN),
		sq_psn:             C.uint32_t(local.PSN),
		mtu:                C.uint8_t(p.MTU),
		max_rd_atomic:      C.uint8_t(p.MaxReads),
		max_dest_rd_atomic: C.uint8_t(p.MaxReadsServed),
		min_rnr_timer:      C.uint8_t(p.MinRNRTimer),
		timeout:            C.uint8_t(p.Timeout),
		retry_cnt:          C.uint8_t(p.Retries),
		rnr_retry:          C.uint8_t(p.RNRRetries),
	}
	if rc = int(C.rx_qp_rtr((*C.struct_ibv_qp)(qp), &a)); rc < 0 {
		return "RTR", rc
	}
	return "RTS", int(C.rx_qp_rts((*C.struct_ibv_qp)(qp), &a))
}

func sysQPErr(qp unsafe.Pointer) int     { return int(C.rx_qp_err((*C.struct_ibv_qp)(qp))) }
func sysQPState(qp unsafe.Pointer) int   { return int(C.rx_qp_state((*C.struct_ibv_qp)(qp))) }
func sysDestroyQP(qp unsafe.Pointer) int { return int(C.rx_destroy_qp((*C.struct_ibv_qp)(qp))) }

func sysPostSend(qp unsafe.Pointer, wrs []SendWR) (posted, rc int) {
	var n C.int
	r := C.rx_post_send(C.uintptr_t(uintptr(qp)), (*C.struct_rx_send_wr)(unsafe.Pointer(unsafe.SliceData(wrs))), C.int(len(wrs)), &n)
	return int(n), int(r)
}

func sysPostRecv(qp unsafe.Pointer, wrs []RecvWR) (posted, rc int) {
	var n C.int
	r := C.rx_post_recv(C.uintptr_t(uintptr(qp)), (*C.struct_rx_recv_wr)(unsafe.Pointer(unsafe.SliceData(wrs))), C.int(len(wrs)), &n)
	return int(n), int(r)
}

func sysPostSRQ(srq unsafe.Pointer, wrs []RecvWR) (posted, rc int) {
	var n C.int
	r := C.rx_post_srq(C.uintptr_t(uintptr(srq)), (*C.struct_rx_recv_wr)(unsafe.Pointer(unsafe.SliceData(wrs))), C.int(len(wrs)), &n)
	return int(n), int(r)
}
