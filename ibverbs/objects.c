//go:build linux && cgo

// The cold calls: devices, and what belongs to a protection domain.
#include "verbs.h"

#include <endian.h>
#include <fcntl.h>
#include <string.h>

// The header wraps these in macros or inlines; the names are wanted here.
#undef ibv_query_port
#undef ibv_reg_mr

int rx_open(const char *name, struct ibv_context **out)
{
	int n = 0, rc = -ENODEV;

	errno = 0;
	struct ibv_device **list = rx.get_device_list(&n);

	if (!list)
		return rx_neg(errno);
	for (int i = 0; i < n; i++) {
		if (strcmp(list[i]->name, name) != 0)
			continue;
		errno = 0;
		*out = rx.open_device(list[i]);
		rc = *out ? 0 : rx_neg(errno);
		break;
	}
	rx.free_device_list(list);
	return rc;
}

int rx_close_device(struct ibv_context *ctx) { return RX_CALL(rx.close_device(ctx)); }

int rx_query_device(struct ibv_context *ctx, struct ibv_device_attr_ex *attr)
{
	struct verbs_context *v = verbs_get_ctx_op(ctx, query_device_ex);

	memset(attr, 0, sizeof(*attr));
	// What the header's inline does; that one would have to be linked.
	if (v) {
		int rc = RX_CALL(v->query_device_ex(ctx, NULL, attr, sizeof(*attr)));

		if (rc != -EOPNOTSUPP && rc != -ENOSYS)
			return rc;
		memset(attr, 0, sizeof(*attr));
	}
	return RX_CALL(rx.query_device(ctx, &attr->orig_attr));
}

int rx_query_port(struct ibv_context *ctx, uint8_t port, struct ibv_port_attr *attr)
{
	struct verbs_context *v = verbs_get_ctx_op(ctx, query_port);

	memset(attr, 0, sizeof(*attr));
	// What the header's inline does: the symbol fills only the old, shorter struct.
	return RX_CALL(v ? v->query_port(ctx, port, attr, sizeof(*attr))
			 : rx.query_port(ctx, port, (struct _compat_ibv_port_attr *)attr));
}

int rx_query_pkey(struct ibv_context *ctx, uint8_t port, int index)
{
	__be16 pkey = 0;

	errno = 0;
	if (rx.query_pkey(ctx, port, index, &pkey))
		return rx_neg(errno);
	return be16toh(pkey);
}

int rx_query_gids(struct ibv_context *ctx, struct ibv_gid_entry *entries, size_t n)
{
	if (!rx.query_gid_table)
		return -EOPNOTSUPP;
	return (int)rx.query_gid_table(ctx, entries, n, 0, sizeof(*entries));
}

int rx_async_nonblock(struct ibv_context *ctx)
{
	int flags = fcntl(ctx->async_fd, F_GETFL);

	if (flags < 0 || fcntl(ctx->async_fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return rx_neg(errno);
	return ctx->async_fd;
}

int rx_next_event(struct ibv_context *ctx, struct rx_event *out)
{
	struct ibv_async_event e;

	if (rx.get_async_event(ctx, &e))
		return errno == EAGAIN || errno == EINTR ? 0 : rx_neg(errno);
	*out = (struct rx_event){.type = e.event_type};
	switch (e.event_type) {
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_COMM_EST:
	case IBV_EVENT_SQ_DRAINED:
	case IBV_EVENT_PATH_MIG:
	case IBV_EVENT_PATH_MIG_ERR:
	case IBV_EVENT_QP_LAST_WQE_REACHED:
		out->qpn = e.element.qp->qp_num;
		out->element = (uintptr_t)e.element.qp;
		break;
	case IBV_EVENT_CQ_ERR:
		out->element = (uintptr_t)e.element.cq;
		break;
	case IBV_EVENT_SRQ_ERR:
	case IBV_EVENT_SRQ_LIMIT_REACHED:
		out->element = (uintptr_t)e.element.srq;
		break;
	default:
		out->element = (uint64_t)e.element.port_num;
	}
	// At once: destroying what an event speaks of waits for its acknowledgement.
	rx.ack_async_event(&e);
	return 1;
}

int rx_alloc_pd(struct ibv_context *ctx, struct ibv_pd **out)
{
	errno = 0;
	*out = rx.alloc_pd(ctx);
	return *out ? 0 : rx_neg(errno);
}

int rx_dealloc_pd(struct ibv_pd *pd) { return RX_CALL(rx.dealloc_pd(pd)); }

int rx_reg_mr(struct ibv_pd *pd, void *addr, size_t len, unsigned int access, struct ibv_mr **out)
{
	errno = 0;
	// The old call passes optional flags to kernels that refuse them.
	if (access & IBV_ACCESS_OPTIONAL_RANGE) {
		if (rx.reg_mr_iova2)
			*out = rx.reg_mr_iova2(pd, addr, len, (uintptr_t)addr, access);
		else
			*out = rx.reg_mr(pd, addr, len, (int)(access & ~IBV_ACCESS_OPTIONAL_RANGE));
	} else {
		*out = rx.reg_mr(pd, addr, len, (int)access);
	}
	return *out ? 0 : rx_neg(errno);
}

int rx_reg_dmabuf(struct ibv_pd *pd, uint64_t offset, size_t len, uint64_t iova, int fd,
		  unsigned int access, struct ibv_mr **out)
{
	if (!rx.reg_dmabuf_mr)
		return -EOPNOTSUPP;
	errno = 0;
	*out = rx.reg_dmabuf_mr(pd, offset, len, iova, fd, (int)access);
	return *out ? 0 : rx_neg(errno);
}

int rx_dereg_mr(struct ibv_mr *mr) { return RX_CALL(rx.dereg_mr(mr)); }

int rx_alloc_mw(struct ibv_pd *pd, int type, struct ibv_mw **out)
{
	errno = 0;
	*out = ibv_alloc_mw(pd, (enum ibv_mw_type)type);
	return *out ? 0 : rx_neg(errno);
}

int rx_dealloc_mw(struct ibv_mw *mw) { return RX_CALL(ibv_dealloc_mw(mw)); }

int rx_create_ah(struct ibv_pd *pd, const struct rx_path *path, struct ibv_ah **out)
{
	struct ibv_ah_attr attr;

	rx_ah_attr(&attr, path);
	errno = 0;
	*out = rx.create_ah(pd, &attr);
	return *out ? 0 : rx_neg(errno);
}

int rx_destroy_ah(struct ibv_ah *ah) { return RX_CALL(rx.destroy_ah(ah)); }

void rx_ah_attr(struct ibv_ah_attr *attr, const struct rx_path *p)
{
	*attr = (struct ibv_ah_attr){
		.is_global = p->global,
		.dlid = p->dlid,
		.sl = p->sl,
		.port_num = p->port,
	};
	if (!p->global)
		return;
	memcpy(attr->grh.dgid.raw, p->dgid, sizeof(p->dgid));
	attr->grh.flow_label = p->flow_label;
	attr->grh.sgid_index = p->sgid_index;
	attr->grh.hop_limit = p->hop_limit;
	attr->grh.traffic_class = p->traffic_class;
}
