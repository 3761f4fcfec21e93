// What Go calls. Helpers answer a value >= 0, or -errno, captured before they
// return: a second crossing for errno could run on another thread.
#ifndef RDMAXFER_VERBS_H
#define RDMAXFER_VERBS_H

#include <errno.h>
#include <infiniband/verbs.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define RX_MAX_SGE 4

// Work requests as Go lays them out (SendWR, RecvWR): flat, no pointers to Go.
struct rx_send_wr {
	uint64_t id;
	uint32_t opcode, flags, imm, rkey;
	uint64_t remote_addr, compare_add, swap;
	uint64_t ah; // struct ibv_ah *, UD alone
	uint32_t remote_qpn, remote_qkey;
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
	int (*query_pkey)(struct ibv_context *, uint8_t, int, __be16 *);
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
	int (*query_qp)(struct ibv_qp *, struct ibv_qp_attr *, int, struct ibv_qp_init_attr *);
	int (*destroy_qp)(struct ibv_qp *);
	struct ibv_srq *(*create_srq)(struct ibv_pd *, struct ibv_srq_init_attr *);
	int (*modify_srq)(struct ibv_srq *, struct ibv_srq_attr *, int);
	int (*destroy_srq)(struct ibv_srq *);
	struct ibv_ah *(*create_ah)(struct ibv_pd *, struct ibv_ah_attr *);
	int (*destroy_ah)(struct ibv_ah *);
	int (*get_async_event)(struct ibv_context *, struct ibv_async_event *);
	void (*ack_async_event)(struct ibv_async_event *);
	// May be NULL: the library is older than they are (rdma-core 32, 28 and 34).
	ssize_t (*query_gid_table)(struct ibv_context *, struct ibv_gid_entry *, size_t,
				   uint32_t, size_t);
	struct ibv_mr *(*reg_mr_iova2)(struct ibv_pd *, void *, size_t, uint64_t, unsigned int);
	struct ibv_mr *(*reg_dmabuf_mr)(struct ibv_pd *, uint64_t, size_t, uint64_t, int, int);
};

extern struct rx_symbols rx;

// rx_load opens the library and fills rx. It answers NULL, or a malloc'd reason.
char *rx_load(void);

// Devices and ports (objects.c).
int rx_open(const char *name, struct ibv_context **out);
int rx_close_device(struct ibv_context *ctx);
// rx_query_device fills attr in part when the kernel or the provider knows the
// plain attributes alone.
int rx_query_device(struct ibv_context *ctx, struct ibv_device_attr_ex *attr);
int rx_query_port(struct ibv_context *ctx, uint8_t port, struct ibv_port_attr *attr);
// rx_query_pkey answers the entry in host byte order.
int rx_query_pkey(struct ibv_context *ctx, uint8_t port, int index);
int rx_query_gids(struct ibv_context *ctx, struct ibv_gid_entry *entries, size_t n);

struct rx_event {
	uint64_t element; // the queue's address, or the port's number
	uint32_t type, qpn;
};

// rx_async_nonblock makes the context's descriptor of events non-blocking.
int rx_async_nonblock(struct ibv_context *ctx);
// rx_next_event takes and acknowledges one event: 1, or 0 when there is none.
int rx_next_event(struct ibv_context *ctx, struct rx_event *out);

// Protection domains, memory, address handles.
int rx_alloc_pd(struct ibv_context *ctx, struct ibv_pd **out);
int rx_dealloc_pd(struct ibv_pd *pd);
int rx_reg_mr(struct ibv_pd *pd, void *addr, size_t len, unsigned int access,
	      struct ibv_mr **out);
int rx_reg_dmabuf(struct ibv_pd *pd, uint64_t offset, size_t len, uint64_t iova, int fd,
		  unsigned int access, struct ibv_mr **out);
int rx_dereg_mr(struct ibv_mr *mr);
int rx_alloc_mw(struct ibv_pd *pd, int type, struct ibv_mw **out);
int rx_dealloc_mw(struct ibv_mw *mw);

struct rx_path {
	uint8_t dgid[16];
	uint32_t flow_label;
	uint16_t dlid;
	uint8_t port, sgid_index, global, hop_limit, traffic_class, sl;
};

// rx_ah_attr lays a path out as the library has it.
void rx_ah_attr(struct ibv_ah_attr *attr, const struct rx_path *path);
int rx_create_ah(struct ibv_pd *pd, const struct rx_path *path, struct ibv_ah **out);
int rx_destroy_ah(struct ibv_ah *ah);

// Queues (queues.c).
int rx_create_cq(struct ibv_context *ctx, int depth, struct ibv_comp_channel **ch,
		 struct ibv_cq **out);
int rx_destroy_cq(struct ibv_cq *cq, struct ibv_comp_channel *ch);
int rx_create_srq(struct ibv_pd *pd, uint32_t max_wr, uint32_t max_sge, struct ibv_srq **out);
int rx_srq_limit(struct ibv_srq *srq, uint32_t limit);
int rx_destroy_srq(struct ibv_srq *srq);

struct rx_qp_args {
	struct ibv_cq *send_cq, *recv_cq;
	struct ibv_srq *srq;
	uint32_t max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline;
	uint32_t type; // enum ibv_qp_type
};

struct rx_connect_args {
	struct rx_path path;
	uint32_t dest_qpn, rq_psn, sq_psn;
	uint8_t mtu, max_rd_atomic, max_dest_rd_atomic, min_rnr_timer;
	uint8_t timeout, retry_cnt, rnr_retry;
};

