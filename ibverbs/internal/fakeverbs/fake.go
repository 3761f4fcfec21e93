//go:build linux && cgo

// Package fakeverbs is a queue pair and a completion queue without a device, for
// the unit tests of the wrapper's own code: batching, roll-back, allocations,
// unknown statuses. Load puts a device around them. It proves nothing about transfers.
package fakeverbs

/*
#cgo CFLAGS: -I${SRCDIR}/../..
#include "verbs.h"
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct ibv_context ctx;
static struct ibv_qp qp;
static struct ibv_cq cq;
static struct ibv_srq srq;
static struct ibv_send_wr last;
static struct ibv_sge last_sge;
static int crossings, room, waiting, status;
static int refusal, refusal_errno; // what a full queue answers, and sets

// What Carry carries: sends in the order of their posts, and completions to be polled.
#define CARRIED (1 << 16)
static struct {
	uint64_t id, addr, remote;
	unsigned flags;
	int chained; // to the one before
} sent[CARRIED];
static struct ibv_wc fifo[CARRIED];
static uint64_t landing[CARRIED]; // IDs of receives
static int carrying, answering, sends, receives, put, taken, aloft, most_aloft;

static void complete(uint64_t id)
{
	struct ibv_wc *wc = &fifo[put++ % CARRIED];

	memset(wc, 0, sizeof(*wc));
	wc->wr_id = id;
	wc->status = (enum ibv_wc_status)status;
}

static void carry(struct ibv_send_wr *wr, int chained)
{
	int i = sends++ % CARRIED;

	sent[i].id = wr->wr_id;
	sent[i].addr = wr->sg_list[0].addr;
	sent[i].remote = wr->wr.rdma.remote_addr;
	sent[i].flags = wr->send_flags;
	sent[i].chained = chained;
	if (++aloft > most_aloft)
		most_aloft = aloft;
	if (answering && wr->opcode == IBV_WR_RDMA_WRITE)
		memcpy((void *)(uintptr_t)wr->wr.rdma.remote_addr, (void *)(uintptr_t)wr->sg_list[0].addr, wr->sg_list[0].length);
	if (wr->send_flags & IBV_SEND_SIGNALED)
		complete(wr->wr_id);
	if (answering && wr->opcode == IBV_WR_SEND)
		complete((uint64_t)1 << 63);
}

static int refused(void)
{
	if (refusal_errno)
		errno = refusal_errno;
	return refusal;
}

static int post_send(struct ibv_qp *q, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct ibv_send_wr *newest = NULL;

	crossings++;
	for (int n = 0; wr && room > 0; wr = wr->next, room--, n++) {
		newest = wr;
		if (carrying)
			carry(wr, n > 0);
	}
	if (newest) {
		last = *newest;
		if (last.num_sge)
			last_sge = last.sg_list[0];
	}
	if (!wr)
		return 0;
	*bad = wr;
	return refused();
}

static int post_recv(struct ibv_qp *q, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	crossings++;
	for (; wr; wr = wr->next) {
		if (room == 0) {
			*bad = wr;
			return refused();
		}
		room--;
		landing[receives++ % CARRIED] = wr->wr_id;
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
	if (carrying) {
		for (i = 0; i < n && taken < put; i++) {
			wc[i] = fifo[taken++ % CARRIED];
			if (!(wc[i].wr_id >> 63))
				aloft = sends - 1 - (int)wc[i].wr_id;
		}
		return i;
	}
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
	refusal = ENOMEM;
	refusal_errno = 0;
	carrying = answering = sends = receives = put = taken = aloft = most_aloft = 0;
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
static void carry_on(int answer) { carrying = 1, answering = answer; }
static uint64_t sent_id(int i) { return sent[i].id; }
static uint64_t sent_addr(int i) { return sent[i].addr; }
static uint64_t sent_remote(int i) { return sent[i].remote; }
static int sent_signaled(int i) { return (sent[i].flags & IBV_SEND_SIGNALED) != 0; }
static int sent_chained(int i) { return sent[i].chained; }
static int sends_of(void) { return sends; }
static int receives_of(void) { return receives; }
static int most_aloft_of(void) { return most_aloft; }
static void refuse(int answer, int e) { refusal = answer, refusal_errno = e; }
static void stale(int e) { errno = e; }
static uint64_t bound_addr(void) { return last.bind_mw.bind_info.addr; }
static uint64_t bound_length(void) { return last.bind_mw.bind_info.length; }

// The library. It is the wrapper's own table, which a program without the wrapper lacks.
#pragma weak rx
static struct rx_symbols real;
static struct ibv_device_attr device;
static struct ibv_port_attr port;
static struct ibv_qp_cap asked;
static int asked_cqe, deaf;
static struct ibv_pd pd;
static struct ibv_mr mr;
static struct ibv_mw mw;
static struct ibv_ah ah;

static int query_device(struct ibv_context *c, struct ibv_device_attr *a) { return *a = device, 0; }
static struct ibv_pd *alloc_pd(struct ibv_context *c) { return pd.context = c, &pd; }
static struct ibv_mr *reg_mr(struct ibv_pd *p, void *addr, size_t len, int access) { return &mr; }
static struct ibv_mw *alloc_mw(struct ibv_pd *p, enum ibv_mw_type type) { return mw.type = type, mw.context = &ctx, &mw; }
static struct ibv_ah *create_ah(struct ibv_pd *p, struct ibv_ah_attr *attr) { return &ah; }
static int dealloc_pd(struct ibv_pd *p) { return 0; }
static int dereg_mr(struct ibv_mr *m) { return 0; }
static int dealloc_mw(struct ibv_mw *w) { return 0; }
static int destroy_ah(struct ibv_ah *a) { return 0; }
static int destroy_cq(struct ibv_cq *q) { return 0; }
static int destroy_qp(struct ibv_qp *q) { return 0; }
static int notify(struct ibv_cq *q, int solicited) { return 0; }
static int get_event(struct ibv_comp_channel *ch, struct ibv_cq **q, void **context) { return errno = EAGAIN, -1; }

static int query_port(struct ibv_context *c, uint8_t n, struct _compat_ibv_port_attr *a)
{
	memcpy(a, &port, sizeof(port));
	return 0;
}

static struct ibv_mr *reg_dmabuf(struct ibv_pd *p, uint64_t off, size_t len, uint64_t iova, int fd, int access)
{
	return &mr;
}

static struct ibv_comp_channel *create_channel(struct ibv_context *c)
{
	struct ibv_comp_channel *ch = calloc(1, sizeof(*ch));

	ch->context = c;
	ch->fd = eventfd(0, EFD_CLOEXEC);
	return ch;
}

static int destroy_channel(struct ibv_comp_channel *ch)
{
	int rc = close(ch->fd);

	free(ch);
	return rc;
}

static struct ibv_cq *create_cq(struct ibv_context *c, int cqe, void *context, struct ibv_comp_channel *ch, int v)
{
	asked_cqe = cqe;
	return &cq;
}

static struct ibv_qp *create_qp(struct ibv_pd *p, struct ibv_qp_init_attr *init)
{
	asked = init->cap;
	qp.qp_type = init->qp_type;
	return &qp;
}

// What was posted to receive is flushed by the error state, which makes room; sends that are
// carried complete when they are posted.
static int modify_qp(struct ibv_qp *q, struct ibv_qp_attr *attr, int mask)
{
	if (attr->qp_state == IBV_QPS_ERR) {
		for (int i = 0; i < receives; i++)
			complete(landing[i]);
		room = deaf ? 0 : CARRIED;
		receives = 0;
	}
	return 0;
}

static void load(uint64_t max_mr, int max_wr, int max_cqe, int needs_grh, int is_deaf)
{
	deaf = is_deaf;
	device = (struct ibv_device_attr){.max_mr_size = max_mr, .max_qp_wr = max_wr, .max_cqe = max_cqe};
	port = (struct ibv_port_attr){
		.state = IBV_PORT_ACTIVE,
		.active_mtu = IBV_MTU_4096,
		.pkey_tbl_len = 1,
		.lid = 1,
		.link_layer = IBV_LINK_LAYER_INFINIBAND,
		.flags = needs_grh ? IBV_QPF_GRH_REQUIRED : 0,
	};
	ctx.ops.alloc_mw = alloc_mw;
	ctx.ops.dealloc_mw = dealloc_mw;
	ctx.ops.req_notify_cq = notify;
	real = rx;
	rx = (struct rx_symbols){
		.query_device = query_device,
		.query_port = query_port,
		.alloc_pd = alloc_pd,
		.dealloc_pd = dealloc_pd,
		.reg_mr = reg_mr,
		.reg_dmabuf_mr = reg_dmabuf,
		.dereg_mr = dereg_mr,
		.create_ah = create_ah,
		.destroy_ah = destroy_ah,
		.create_comp_channel = create_channel,
		.destroy_comp_channel = destroy_channel,
		.create_cq = create_cq,
		.destroy_cq = destroy_cq,
		.get_cq_event = get_event,
		.create_qp = create_qp,
		.modify_qp = modify_qp,
		.destroy_qp = destroy_qp,
	};
}

static void unload(void) { rx = real; }
static void *ctx_of(void) { return &ctx; }
static int asked_sends(void) { return asked.max_send_wr; }
static int asked_receives(void) { return asked.max_recv_wr; }
static int asked_completions(void) { return asked_cqe; }
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

// Carry makes the queue pair, until Reset, one that carries: what is signalled completes.
// With answer a SEND also brings the receive with ID 1<<63, and a WRITE copies its bytes to
// its remote address.
func Carry(answer bool) {
	C.carry_on(truth(answer))
}

func truth(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// Receive brings the receive with that ID.
func Receive(id uint64) { C.complete(C.uint64_t(id)) }

// Sent is a request that was carried.
type Sent struct {
	ID, Addr, Remote  uint64
	Signaled, Chained bool // Chained: by the doorbell of the one before
}

// Carried are the requests that were carried since Reset, and how many of them were in
// flight at once, at the most.
func Carried() (all []Sent, most int) {
	for i := range C.sends_of() {
		all = append(all, Sent{uint64(C.sent_id(i)), uint64(C.sent_addr(i)), uint64(C.sent_remote(i)), C.sent_signaled(i) != 0, C.sent_chained(i) != 0})
	}
	return all, int(C.most_aloft_of())
}

// Receives is how many receives were posted since Reset, and not flushed.
func Receives() int { return int(C.receives_of()) }

// Refuse says what posts answer when there is no room, until Reset, and what they set errno
// to, if that is not 0. Else it is ENOMEM, and errno is as it was.
func Refuse(answer, errno int) { C.refuse(C.int(answer), C.int(errno)) }

// Stale leaves an errno behind in this thread.
func Stale(errno int) { C.stale(C.int(errno)) }

// LastBound is what the last posted bind of a memory window names.
func LastBound() (addr, length uint64) { return uint64(C.bound_addr()), uint64(C.bound_length()) }

// Device is a device of InfiniBand whose one port is up.
type Device struct {
	MaxMRSize       uint64
	MaxQPWR, MaxCQE int
	NeedsGRH        bool
	Deaf            bool // it takes no requests in the error state
}

// Load puts a device in the place of the library, until unload, and gives its context, a
// struct ibv_context. What is made of it are the queue pair and the completion queue that
// are there.
func Load(d Device) (context unsafe.Pointer, unload func()) {
	C.load(C.uint64_t(d.MaxMRSize), C.int(d.MaxQPWR), C.int(d.MaxCQE), truth(d.NeedsGRH), truth(d.Deaf))
	return C.ctx_of(), func() { C.unload() }
}

// Asked is how deep the last queue pair and the last completion queue of the device were to be.
func Asked() (sends, receives, completions int) {
	return int(C.asked_sends()), int(C.asked_receives()), int(C.asked_completions())
}
