//go:build linux && cgo

// The hot helpers: a batch a crossing, no allocation, errno as the answer.
#include "verbs.h"

#include <arpa/inet.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

// How many work requests are chained on the C stack at a time. A longer batch
// is posted in several chains, still in one crossing.
#define CHAIN 32

// posted_before counts what a refused chain did post: everything before bad.
#define POSTED_BEFORE(wrs, bad, base) ((base) + ((bad) ? (int)((bad) - (wrs)) : 0))

// The last of the request's unions is chosen by the queue pair's type, and by the opcode.
void rx_fill_send(struct ibv_send_wr *o, const struct rx_send_wr *w, int ud)
{
	o->wr_id = w->id;
	o->sg_list = (struct ibv_sge *)w->sge;
	o->num_sge = (int)w->num_sge;
	o->opcode = (enum ibv_wr_opcode)w->opcode;
	o->send_flags = w->flags;
	o->imm_data = htonl(w->imm);
	if (ud) {
		o->wr.ud.ah = (struct ibv_ah *)(uintptr_t)w->ah;
		o->wr.ud.remote_qpn = w->remote_qpn;
		o->wr.ud.remote_qkey = w->remote_qkey;
		return;
	}
	switch (w->opcode) {
	case IBV_WR_ATOMIC_CMP_AND_SWP:
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		o->wr.atomic.remote_addr = w->remote_addr;
		o->wr.atomic.compare_add = w->compare_add;
		o->wr.atomic.swap = w->swap;
		o->wr.atomic.rkey = w->rkey;
		return;
	case IBV_WR_LOCAL_INV:
	case IBV_WR_SEND_WITH_INV:
		o->invalidate_rkey = w->rkey;
		return;
	}
	o->wr.rdma.remote_addr = w->remote_addr;
	o->wr.rdma.rkey = w->rkey;
}

int rx_post_send(uintptr_t handle, const struct rx_send_wr *in, int n, int *posted)
{
	struct ibv_qp *qp = (struct ibv_qp *)handle;
	struct ibv_send_wr wrs[CHAIN], *bad;
	int ud = qp->qp_type == IBV_QPT_UD;

	for (int base = 0; base < n; base += CHAIN) {
		int k = n - base < CHAIN ? n - base : CHAIN;

		for (int i = 0; i < k; i++) {
			rx_fill_send(&wrs[i], &in[base + i], ud);
			wrs[i].next = i + 1 < k ? &wrs[i + 1] : NULL;
		}
		bad = NULL;
		int rc = RX_CALL(ibv_post_send(qp, wrs, &bad));
		if (rc) {
			*posted = POSTED_BEFORE(wrs, bad, base);
			return rc;
		}
	}
	*posted = n;
	return 0;
}

// A receive goes to a queue pair, or to the queue that several share.
static int post_recv(struct ibv_qp *qp, struct ibv_srq *srq, const struct rx_recv_wr *in, int n,
		     int *posted)
{
	struct ibv_recv_wr wrs[CHAIN], *bad;

	for (int base = 0; base < n; base += CHAIN) {
		int k = n - base < CHAIN ? n - base : CHAIN;

		for (int i = 0; i < k; i++) {
			const struct rx_recv_wr *w = &in[base + i];

			wrs[i].wr_id = w->id;
			wrs[i].next = i + 1 < k ? &wrs[i + 1] : NULL;
			wrs[i].sg_list = (struct ibv_sge *)w->sge;
			wrs[i].num_sge = (int)w->num_sge;
		}
		bad = NULL;
		int rc = RX_CALL(srq ? ibv_post_srq_recv(srq, wrs, &bad) : ibv_post_recv(qp, wrs, &bad));
		if (rc) {
			*posted = POSTED_BEFORE(wrs, bad, base);
			return rc;
		}
	}
	*posted = n;
	return 0;
}

int rx_post_recv(uintptr_t qp, const struct rx_recv_wr *in, int n, int *posted)
{
	return post_recv((struct ibv_qp *)qp, NULL, in, n, posted);
}

int rx_post_srq(uintptr_t srq, const struct rx_recv_wr *in, int n, int *posted)
{
	return post_recv(NULL, (struct ibv_srq *)srq, in, n, posted);
}

int rx_poll(uintptr_t cq, struct ibv_wc *wc, int n)
{
	int rc = ibv_poll_cq((struct ibv_cq *)cq, n, wc);

	return rc >= 0 ? rc : -RX_NO_REASON; // most providers answer -1 or -2, no errno
}

// take_event takes and acknowledges one event, the only one that there can be: an
// event has to be asked for each time. It answers 1, 0 when there is none, or -errno.
static int take_event(struct ibv_comp_channel *ch)
{
	struct ibv_cq *cq;
	void *context;

	// The library's own call, and not a bare read of the descriptor: providers
	// keep the sequence number of the next request for an event in it.
	if (rx.get_cq_event(ch, &cq, &context) == 0) {
		rx.ack_cq_events(cq, 1);
		return 1;
	}
	return errno == EAGAIN || errno == EINTR ? 0 : rx_neg(errno);
}

int rx_poll_spin(uintptr_t cq, struct ibv_wc *wc, int n, int64_t spin_ns)
{
	int rc = rx_poll(cq, wc, n);

	if (rc != 0 || spin_ns <= 0)
		return rc;
	int64_t end = rx_now_ns() + spin_ns;

	// The clock costs more than a poll.
	do {
		for (int i = 0; rc == 0 && i < 16; i++)
			rc = rx_poll(cq, wc, n);
	} while (rc == 0 && rx_now_ns() < end);
	return rc;
}

int rx_poll_arm(uintptr_t cq, uintptr_t ch, struct ibv_wc *wc, int n, int solicited, int *armed)
{
	if (*armed) {
		int rc = take_event((struct ibv_comp_channel *)ch);

		if (rc < 0)
			return rc;
		*armed = !rc;
		rc = rx_poll(cq, wc, n);
		if (rc != 0 || *armed)
			return rc;
	}
	int e = RX_CALL(ibv_req_notify_cq((struct ibv_cq *)cq, solicited));
	if (e)
		return e;
	*armed = 1;
	// What completed between the last poll and the request raises no event.
	return rx_poll(cq, wc, n);
}

int rx_poll_hold(uintptr_t cq, uintptr_t ch, struct ibv_wc *wc, int n, int solicited, int *armed,
		 int wake)
{
	struct pollfd fds[2] = {
		{.fd = ((struct ibv_comp_channel *)ch)->fd, .events = POLLIN},
		{.fd = wake, .events = POLLIN},
	};

	for (;;) {
		int rc = rx_poll_arm(cq, ch, wc, n, solicited, armed);
		uint64_t wakes;

		if (rc != 0)
			return rc;
		if (poll(fds, 2, -1) < 0) {
			if (errno != EINTR)
				return rx_neg(errno);
			continue;
		}
		if (fds[1].revents)
			return read(wake, &wakes, sizeof(wakes)) < 0 ? rx_neg(errno) : 0;
		if (!(fds[0].revents & POLLIN))
			return -ENODEV;
	}
}