int rx_create_qp(struct ibv_pd *pd, const struct rx_qp_args *a, struct ibv_qp **out,
		 uint32_t *max_inline);
int rx_qp_init(struct ibv_qp *qp, uint8_t port, uint16_t pkey_index, uint32_t access,
	       uint32_t qkey);
int rx_qp_rtr(struct ibv_qp *qp, const struct rx_connect_args *a);
int rx_qp_rts(struct ibv_qp *qp, const struct rx_connect_args *a);
int rx_qp_err(struct ibv_qp *qp);
int rx_qp_state(struct ibv_qp *qp);
int rx_destroy_qp(struct ibv_qp *qp);

struct rx_bind {
	uint64_t id, addr, length;
	uint32_t flags, access;
};

// rx_bind_mw posts a bind. The window's rkey is the new one when it returns.
int rx_bind_mw(struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mr *mr, const struct rx_bind *b);

// The hot helpers (post.c). Handles come as numbers: cgo would look at what a pointer
// points to at each call.
int rx_post_send(uintptr_t qp, const struct rx_send_wr *wr, int n, int *posted);
int rx_post_recv(uintptr_t qp, const struct rx_recv_wr *wr, int n, int *posted);
int rx_post_srq(uintptr_t srq, const struct rx_recv_wr *wr, int n, int *posted);
int rx_poll(uintptr_t cq, struct ibv_wc *wc, int n);
// rx_fill_send lays one request out as the library has it.
void rx_fill_send(struct ibv_send_wr *o, const struct rx_send_wr *w, int ud);

// rx_poll_spin polls, and goes on polling up to spin_ns while there is nothing.
int rx_poll_spin(uintptr_t cq, struct ibv_wc *wc, int n, int64_t spin_ns);
// rx_poll_arm takes the event if one was asked for (*armed), polls, asks for an event
// unless one is still to come, and polls once more. *armed says whether one is.
int rx_poll_arm(uintptr_t cq, uintptr_t ch, struct ibv_wc *wc, int n, int solicited, int *armed);
// rx_poll_hold does so again and again, and blocks for the event in between. It answers 0
// when wake (eventfd(2)) was written to, and -ENODEV for a channel that only has an error.
int rx_poll_hold(uintptr_t cq, uintptr_t ch, struct ibv_wc *wc, int n, int solicited, int *armed,
		 int wake);

// Loops that measure (loop.c). Their state is Go's memory, of Go's layout (loop.go).
#define RX_LOOP_CHAIN 64 // requests a doorbell, and receives posted at once, at the most

enum rx_loop_call { RX_LOOP_POLL, RX_LOOP_POST_SEND, RX_LOOP_POST_RECV, RX_LOOP_COMPLETION, RX_LOOP_FOREIGN };

struct rx_loop_queue {
	uintptr_t qp;
	struct rx_send_wr send; // what is posted again and again, one SGE
	struct rx_recv_wr recv; // what is posted again for each receive that was used, one SGE
	uint64_t sent, done;    // requests posted, and those of them that completed
	uint64_t received;      // messages
	uint64_t answered;      // of them, by rx_ping and rx_pong
	uint64_t ringed;        // receives posted
	uint32_t open;          // requests since the last that is signalled
	uint32_t owed;          // receives used and not posted again yet
	uint32_t ud, pad;
};

struct rx_loop {
	uintptr_t cq, ch;
	uint64_t places, stride; // each message takes the next place, so many bytes on
	int64_t spin_ns;         // before a wait on events
	uint32_t queues, depth, chain, signal, repost;
	uint32_t give_way;  // looks without success for each sched_yield(2); 0: none
	int32_t events;     // wait on them; else poll
	int32_t wake;       // eventfd(2) that ends such a wait
	int32_t armed;      // an event was asked for
	int32_t stop;       // set by other threads
	int32_t over;       // a pump's time
	int32_t failed_call; // enum rx_loop_call, where the answer is an error
	int64_t drain;       // polls that are left after stop
	int64_t most;        // requests; 0: any number
	int64_t posted, done, posts;
	int64_t counted, first_ns, last_ns;
	struct ibv_wc failed;
};

// rx_pump keeps the queues full for that long after it is warm, or until most were posted,
// and waits for the last. It answers 1, 0 when it was told to stop, or -errno.
int rx_pump(struct rx_loop *l, struct rx_loop_queue *queues, int64_t warm_ns, int64_t for_ns);
// rx_ping posts a message and waits for the peer's, up to n times, and until for_ns is over
// if that is not 0. It answers how many times it did, or -errno.
int64_t rx_ping(struct rx_loop *l, struct rx_loop_queue *q, int64_t *trips, int64_t n, int64_t for_ns);
// rx_pong answers messages until it is told to stop: 0, or -errno.
int rx_pong(struct rx_loop *l, struct rx_loop_queue *q);

static inline int64_t rx_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// What a failure is that has no errno: not EIO, which is what a removed device answers.
#define RX_NO_REASON EPROTO

// neg makes -errno of a failure that set errno, and never 0.
static inline int rx_neg(int e) { return -(e ? e : RX_NO_REASON); }

// Providers answer an errno, or -1 with errno set (or not), or -errno (qedr, ionic, bnxt_re
// in their posts): all are seen. Of -1 it is errno that counts, if the call set it: so it is
// cleared before.
static inline int rx_answer(int rc)
{
	if (rc == 0 || rc < -1)
		return rc;
	return rx_neg(rc > 0 ? rc : errno);
}
#define RX_CALL(call) (errno = 0, rx_answer(call))

#endif
