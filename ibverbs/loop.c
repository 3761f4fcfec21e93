//go:build linux && cgo

// The loops of programs that measure (loop.go): they stay in C until they are done.
#include "verbs.h"

#include <sched.h>

#define POLL 16      // completions a poll
#define GLANCE 65536 // looks at a byte for each at the completions

// The ID of a receive is this bit and its queue's number. That of a request is the number
// of its queue, and how many were posted to that before it, modulo 2^40.
#define RECV ((uint64_t)1 << 63)
#define ORDINAL(n) ((uint64_t)(n) & (((uint64_t)1 << 40) - 1))
#define QUEUE(id) (((id) & ~RECV) >> 40)

static int stopped(const struct rx_loop *l) { return __atomic_load_n(&l->stop, __ATOMIC_RELAXED); }

// pause_after is for a look that found nothing: on request, every so many, others run.
static inline void pause_after(const struct rx_loop *l, uint32_t *left)
{
	if (l->give_way && --*left == 0) {
		sched_yield();
		*left = l->give_way;
	}
}

// fail notes what failed, and answers rc.
static int fail(struct rx_loop *l, enum rx_loop_call call, int rc)
{
	l->failed_call = call;
	return rc;
}

// over_now says whether the loop is to stop. What completed before it was told to is taken
// first, in so many polls: a peer may go on sending.
static inline int over_now(struct rx_loop *l, int stop) { return stop && l->drain-- <= 0; }

// poll_until polls for up to most completions. It answers how many there are, 0 when the
// loop is to stop, or -errno.
static inline int poll_until(struct rx_loop *l, struct ibv_wc *wcs, int most)
{
	struct ibv_cq *cq = (struct ibv_cq *)l->cq;
	uint32_t left = l->give_way;

	for (;;) {
		int stop = stopped(l); // before the poll

		if (over_now(l, stop))
			return 0;
		int n = ibv_poll_cq(cq, most, wcs);

		if (n < 0)
			return fail(l, RX_LOOP_POLL, -RX_NO_REASON); // as rx_poll
		if (n > 0 || stop)
			return n;
		pause_after(l, &left);
	}
}

// wait_until waits on events, as poll_until polls.
static int wait_until(struct rx_loop *l, struct ibv_wc *wcs, int most)
{
	for (;;) {
		int stop = stopped(l), n = 0;

		if (over_now(l, stop))
			return 0;
		if (stop)
			n = rx_poll(l->cq, wcs, most);
		else if (l->spin_ns > 0)
			n = rx_poll_spin(l->cq, wcs, most, l->spin_ns);
		if (n == 0 && !stop)
			n = rx_poll_hold(l->cq, l->ch, wcs, most, 0, &l->armed, l->wake);
		if (n < 0)
			return fail(l, RX_LOOP_POLL, n);
		if (n > 0 || stop)
			return n;
	}
}

// received counts a receive, and posts those that are owed again once they are enough.
static int received(struct rx_loop *l, struct rx_loop_queue *q)
{
	struct ibv_recv_wr wrs[RX_LOOP_CHAIN], *bad;
	struct ibv_sge sges[RX_LOOP_CHAIN];

	q->received++;
	if (++q->owed < l->repost)
		return 0;
	for (uint32_t i = 0; i < q->owed; i++) {
		sges[i] = q->recv.sge[0];
		sges[i].addr += q->ringed++ % l->places * l->stride;
		wrs[i].wr_id = q->recv.id;
		wrs[i].sg_list = &sges[i];
		wrs[i].num_sge = 1;
		wrs[i].next = i + 1 < q->owed ? &wrs[i + 1] : NULL;
	}
	q->owed = 0;
	int rc = RX_CALL(ibv_post_recv((struct ibv_qp *)q->qp, wrs, &bad));

	return rc ? fail(l, RX_LOOP_POST_RECV, rc) : 0;
}

// see sees to n completions, and answers 1, or -errno. One that is not of this loop's work
// would be counted for what it is not.
static inline int see(struct rx_loop *l, struct rx_loop_queue *queues, const struct ibv_wc *wcs, int n)
{
	for (int i = 0; i < n; i++) {
		uint64_t id = wcs[i].wr_id;

		if (wcs[i].status != IBV_WC_SUCCESS) {
			l->failed = wcs[i];
			return fail(l, RX_LOOP_COMPLETION, -EIO);
		}
		if (id & RECV) {
			if ((id & ~RECV) >= l->queues || queues[id & ~RECV].recv.num_sge != 1)
				return fail(l, RX_LOOP_FOREIGN, -EPROTO);
			int rc = received(l, &queues[id & ~RECV]);

			if (rc)
				return rc;
			continue;
		}
		if (QUEUE(id) >= l->queues)
			return fail(l, RX_LOOP_FOREIGN, -EPROTO);
		struct rx_loop_queue *q = &queues[QUEUE(id)];
		uint64_t more = ORDINAL(id + 1 - q->done); // it, and those before it

		if (more > q->sent - q->done)
			return fail(l, RX_LOOP_FOREIGN, -EPROTO);
		q->done += more;
		l->done += more;
	}
	return 1;
}

