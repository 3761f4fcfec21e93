// Package ibverbs is a Go wrapper over libibverbs, the user-space interface to
// RDMA devices (InfiniBand, RoCE, and rdma_rxe, the kernel's soft-RoCE).
//
// # The objects, in the order in which they are made
//
// A [Context] is an open device. A [PD] (protection domain) groups what may be
// used together. An [MR] (memory region) is memory that the device may touch,
// named by an lkey locally and by an rkey remotely; an [MW] (memory window) is an
// rkey for a part of one. A [CQ] (completion queue) tells what has finished. A [QP]
// (queue pair) is one end of a connection; it is prepared first ([PD.PrepareQP]),
// its [Endpoint] is exchanged with the other side by whatever means the program
// has, and only [PreparedQP.Connect] gives a QP that can send. The example is a
// whole program.
//
// A queue pair that is not connected ([PD.OpenUD]) sends datagrams to whomever an
// [AH] (address handle) names. Queue pairs with many peers can take their receives
// from one [SRQ] (shared receive queue).
//
// Everything is closed by hand, children before parents: closing a parent that
// has live children is a [BusyError], and nothing is left to the collector,
// because an order chosen by the collector would be wrong. [Live] tells tests what
// was left open. A queue pair that others may still write to, or whose completions
// matter, ends by [QP.Drain] and then Close.
//
// # What moves bytes
//
// Work requests go into queues, and completions come out of others. A [RecvWR] says
// where a message may land; a [SendWR] sends a message to such a place ([OpSend]), or
// reads, writes or changes the peer's memory without the peer's program having a part
// in it ([OpRead], [OpWrite], [OpFetchAdd], [OpCompareSwap]). A completion ([WC]) that
// carries no error means, of a send, write or atomic of a reliable queue pair, that
// the peer's device has it; of a read, that the bytes are here. Until then the memory
// that a request names belongs to the device.
//
// Only the first failure of a queue pair says what happened. Those that come after
// it are flushes ([ClassFlush]), and the queue pair is of no use any more.
//
// [SendCredits] counts the places of a send queue, so that a program can signal one
// request in many and never overruns the queue.
//
// # What crosses into C
//
// Work requests and completions are flat Go structs without pointers. A whole
// batch of them is posted, or polled, in one crossing into C; the C helpers
// capture errno before they return. Waiting for a completion ([CQ.WaitPoll]) or an
// event of the device ([Context.NextEvent]) goes through Go's network poller, so a
// waiting goroutine holds no thread. Posting, polling and waiting allocate nothing.
//
// Who measures can leave the whole loop to C ([Pump], [PingPong]), so that nothing of Go's
// runtime is in what he measures.
//
// # Finding the way
//
// A host has several GIDs, and their indices shift as addresses come and go: look
// one up by its address ([Context.FindGID]). Between network namespaces a table also
// shows what only another namespace can use. What a connection's parameters should
// not be is found before the device is asked, which would say no more than "invalid
// argument" ([ParamError]); what only shows on the wire is a completion's status
// ([WCError]), whose text says what usually is behind it.
//
// What a kernel or a device can do beyond that is tried ([Context.CanODP],
// [Context.CanRegisterReadOnly], [Context.CanUseHugePages]), never taken from a
// version, and what it can't is [ErrUnsupported].
//
// # The library is loaded when it is first needed
//
// A program that imports this package does not link libibverbs: the library is
// opened by dlopen at the first call. Where it is absent, calls answer
// [ErrNoLibrary]; a symbol or a verb that it lacks answers [ErrUnsupported]. In
// a build without cgo, or not for Linux, everything answers ErrUnsupported.
package ibverbs
