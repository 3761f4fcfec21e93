//go:build linux && cgo

// The one place where libibverbs is opened, and the cold calls into it.
#include "verbs.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

// The header wraps these in macros or inlines; the names are wanted here.
#undef ibv_get_device_list
#undef ibv_query_port
#undef ibv_reg_mr

struct rx_symbols rx;

char *rx_load(void)
{
	// RTLD_NODELETE: providers leave fork handlers behind, so never unload.
	void *lib = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!lib)
		return strdup(dlerror());

	// dlsym takes the library's default versions. Some calls exist only as
	// IBVERBS_1.0, so asking for one version of all would miss them.
	const struct {
		void **slot;
		const char *name;
		int optional;
	} table[] = {
		{(void **)&rx.get_device_list, "ibv_get_device_list", 0},
		{(void **)&rx.free_device_list, "ibv_free_device_list", 0},
		{(void **)&rx.open_device, "ibv_open_device", 0},
		{(void **)&rx.close_device, "ibv_close_device", 0},
		{(void **)&rx.query_device, "ibv_query_device", 0},
		{(void **)&rx.query_port, "ibv_query_port", 0},
		{(void **)&rx.query_gid_table, "_ibv_query_gid_table", 1},
		{(void **)&rx.alloc_pd, "ibv_alloc_pd", 0},
		{(void **)&rx.dealloc_pd, "ibv_dealloc_pd", 0},
		{(void **)&rx.reg_mr, "ibv_reg_mr", 0},
		{(void **)&rx.dereg_mr, "ibv_dereg_mr", 0},
		{(void **)&rx.create_comp_channel, "ibv_create_comp_channel", 0},
		{(void **)&rx.destroy_comp_channel, "ibv_destroy_comp_channel", 0},
		{(void **)&rx.create_cq, "ibv_create_cq", 0},
		{(void **)&rx.destroy_cq, "ibv_destroy_cq", 0},
		{(void **)&rx.get_cq_event, "ibv_get_cq_event", 0},
		{(void **)&rx.ack_cq_events, "ibv_ack_cq_events", 0},
		{(void **)&rx.create_qp, "ibv_create_qp", 0},
		{(void **)&rx.modify_qp, "ibv_modify_qp", 0},
		{(void **)&rx.destroy_qp, "ibv_destroy_qp", 0},
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		*table[i].slot = dlsym(lib, table[i].name);
		if (!*table[i].slot && !table[i].optional)
			return strdup(dlerror());
	}
	return NULL;
}

// neg makes -errno of a failure that set errno, and never 0.
static int neg(int e)
{
	return e ? -e : -EIO;
}

int rx_open(const char *name, struct ibv_context **out)
{
	int n = 0, rc = -ENODEV;
	struct ibv_device **list = rx.get_device_list(&n);

	if (!list)
		return neg(errno);
	for (int i = 0; i < n; i++) {
		if (strcmp(list[i]->name, name) != 0)
			continue;
		errno = 0;
		*out = rx.open_device(list[i]);
		rc = *out ? 0 : neg(errno);
		break;
	}
	rx.free_device_list(list);
	return rc;
}

int rx_query_port(struct ibv_context *ctx, uint8_t port, struct ibv_port_attr *attr)
{
	struct verbs_context *v = verbs_get_ctx_op(ctx, query_port);

	memset(attr, 0, sizeof(*attr));
	// What the header's inline does: the symbol fills only the old, shorter struct.
	int rc = v ? v->query_port(ctx, port, attr, sizeof(*attr))
		   : rx.query_port(ctx, port, (struct _compat_ibv_port_attr *)attr);
	return rc ? neg(rc > 0 ? rc : errno) : 0;
}

int rx_query_gids(struct ibv_context *ctx, struct ibv_gid_entry *entries, size_t n)
{
	if (!rx.query_gid_table)
		return -EOPNOTSUPP;
	return (int)rx.query_gid_table(ctx, entries, n, 0, sizeof(*entries));
}

