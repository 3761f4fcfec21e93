// Package compress makes extents shorter for links that are slower than a CPU.
//
// An extent is one zstd frame (RFC 8878), of the fastest level and without a
// checksum, for it has a digest. What does not get shorter travels as it is. A
// [Chooser] decides for a lane, extent by extent, whether compressing ends sooner.
package compress

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// window is how far back a match may lie. It bounds memory: an encoder keeps a window
// and its tables, a decoder has its window in the extent that it writes.
const window = 1 << 20

// shortest is what a frame begins to tell its length from; less is not worth a frame.
const shortest = 256

// Encoder compresses the extents of one lane, one after the other. The zero Encoder
// is ready, and takes memory when it is first used.
type Encoder struct{ zstd *zstd.Encoder }

// Decoder is its counterpart. The zero Decoder is ready.
type Decoder struct{ zstd *zstd.Decoder }

func newEncoder() *zstd.Encoder {
	return must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false)))
}

func newDecoder() *zstd.Decoder {
	return must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(window), zstd.WithDecoderMaxMemory(wire.MaxExtent), zstd.WithDecodeAllCapLimit(true)))
}

// must is for options that are constants.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var measuring = sync.OnceValue(newEncoder)

// Bound is how much room Encode needs for n bytes, at the most.
func Bound(n int) int { return measuring().MaxEncodedSize(n) }

// Encode compresses p into dst, which has a capacity of Bound(len(p)). It answers
// false where that is not shorter than p, or p too short to try.
func (e *Encoder) Encode(dst, p []byte) (encoded []byte, ok bool) {
	if len(p) < shortest {
		return nil, false
	}
	if e.zstd == nil {
		e.zstd = newEncoder()
	}
	encoded = e.zstd.EncodeAll(p, dst[:0])
	return encoded, len(encoded) < len(p)
}

// Decode makes all of dst out of what Encode made of as many bytes. Anything else is
// an error that wraps [wire.ErrMalformed], and dst may then hold anything. Nothing is
// written behind dst, and no more memory taken, whatever src asks for.
func (d *Decoder) Decode(dst, src []byte) error {
	var h zstd.Header
	if err := h.Decode(src); err != nil {
		return malformed("a compressed extent: %w", err)
	}
	switch {
	case len(src) >= len(dst):
		return malformed("%d bytes are no compressed extent of %d", len(src), len(dst))
	case h.Skippable || !h.HasFCS || h.DictionaryID != 0 || h.FrameContentSize != uint64(len(dst)):
		return malformed("a compressed extent of %d bytes, not %d", h.FrameContentSize, len(dst))
	}
	if d.zstd == nil {
		d.zstd = newDecoder()
	}
	out, err := d.zstd.DecodeAll(src, dst[:0:len(dst)])
	switch {
	case err != nil:
		return malformed("a compressed extent: %w", err)
	case len(out) != len(dst):
		return malformed("a compressed extent of %d bytes, not %d", len(out), len(dst))
	}
	return nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{wire.ErrMalformed}, args...)...)
}
