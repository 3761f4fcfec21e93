// What Go calls. Helpers answer a value >= 0, or -errno, captured before they
// return: a second crossing for errno could run on another thread.
#ifndef RDMAXFER_VERBS_H
#define RDMAXFER_VERBS_H

#include <infiniband/verbs.h>
#include <stddef.h>
#include <stdint.h>

#define RX_MAX_SGE 4

// Work requests as Go lays them out (SendWR, RecvWR): flat, no pointers.
struct rx_send_wr {
	uint64_t id;
	uint32_t opcode, flags, imm, rkey;
	uint64_t remote_addr, compare_add, swap;
	uint32_t num_sge, pad;
	struct ibv_sge sge[RX_MAX_SGE];
};

struct rx_recv_wr {
	uint64_t id;
	uint32_t num_sge, pad;
	struct ibv_sge sge[RX_MAX_SGE];
};

// The symbols of libibverbs that are called by name. Posting, polling and arming
// go through the context's own table and need none.
struct rx_symbols {
	struct ibv_device **(*get_device_list)(int *);
	void (*free_device_list)(struct ibv_device **);
	struct ibv_context *(*open_device)(struct ibv_device *);
	int (*close_device)(struct ibv_context *);
	int (*query_device)(struct ibv_context *, struct ibv_device_attr *);
	int (*query_port)(struct ibv_context *, uint8_t, struct _compat_ibv_port_attr *);
	ssize_t (*query_gid_table)(struct ibv_context *, struct ibv_gid_entry *, size_t,
				   uint32_t, size_t); // may be NULL: rdma-core before v32
	struct ibv_pd *(*alloc_pd)(struct ibv_context *);
	int (*dealloc_pd)(struct ibv_pd *);
	struct ibv_mr *(*reg_mr)(struct ibv_pd *, void *, size_t, int);
	int (*dereg_mr)(struct ibv_mr *);
	struct ibv_comp_channel *(*create_comp_channel)(struct ibv_context *);
	int (*destroy_comp_channel)(struct ibv_comp_channel *);
	struct ibv_cq *(*create_cq)(struct ibv_context *, int, void *,
				    struct ibv_comp_channel *, int);
	int (*destroy_cq)(struct ibv_cq *);
	int (*get_cq_event)(struct ibv_comp_channel *, struct ibv_cq **, void **);
	void (*ack_cq_events)(struct ibv_cq *, unsigned int);
	struct ibv_qp *(*create_qp)(struct ibv_pd *, struct ibv_qp_init_attr *);
	int (*modify_qp)(struct ibv_qp *, struct ibv_qp_attr *, int);
	int (*destroy_qp)(struct ibv_qp *);
};

extern struct rx_symbols rx;

// rx_load opens the library and fills rx. It answers NULL, or a malloc'd reason.
char *rx_load(void);

struct rx_qp_args {
	struct ibv_cq *send_cq, *recv_cq;
	uint32_t max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline;
	uint32_t type; // enum ibv_qp_type
};

struct rx_connect_args {
	uint32_t dest_qpn, rq_psn, sq_psn, access, flow_label;
	uint8_t dgid[16];
	uint16_t dlid, pkey_index;
	uint8_t port, mtu, sgid_index, global, hop_limit, traffic_class, sl;
	uint8_t max_rd_atomic, max_dest_rd_atomic, min_rnr_timer, timeout, retry_cnt, rnr_retry;
};

int rx_open(const char *name, struct ibv_context **out);
int rx_query_port(struct ibv_context *ctx, uint8_t port, struct ibv_port_attr *attr);
int rx_query_gids(struct ibv_context *ctx, struct ibv_gid_entry *entries, size_t n);
int rx_alloc_pd(struct ibv_context *ctx, struct ibv_pd **out);
int rx_reg_mr(struct ibv_pd *pd, void *addr, size_t len, int access, struct ibv_mr **out);
int rx_create_cq(struct ibv_context *ctx, int depth, struct ibv_comp_channel **ch,
		 struct ibv_cq **out);
int rx_create_qp(struct ibv_pd *pd, const struct rx_qp_args *a, struct ibv_qp **out,
		 uint32_t *max_inline);
int rx_qp_init(struct ibv_qp *qp, uint8_t port, uint16_t pkey_index, uint32_t access);
int rx_qp_rtr(struct ibv_qp *qp, const struct rx_connect_args *a);
int rx_qp_rts(struct ibv_qp *qp, const struct rx_connect_args *a);
int rx_qp_err(struct ibv_qp *qp);

// Destructors, by the address of their symbol's slot in rx.
int rx_close_device(struct ibv_context *ctx);
int rx_dealloc_pd(struct ibv_pd *pd);
int rx_dereg_mr(struct ibv_mr *mr);
int rx_destroy_cq(struct ibv_cq *cq, struct ibv_comp_channel *ch);
int rx_destroy_qp(struct ibv_qp *qp);

// The hot helpers (post.c).
int rx_post_send(struct ibv_qp *qp, const struct rx_send_wr *wr, int n, int *posted);
int rx_post_recv(struct ibv_qp *qp, const struct rx_recv_wr *wr, int n, int *posted);
int rx_poll(struct ibv_cq *cq, struct ibv_wc *wc, int n);
// rx_poll_arm polls, spins up to spin_ns while there is nothing, then, if arm,
// asks for an event and polls once more. *armed is set when it asked.
int rx_poll_arm(struct ibv_cq *cq, struct ibv_wc *wc, int n, int64_t spin_ns, int arm, int *armed);
// rx_drain_events takes every completion event that is waiting in the channel
// and acknowledges them in one go; it answers how many there were.
int rx_drain_events(struct ibv_comp_channel *ch);

#endif