int rx_alloc_pd(struct ibv_context *ctx, struct ibv_pd **out)
{
	errno = 0;
	*out = rx.alloc_pd(ctx);
	return *out ? 0 : neg(errno);
}

int rx_reg_mr(struct ibv_pd *pd, void *addr, size_t len, int access, struct ibv_mr **out)
{
	errno = 0;
	*out = rx.reg_mr(pd, addr, len, access);
	return *out ? 0 : neg(errno);
}

int rx_create_cq(struct ibv_context *ctx, int depth, struct ibv_comp_channel **ch,
		 struct ibv_cq **out)
{
	errno = 0;
	*ch = rx.create_comp_channel(ctx);
	if (!*ch)
		return neg(errno);
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
	return neg(e);
}

int rx_create_qp(struct ibv_pd *pd, const struct rx_qp_args *a, struct ibv_qp **out,
		 uint32_t *max_inline)
{
	struct ibv_qp_init_attr init = {
		.send_cq = a->send_cq,
		.recv_cq = a->recv_cq,
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
		return neg(errno);
	*max_inline = init.cap.max_inline_data;
	return 0;
}

static int modify(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	int rc = rx.modify_qp(qp, attr, mask);

	return rc ? neg(rc > 0 ? rc : errno) : 0;
}

int rx_qp_init(struct ibv_qp *qp, uint8_t port, uint16_t pkey_index, uint32_t access)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = port,
		.pkey_index = pkey_index,
		.qp_access_flags = access,
	};
	return modify(qp, &attr,
		      IBV_QP_STATE | IBV_QP_PORT | IBV_QP_PKEY_INDEX | IBV_QP_ACCESS_FLAGS);
}

int rx_qp_rtr(struct ibv_qp *qp, const struct rx_connect_args *a)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = (enum ibv_mtu)a->mtu,
		.dest_qp_num = a->dest_qpn,
		.rq_psn = a->rq_psn,
		.max_dest_rd_atomic = a->max_dest_rd_atomic,
		.min_rnr_timer = a->min_rnr_timer,
		.ah_attr = {
			.is_global = a->global,
			.dlid = a->dlid,
			.sl = a->sl,
			.port_num = a->port,
		},
	};
	if (a->global) {
		memcpy(attr.ah_attr.grh.dgid.raw, a->dgid, 16);
		attr.ah_attr.grh.flow_label = a->flow_label;
		attr.ah_attr.grh.sgid_index = a->sgid_index;
		attr.ah_attr.grh.hop_limit = a->hop_limit;
		attr.ah_attr.grh.traffic_class = a->traffic_class;
	}
	return modify(qp, &attr,
		      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			      IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
}

int rx_qp_rts(struct ibv_qp *qp, const struct rx_connect_args *a)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS,
		.sq_psn = a->sq_psn,
		.timeout = a->timeout,
		.retry_cnt = a->retry_cnt,
		.rnr_retry = a->rnr_retry,
		.max_rd_atomic = a->max_rd_atomic,
	};
	return modify(qp, &attr,
		      IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
			      IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC);
}

int rx_qp_err(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

	return modify(qp, &attr, IBV_QP_STATE);
}

// Destructors answer an errno, or -1 with errno set: both are seen in providers.
static int destroyed(int rc)
{
	return rc == 0 ? 0 : neg(rc > 0 ? rc : errno);
}

int rx_close_device(struct ibv_context *ctx) { return destroyed(rx.close_device(ctx)); }
int rx_dealloc_pd(struct ibv_pd *pd) { return destroyed(rx.dealloc_pd(pd)); }
int rx_dereg_mr(struct ibv_mr *mr) { return destroyed(rx.dereg_mr(mr)); }
int rx_destroy_qp(struct ibv_qp *qp) { return destroyed(rx.destroy_qp(qp)); }

int rx_destroy_cq(struct ibv_cq *cq, struct ibv_comp_channel *ch)
{
	int rc = destroyed(rx.destroy_cq(cq));

	// A channel with a live CQ is EBUSY; keep both then.
	return rc ? rc : destroyed(rx.destroy_comp_channel(ch));
}