// take waits for up to most completions, of those that POLL has room for, and sees to them.
// It answers 1, 0 when the loop is to stop, or -errno.
static inline int take(struct rx_loop *l, struct rx_loop_queue *queues, int most)
{
	struct ibv_wc wcs[POLL];
	int n = l->events ? wait_until(l, wcs, most) : poll_until(l, wcs, most);

	return n > 0 ? see(l, queues, wcs, n) : n;
}

// glance sees to what has completed, if anything has, and answers as see does.
static int glance(struct rx_loop *l, struct rx_loop_queue *queues)
{
	struct ibv_wc wcs[POLL];
	int n = rx_poll(l->cq, wcs, POLL);

	return n < 0 ? fail(l, RX_LOOP_POLL, n) : see(l, queues, wcs, n);
}

// ended says whether a pump posts no more.
static int ended(const struct rx_loop *l)
{
	return l->over || (l->most > 0 && l->posted >= l->most);
}

// post posts a chain of up to most messages, as long as there is room, and answers how many
// those were, or -errno. When no more is to come it ends with one that tells when it and
// those before it are done, if none of them does.
static int post(struct rx_loop *l, struct rx_loop_queue *queues, struct rx_loop_queue *q, uint32_t most)
{
	struct ibv_send_wr wrs[RX_LOOP_CHAIN], *bad;
	struct ibv_sge sges[RX_LOOP_CHAIN];
	uint32_t n = 0;

	while (n < most && q->sent - q->done < l->depth && (!ended(l) || q->open > 0)) {
		uint64_t at = q->sent % l->places * l->stride;
		struct ibv_send_wr *w = &wrs[n];

		rx_fill_send(w, &q->send, q->ud);
		sges[n] = q->send.sge[0];
		sges[n].addr += at;
		w->sg_list = &sges[n];
		if (!q->ud)
			w->wr.rdma.remote_addr += at;
		w->wr_id = (uint64_t)(q - queues) << 40 | ORDINAL(q->sent);
		w->next = NULL;
		if (n++ > 0)
			wrs[n - 2].next = w;
		q->sent++;
		q->open++;
		l->posted++;
		if (q->open >= l->signal || q->sent - q->done == l->depth || ended(l)) {
			w->send_flags |= IBV_SEND_SIGNALED;
			q->open = 0;
		}
	}
	if (n == 0)
		return 0;
	int rc = RX_CALL(ibv_post_send((struct ibv_qp *)q->qp, wrs, &bad));

	if (rc)
		return fail(l, RX_LOOP_POST_SEND, rc);
	l->posts++;
	return (int)n;
}

// count counts what completed between the first look after warm and the last before until,
// and sees whether the time is over.
static void count(struct rx_loop *l, int64_t done, int64_t warm, int64_t until)
{
	int64_t now = rx_now_ns();

	if (now >= until) {
		l->over = 1;
	} else if (l->first_ns) {
		l->counted += done;
		l->last_ns = now;
	} else if (now >= warm) {
		l->first_ns = l->last_ns = now;
	}
}

int rx_pump(struct rx_loop *l, struct rx_loop_queue *queues, int64_t warm_ns, int64_t for_ns)
{
	int64_t warm = rx_now_ns() + warm_ns;
	int64_t until = for_ns > 0 ? warm + for_ns : INT64_MAX;

	for (;;) {
		int64_t before = l->done;
		int rc;

		for (uint32_t i = 0; l->depth > 0 && i < l->queues; i++)
			do {
				rc = post(l, queues, &queues[i], l->chain);
				if (rc < 0)
					return rc;
			} while (rc > 0);
		if (l->depth > 0 && ended(l) && l->done == l->posted)
			return 1;
		rc = take(l, queues, POLL);
		if (rc <= 0)
			return rc;
		if (l->done > before)
			count(l, l->done - before, warm, until);
	}
}

// A game is a loop of one message at a time. What lies between a message and the next post
// counts, several times where a kernel's thread sleeps meanwhile: so the next request is laid
// out before the message is there, and the clock is read after the post.
struct game {
	struct rx_loop *l;
	struct rx_loop_queue *q;
	struct ibv_send_wr wr;
	struct ibv_sge sge;
};

