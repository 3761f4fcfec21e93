package transfer

import (
	"sync/atomic"
	"time"

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

// hashing takes digests beside the moving of the data, on several cores, and counts how long.
type hashing struct{ took atomic.Int64 } // ns

func (h *hashing) extent(kind digest.Kind, p []byte, off int64) digest.Node {
	if kind != digest.None {
		defer h.count(time.Now())
	}
	return kind.Extent(p, off)
}

func (h *hashing) whole(kind digest.Kind, p []byte) Digest {
	if kind != digest.None {
		defer h.count(time.Now())
	}
	return kind.Whole(p)
}

func (h *hashing) count(began time.Time) { h.took.Add(int64(time.Since(began))) }

func (h *hashing) time() time.Duration { return time.Duration(h.took.Load()) }
