//go:build linux && cgo

// Package fakeverbs is a queue pair and a completion queue without a device, for
// the unit tests of the wrapper's own code: batching, roll-back, allocations,
// unknown statuses. It proves nothing about transfers.
package fakeverbs

/*
#include <errno.h>
#include <infiniband/verbs.h>
#include <string.h>

static struct ibv_context ctx;
static struct ibv_qp qp;
static struct ibv_cq cq;
static struct ibv_srq srq;
static struct ibv_send_wr last;
static struct ibv_sge last_sge;
static int crossings, room, waiting, status;

static int post_send(struct ibv_qp *q, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct ibv_send_wr *newest = NULL;

	crossings++;
	for (; wr && room > 0; wr = wr->next, room--)
		newest = wr;
	if (newest) {
		last = *newest;
		if (last.num_sge)
			last_sge = last.sg_list[0];
	}
	if (!wr)
		return 0;
	*bad = wr;
	return ENOMEM;
}

static int post_recv(struct ibv_qp *q, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	crossings++;
	for (; wr; wr = wr->next) {
		if (room == 0) {
			*bad = wr;
			return ENOMEM;
		}
		room--;
	}
	return 0;
}

static int post_srq_recv(struct ibv_srq *s, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	return post_recv(NULL, wr, bad);
}

static int poll_cq(struct ibv_cq *q, int n, struct ibv_wc *wc)
{
	int i;

	crossings++;
	for (i = 0; i < n && waiting > 0; i++, waiting--) {
		memset(&wc[i], 0, sizeof(wc[i]));
		wc[i].wr_id = (uint64_t)waiting;
		wc[i].status = (enum ibv_wc_status)status;
	}
	return i;
}

static void reset(int r, int w, int s)
{
	ctx.ops.post_send = post_send;
	ctx.ops.post_recv = post_recv;
	ctx.ops.post_srq_recv = post_srq_recv;
	ctx.ops.poll_cq = poll_cq;
	qp.context = cq.context = srq.context = &ctx;
	qp.qp_type = IBV_QPT_RC;
	crossings = 0;
	room = r;
	waiting = w;
	status = s;
	memset(&last, 0, sizeof(last));
}

static void *qp_of(void) { return &qp; }
static void *cq_of(void) { return &cq; }
static uint64_t atomic_swap(void) { return last.wr.atomic.swap; }
static uint64_t rdma_addr(void) { return last.wr.rdma.remote_addr; }
static uint32_t imm(void) { return last.imm_data; }
static uint64_t last_id(void) { return last.wr_id; }
static uint32_t opcode(void) { return last.opcode; }
static uint32_t inv_rkey(void) { return last.invalidate_rkey; }
static uint64_t ud_ah(void) { return (uint64_t)(uintptr_t)last.wr.ud.ah; }
static uint32_t ud_qpn(void) { return last.wr.ud.remote_qpn; }
static uint32_t ud_qkey(void) { return last.wr.ud.remote_qkey; }
static void be(int type) { qp.qp_type = (enum ibv_qp_type)type; }
static void *srq_of(void) { return &srq; }
static uint64_t sge_addr(void) { return last_sge.addr; }
static int calls(void) { return crossings; }
static void nothing(void) {}
*/
import "C"

import "unsafe"

// Reset sets how many work requests the queues take, how many completions wait,
// and their status.
func Reset(room, waiting, status int) { C.reset(C.int(room), C.int(waiting), C.int(status)) }

// QP is the queue pair, a struct ibv_qp.
func QP() unsafe.Pointer { return C.qp_of() }

// CQ is the completion queue, a struct ibv_cq.
func CQ() unsafe.Pointer { return C.cq_of() }

// SRQ is the shared receive queue, a struct ibv_srq.
func SRQ() unsafe.Pointer { return C.srq_of() }

// Be makes the queue pair one of that type (enum ibv_qp_type), until Reset.
func Be(typ int) { C.be(C.int(typ)) }

// LastInvalidated is the rkey that the last posted send makes invalid.
func LastInvalidated() uint32 { return uint32(C.inv_rkey()) }

// LastDatagram is where the last posted send of a UD queue pair goes.
func LastDatagram() (ah uint64, qpn, qkey uint32) {
	return uint64(C.ud_ah()), uint32(C.ud_qpn()), uint32(C.ud_qkey())
}

// Calls is how often the queues were called since Reset.
func Calls() int { return int(C.calls()) }

// Nothing is an empty call into C, to measure others against.
func Nothing() { C.nothing() }

// Last is what the last posted send looked like in C.
func Last() (id uint64, opcode, imm uint32, remote, swap, addr uint64) {
	return uint64(C.last_id()), uint32(C.opcode()), uint32(C.imm()), uint64(C.rdma_addr()), uint64(C.atomic_swap()), uint64(C.sge_addr())
}