static void set_out(struct game *g, struct rx_loop *l, struct rx_loop_queue *q)
{
	g->l = l;
	g->q = q;
	rx_fill_send(&g->wr, &q->send, q->ud);
	g->wr.next = NULL;
	g->wr.sg_list = &g->sge;
	g->sge = q->send.sge[0];
}

// last_byte is that of the nth message, counted from 0, that comes in.
static uint8_t *last_byte(const struct rx_loop *l, const struct ibv_sge *sge, uint64_t n)
{
	return (uint8_t *)(uintptr_t)(sge->addr + n % l->places * l->stride + sge->length - 1);
}

// mark is what that byte is: never 0, which memory is at first, and never what the message
// before it in the same place had.
static uint8_t mark(const struct rx_loop *l, uint64_t n) { return (uint8_t)(1 + n / l->places % 255); }

// await waits for the next message: of reads its completion, of sends a receive, and of
// writes that its last byte is what the peer makes it. It answers as take does.
static inline int await(struct game *g)
{
	struct rx_loop *l = g->l;
	struct rx_loop_queue *q = g->q;
	uint32_t left = l->give_way;
	int rc = 1;

	switch (g->wr.opcode) {
	case IBV_WR_RDMA_READ:
		while (rc > 0 && q->done != q->sent)
			rc = take(l, q, 1);
		return rc;
	case IBV_WR_RDMA_WRITE: {
		uint8_t *seen = last_byte(l, &q->recv.sge[0], q->received);
		uint8_t is = mark(l, q->received++);

		for (uint32_t looks = 1; __atomic_load_n(seen, __ATOMIC_ACQUIRE) != is; looks++) {
			if (stopped(l))
				return 0;
			// Why none comes may be known: this end's own has failed.
			if (looks % GLANCE == 0 && (rc = glance(l, q)) < 0)
				return rc;
			pause_after(l, &left);
		}
		return 1;
	}
	default:
		while (rc > 0 && q->received == q->answered)
			rc = take(l, q, 1);
		q->answered++;
		return rc;
	}
}

// prepare lays the next message out. It waits for room first, which there is but every so
// many, and answers as take does.
static inline int prepare(struct game *g)
{
	struct rx_loop *l = g->l;
	struct rx_loop_queue *q = g->q;
	uint64_t at = l->places > 1 ? q->sent % l->places * l->stride : 0;

	while (q->sent - q->done == l->depth) {
		int rc = take(l, q, POLL);

		if (rc <= 0)
			return rc;
	}
	g->sge.addr = q->send.sge[0].addr + at;
	if (!q->ud)
		g->wr.wr.rdma.remote_addr = q->send.remote_addr + at;
	g->wr.wr_id = ORDINAL(q->sent);
	g->wr.send_flags = q->send.flags;
	if (++q->open >= l->signal || q->sent + 1 - q->done == l->depth) {
		g->wr.send_flags |= IBV_SEND_SIGNALED;
		q->open = 0;
	}
	return 1;
}

// play posts what was laid out.
static inline int play(struct game *g)
{
	struct rx_loop_queue *q = g->q;
	struct ibv_send_wr *bad;

	if (g->wr.opcode == IBV_WR_RDMA_WRITE)
		*(uint8_t *)(uintptr_t)(g->sge.addr + g->sge.length - 1) = mark(g->l, q->sent);
	q->sent++;
	int rc = RX_CALL(ibv_post_send((struct ibv_qp *)q->qp, &g->wr, &bad));

	if (rc)
		return fail(g->l, RX_LOOP_POST_SEND, rc);
	g->l->posts++;
	return 1;
}

int64_t rx_ping(struct rx_loop *l, struct rx_loop_queue *q, int64_t *trips, int64_t n, int64_t for_ns)
{
	int64_t until = for_ns > 0 ? rx_now_ns() + for_ns : INT64_MAX, played = 0;
	struct game g;

	set_out(&g, l, q);

	int rc = prepare(&g);

	if (rc > 0)
		rc = play(&g);
	for (int64_t last = rx_now_ns(); rc > 0;) {
		int final = played + 1 == n || last >= until;

		if (!final)
			rc = prepare(&g);
		if (rc > 0)
			rc = await(&g);
		if (rc > 0 && !final)
			rc = play(&g);
		if (rc <= 0)
			break;
		int64_t now = rx_now_ns();

		trips[played++] = now - last;
		last = now;
		if (final)
			break;
	}
	return rc < 0 ? rc : played;
}

int rx_pong(struct rx_loop *l, struct rx_loop_queue *q)
{
	struct game g;
	int rc = 1;

	set_out(&g, l, q);
	while (rc > 0) {
		rc = prepare(&g);
		if (rc > 0)
			rc = await(&g);
		if (rc > 0)
			rc = play(&g);
	}
	return rc;
}
