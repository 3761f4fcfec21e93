package transfer

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/rdmaxfer/rdmaxfer/internal/thread"
	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
)

// Digest is a file's, or of an extent of it: see [digest.Sum].
type Digest = digest.Sum

// blockSize is what the ledger keeps account of, bytes: a block is all there, or asked
// for again.
const blockSize = 16 << 20

// The verifications that a sender can ask for.
const (
	VerifyBLAKE3 = "blake3"
	VerifyXXH3   = "xxh3"
	VerifyCRC32C = "crc32c"
	VerifyNone   = "none"
)

// hashing takes digests beside the moving of the data, on several cores, and knows about what
// CPU time they take: of one in so many it asks its thread's clock, which is a system call.
type hashing struct {
	n, bytes    atomic.Int64 // digests, and of how much
	timed, took atomic.Int64 // of how much of that the time was taken; ns
}

const timedOf = 16

func (h *hashing) extent(kind digest.Kind, p []byte, off int64) (n digest.Node) {
	h.run(kind, len(p), func() { n = kind.Extent(p, off) })
	return n
}

func (h *hashing) whole(kind digest.Kind, p []byte) (d Digest) {
	h.run(kind, len(p), func() { d = kind.Whole(p) })
	return d
}

func (h *hashing) run(kind digest.Kind, bytes int, take func()) {
	if kind == digest.None || bytes == 0 {
		take()
		return
	}
	h.bytes.Add(int64(bytes))
	if h.n.Add(1)%timedOf != 1 {
		take()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := thread.Time()
	take()
	h.took.Add(int64(thread.Time() - began))
	h.timed.Add(int64(bytes))
}

// time is about what all of them took.
func (h *hashing) time() time.Duration {
	timed := h.timed.Load()
	if timed == 0 {
		return 0
	}
	return time.Duration(float64(h.took.Load()) * float64(h.bytes.Load()) / float64(timed))
}
