package transfer

import "github.com/rdmaxfer/rdmaxfer/transfer/digest"

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
