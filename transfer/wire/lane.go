package wire

import "encoding/binary"

// HeaderSize is the size of a lane header on the wire, bytes.
const HeaderSize = 48

// The first bytes of lane headers: what a stray or hostile stream begins with
// will hardly be one.
const (
	requestMagic = 0x52584c52 // "RXLR"
	answerMagic  = 0x52584c41 // "RXLA"
)

// Request asks for one extent, receiver to sender. Length 0 is a probe: it asks for
// nothing but an answer, and gives back what the lane was lent (op read): the receiver
// has read all of it. A request also gives back what the one before it that had the
// same low half of the ID was answered with.
//
//	0 magic  4 id  8 file  12 count  16 length  20 rkey  24 offset  32 addr  40 zero
type Request struct {
	ID     uint32 // names the request on its lane
	File   uint32 // the first, of a pack
	Count  uint32 // entries of a pack, whose bytes follow each other; 0 for a range of one file
	Length uint32 // bytes
	RKey   uint32 // with Addr: where the answer's bytes may be written (op write)
	Offset int64  // bytes
	Addr   uint64
}

// Status is how a request ended.
type Status uint32

// The statuses of an answer.
const (
	StatusOK         Status = iota
	StatusFailed            // the file can't be read any more; a FileFailed says why
	StatusCompressed        // the payload is one zstd frame of the extent (TCP alone)
	statusEnd
)

// Answer is the reply to a Request; Length bytes of payload follow, or lie in the
// same message.
//
//	0 magic  4 id  8 status  12 length  16 rkey  20 zero  24 addr  32 zero
type Answer struct {
	ID     uint32
	Status Status
	Length uint32 // bytes
	RKey   uint32 // with Addr: where the bytes may be read from (op read)
	Addr   uint64
}

// Put writes the header into the first HeaderSize bytes of b.
func (r *Request) Put(b []byte) {
	_ = b[HeaderSize-1]
	binary.BigEndian.PutUint32(b, requestMagic)
	binary.BigEndian.PutUint32(b[4:], r.ID)
	binary.BigEndian.PutUint32(b[8:], r.File)
	binary.BigEndian.PutUint32(b[12:], r.Count)
	binary.BigEndian.PutUint32(b[16:], r.Length)
	binary.BigEndian.PutUint32(b[20:], r.RKey)
	binary.BigEndian.PutUint64(b[24:], uint64(r.Offset))
	binary.BigEndian.PutUint64(b[32:], r.Addr)
	clear(b[40:HeaderSize])
}

// ParseRequest reads a header and bounds it. Whether the file and the range
// exist is for the one who serves it to check.
func ParseRequest(b []byte) (Request, error) {
	if len(b) != HeaderSize || binary.BigEndian.Uint32(b) != requestMagic || binary.BigEndian.Uint64(b[40:]) != 0 {
		return Request{}, malformed("not a request")
	}
	r := Request{
		ID:     binary.BigEndian.Uint32(b[4:]),
		File:   binary.BigEndian.Uint32(b[8:]),
		Count:  binary.BigEndian.Uint32(b[12:]),
		Length: binary.BigEndian.Uint32(b[16:]),
		RKey:   binary.BigEndian.Uint32(b[20:]),
		Offset: int64(binary.BigEndian.Uint64(b[24:])),
		Addr:   binary.BigEndian.Uint64(b[32:]),
	}
	if r.Length > MaxExtent || r.Offset < 0 || r.Offset > MaxSize || r.File >= MaxEntries || r.Count > MaxPack || r.Count > 0 && r.Offset != 0 {
		return Request{}, malformed("a request of %d bytes at %d of file %d", r.Length, r.Offset, r.File)
	}
	return r, nil
}

// Put writes the header into the first HeaderSize bytes of b.
func (a *Answer) Put(b []byte) {
	_ = b[HeaderSize-1]
	binary.BigEndian.PutUint32(b, answerMagic)
	binary.BigEndian.PutUint32(b[4:], a.ID)
	binary.BigEndian.PutUint32(b[8:], uint32(a.Status))
	binary.BigEndian.PutUint32(b[12:], a.Length)
	binary.BigEndian.PutUint32(b[16:], a.RKey)
	binary.BigEndian.PutUint32(b[20:], 0)
	binary.BigEndian.PutUint64(b[24:], a.Addr)
	clear(b[32:HeaderSize])
}

// ParseAnswer reads a header and bounds it. Whether such an answer was asked for
// is for the lane to check.
func ParseAnswer(b []byte) (Answer, error) {
	if len(b) != HeaderSize || binary.BigEndian.Uint32(b) != answerMagic ||
		binary.BigEndian.Uint32(b[20:]) != 0 || binary.BigEndian.Uint64(b[32:]) != 0 || binary.BigEndian.Uint64(b[40:]) != 0 {
		return Answer{}, malformed("not an answer")
	}
	a := Answer{
		ID:     binary.BigEndian.Uint32(b[4:]),
		Status: Status(binary.BigEndian.Uint32(b[8:])),
		Length: binary.BigEndian.Uint32(b[12:]),
		RKey:   binary.BigEndian.Uint32(b[16:]),
		Addr:   binary.BigEndian.Uint64(b[24:]),
	}
	if a.Length > MaxExtent || a.Status >= statusEnd || (a.Status == StatusFailed && a.Length != 0) {
		return Answer{}, malformed("an answer with status %d and %d bytes", a.Status, a.Length)
	}
	return a, nil
}
