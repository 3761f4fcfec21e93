//go:build linux && cgo

// The cold calls: completion queues, shared receive queues, queue pairs, windows.
#include "verbs.h"

#include <fcntl.h>
#include <string.h>

int rx_create_cq(struct ibv_context *ctx, int depth, struct ibv_comp_channel **ch,
		 struct ibv_cq **out)
{
	errno = 0;
	*ch = rx.create_comp_channel(ctx);
	if (!*ch)
		return rx_neg(errno);
	// Non-blocking before Go sees the descriptor: os.NewFile asks once.
	int flags = fcntl((*ch)->fd, F_GETFL);
	if (flags < 0 || fcntl((*ch)->fd, F_SETFL, flags | O_NONBLOCK) < 0)
		goto fail;
	*out = rx.create_cq(ctx, depth, NULL, *ch, 0);
	if (*out)
		return 0;
fail:;
	int e = errno;
	rx.destroy_comp_channel(*ch);
	return rx_neg(e);
}

int rx_destroy_cq(struct ibv_cq *cq, struct ibv_comp_channel *ch)
{
	int rc = RX_CALL(rx.destroy_cq(cq));

	// A channel with a live CQ is EBUSY; keep both then.
	return rc ? rc : RX_CALL(rx.destroy_comp_channel(ch));
}

int rx_create_srq(struct ibv_pd *pd, uint32_t max_wr, uint32_t max_sge, struct ibv_srq **out)
{
	struct ibv_srq_init_attr init = {.attr = {.max_wr = max_wr, .max_sge = max_sge}};

	errno = 0;
	*out = rx.create_srq(pd, &init);
	return *out ? 0 : rx_neg(errno);
}

int rx_srq_limit(struct ibv_srq *srq, uint32_t limit)
{
	struct ibv_srq_attr attr = {.srq_limit = limit};

	return RX_CALL(rx.modify_srq(srq, &attr, IBV_SRQ_LIMIT));
}

int rx_destroy_srq(struct ibv_srq *srq) { return RX_CALL(rx.destroy_srq(srq)); }

int rx_create_qp(struct ibv_pd *pd, const struct rx_qp_args *a, struct ibv_qp **out,
		 uint32_t *max_inline)
{
	struct ibv_qp_init_attr init = {
		.send_cq = a->send_cq,
		.recv_cq = a->recv_cq,
		.srq = a->srq,
		.cap = {
			.max_send_wr = a->max_send_wr,
			.max_recv_wr = a->max_recv_wr,
			.max_send_sge = a->max_send_sge,
			.max_recv_sge = a->max_recv_sge,
			.max_inline_data = a->max_inline,
		},
		.qp_type = (enum ibv_qp_type)a->type,
	};
	errno = 0;
	*out = rx.create_qp(pd, &init);
	if (!*out)
		return rx_neg(errno);
	*max_inline = init.cap.max_inline_data;
	return 0;
}

static int modify(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	return RX_CALL(rx.modify_qp(qp, attr, mask | IBV_QP_STATE));
}

int rx_qp_init(struct ibv_qp *qp, uint8_t port, uint16_t pkey_index, uint32_t access,
	       uint32_t qkey)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = port,
		.pkey_index = pkey_index,
		.qp_access_flags = access,
		.qkey = qkey,
	};
	int mask = IBV_QP_PORT | IBV_QP_PKEY_INDEX;

	return modify(qp, &attr,
		      mask | (qp->qp_type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS));
}

int rx_qp_rtr(struct ibv_qp *qp, const struct rx_connect_args *a)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR};
	int mask = 0;

	if (qp->qp_type == IBV_QPT_RC || qp->qp_type == IBV_QPT_UC) {
		attr.path_mtu = (enum ibv_mtu)a->mtu;
		attr.dest_qp_num = a->dest_qpn;
		attr.rq_psn = a->rq_psn;
		rx_ah_attr(&attr.ah_attr, &a->path);
		mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
	}
	if (qp->qp_type == IBV_QPT_RC) {
		attr.max_dest_rd_atomic = a->max_dest_rd_atomic;
		attr.min_rnr_timer = a->min_rnr_timer;
		mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	}
	return modify(qp, &attr, mask);
}

int rx_qp_rts(struct ibv_qp *qp, const struct rx_connect_args *a)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTS, .sq_psn = a->sq_psn};
	int mask = IBV_QP_SQ_PSN;

	if (qp->qp_type == IBV_QPT_RC) {
		attr.timeout = a->timeout;
		attr.retry_cnt = a->retry_cnt;
		attr.rnr_retry = a->rnr_retry;
		attr.max_rd_atomic = a->max_rd_atomic;
		mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			IBV_QP_MAX_QP_RD_ATOMIC;
	}
	return modify(qp, &attr, mask);
}

int rx_qp_err(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

	return modify(qp, &attr, 0);
}

int rx_qp_state(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {0};
	struct ibv_qp_init_attr init;
	int rc = RX_CALL(rx.query_qp(qp, &attr, IBV_QP_STATE, &init));

	return rc ? rc : (int)attr.qp_state;
}

int rx_destroy_qp(struct ibv_qp *qp) { return RX_CALL(rx.destroy_qp(qp)); }

int rx_bind_mw(struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mr *mr, const struct rx_bind *b)
{
	struct ibv_mw_bind_info info = {
		.mr = mr,
		.addr = b->addr,
		.length = b->length,
		.mw_access_flags = b->access,
	};

	if (mw->type == IBV_MW_TYPE_1) {
		struct ibv_mw_bind bind = {
			.wr_id = b->id, .send_flags = b->flags, .bind_info = info};

		return RX_CALL(ibv_bind_mw(qp, mw, &bind));
	}
	struct ibv_send_wr *bad, wr = {
		.wr_id = b->id,
		.opcode = IBV_WR_BIND_MW,
		.send_flags = b->flags,
		.bind_mw = {.mw = mw, .rkey = ibv_inc_rkey(mw->rkey), .bind_info = info},
	};
	int rc = RX_CALL(ibv_post_send(qp, &wr, &bad));

	if (rc == 0)
		mw->rkey = wr.bind_mw.rkey;
	return rc;
}
