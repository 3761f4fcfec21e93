// Package wire is what two rdmaxfer hosts say to each other, and how it is
// written down. It is pure: no sockets, no files, no clocks.
//
// There are two languages. Control messages travel inside the session's TLS
// connection: a frame is the length of what follows (uint32, big endian), one
// byte of [Kind], and a CBOR body (RFC 8949) decoded strictly. Lane headers are
// 48 bytes, fixed, and travel beside the payload on a lane; see [Request] and
// [Answer]. What comes from a peer is hostile until it was checked: every length
// and count is bounded here, before anything is allocated for it.
package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// Version is the protocol's. Two hosts that differ in it don't talk.
const Version = 6

// Bounds on what a peer may say.
const (
	MaxFrame   = 1 << 20 // bytes of a control frame, kind included
	MaxPath    = 4096    // bytes of an entry's path
	MaxText    = 4096    // bytes of an error's words
	MaxLanes   = 64
	MaxEntries = 1 << 24  // of a manifest
	MaxExtent  = 16 << 20 // bytes of one extent
	MaxPack    = 1 << 12  // entries of one pack, or of which one message speaks
	MaxSize    = 1 << 52  // bytes of one file: 32 bits number its extents of 1 MiB
)

// ErrMalformed says that a peer sent what the protocol does not allow.
var ErrMalformed = errors.New("malformed message from the peer")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Kind is a control message's type on the wire.
type Kind uint8

// Message is one control message, a pointer to one of this package's structs.
type Message interface {
	kind() Kind
	check() error
}

var (
	encoder, _ = cbor.CoreDetEncOptions().UserBufferEncMode()
	decoder, _ = cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
		MaxNestedLevels:   8,
		MaxArrayElements:  65536,
		MaxMapPairs:       1024,
	}.DecMode()
)

// bodies are for what is encoded and not kept: there is a message for each small file.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// encoded calls with what m is, encoded, which is void afterwards.
func encoded(m Message, call func(body []byte) error) error {
	body := bodies.Get().(*bytes.Buffer)
	defer bodies.Put(body)
	body.Reset()
	if err := encoder.MarshalToBuffer(m, body); err != nil {
		return fmt.Errorf("encoding %T: %w", m, err)
	}
	return call(body.Bytes())
}

// Append appends the whole frame of a message to b. A message that breaks the bounds is
// refused here as it would be by the peer, and b is as it was.
func Append(b []byte, m Message) ([]byte, error) {
	if err := m.check(); err != nil {
		return b, err
	}
	err := encoded(m, func(body []byte) error {
		if len(body)+1 > MaxFrame {
			return fmt.Errorf("%T has %d bytes: more than a frame holds", m, len(body))
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(body)+1))
		b = append(append(b, byte(m.kind())), body...)
		return nil
	})
	return b, err
}

// Read takes one frame off r and decodes it.
func Read(r *bufio.Reader) (Message, error) {
	head, err := r.Peek(4)
	if err != nil {
		return nil, within(err, len(head))
	}
	n := int(binary.BigEndian.Uint32(head))
	if n < 1 || n > MaxFrame {
		return nil, malformed("a frame of %d bytes", uint32(n))
	}
	r.Discard(4)
	if n > r.Size() {
		frame := make([]byte, n)
		if _, err := io.ReadFull(r, frame); err != nil {
			return nil, within(err, 4)
		}
		return Decode(frame)
	}
	frame, err := r.Peek(n) // where it is: what is decoded keeps nothing of it
	if err != nil {
		return nil, within(err, 4)
	}
	defer r.Discard(n)
	return Decode(frame)
}

// within is err where so many bytes of a frame had come.
func within(err error, had int) error {
	if err == io.EOF && had > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Decode decodes a frame without its length: the kind, then the body.
func Decode(frame []byte) (Message, error) {
	if len(frame) < 1 {
		return nil, malformed("an empty frame")
	}
	m := newMessage(Kind(frame[0]))
	if m == nil {
		return nil, malformed("a message of unknown kind %d", frame[0])
	}
	if err := decoder.Unmarshal(frame[1:], m); err != nil {
		return nil, malformed("%T: %v", m, err)
	}
	// A message has one form, the encoder's. What the decoder would let pass, a field
	// left out, a null, an array in the place of bytes or bytes of another length than
	// the field's, is not it.
	same := false
	err := encoded(m, func(again []byte) error {
		same = bytes.Equal(again, frame[1:])
		return nil
	})
	if err != nil || !same {
		return nil, malformed("%T in another form than this protocol's", m)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}
