// Package ibverbs is a Go wrapper over libibverbs, the user-space interface to
// RDMA devices (InfiniBand, RoCE, and rdma_rxe, the kernel's soft-RoCE).
//
// # The objects, in the order in which they are made
//
// A [Context] is an open device. A [PD] (protection domain) groups what may be
// used together. An [MR] (memory region) is memory that the device may touch,
// named by an lkey locally and by an rkey remotely. A [CQ] (completion queue)
// tells what has finished. A [QP] (queue pair) is one end of a connection; it is
// prepared first ([PD.PrepareQP]), its [Endpoint] is exchanged with the other
// side by whatever means the program has, and only [PreparedQP.Connect] gives a
// QP that can send:
//
//	ctx, err := ibverbs.Open("rxe_a")
//	pd, err := ctx.AllocPD()
//	mr, err := pd.AllocMR(1<<20, ibverbs.AccessLocalWrite)
//	cq, err := ctx.CreateCQ(128)
//	prep, err := pd.PrepareQP(ibverbs.QPConfig{SendCQ: cq, RecvCQ: cq, MaxSend: 16, MaxRecv: 16, Port: 1, GIDIndex: gid.Index})
//	... send prep.Endpoint() to the peer, receive its endpoint ...
//	qp, err := prep.Connect(remote, ibverbs.ConnectParams{})
//	_, err = qp.PostSend([]ibverbs.SendWR{{Opcode: ibverbs.OpSend, Flags: ibverbs.SendSignaled, ...}})
//	n, err := cq.WaitPoll(context.Background(), wcs)
//
// Everything is closed by hand, children before parents: closing a parent that
// has live children is a [BusyError], and nothing is left to the collector,
// because an order chosen by the collector would be wrong.
//
// # What crosses into C
//
// Work requests and completions are flat Go structs without pointers. A whole
// batch of them is posted, or polled, in one crossing into C; the C helpers
// capture errno before they return. Waiting for a completion goes through Go's
// network poller, so a waiting goroutine holds no thread.
//
// # The library is loaded when it is first needed
//
// A program that imports this package does not link libibverbs: the library is
// opened by dlopen at the first call. Where it is absent, calls answer
// [ErrNoLibrary]; a symbol or a verb that it lacks answers [ErrUnsupported]. In
// a build without cgo, or not for Linux, everything answers ErrUnsupported.
package ibverbs
