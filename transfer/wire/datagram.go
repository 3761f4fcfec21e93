package wire

import (
	"crypto/subtle"
	"encoding/binary"
)

// UDPLane is what the two ends of a lane of datagrams tell each other.
type UDPLane struct {
	Port uint16 `cbor:"1,keyasint"` // of the teller's socket, at its address of the session
	// Tag is what every datagram to the teller begins with. It travels inside TLS, so
	// that who does not see the datagrams themselves can't send any that count.
	Tag [TagSize]byte `cbor:"2,keyasint"`
	// Payload is the size of a whole datagram, bytes, without the headers of IP and UDP: in
	// the sender's answer, as its path MTU has it.
	Payload uint16 `cbor:"3,keyasint,omitempty"`
}

// Sizes of datagrams, bytes.
const (
	TagSize            = 16
	AskSize            = TagSize + HeaderSize + 8 // an Ask
	DatagramHeaderSize = TagSize + 8
	MinDatagram        = 508   // what a host must take (RFC 791: 576 with headers)
	MaxDatagram        = 65507 // of IPv4
)

func (l *UDPLane) check() error {
	if l == nil {
		return nil
	}
	if l.Port == 0 || l.Payload != 0 && l.Payload < MinDatagram || l.Payload > MaxDatagram {
		return malformed("datagrams of %d bytes at port %d", l.Payload, l.Port)
	}
	return nil
}

// Ask asks for a part of an extent: as many datagrams as one system call can answer with.
// An extent of length 0 is a trial: it asks for one whole datagram.
//
//	0 tag  16 request  64 from  68 bytes
type Ask struct {
	Request        // names the extent; the ID is the ask's
	From    uint32 // bytes of the extent before the part
	Bytes   uint32 // of the part
}

// Put writes the ask, a whole datagram, into the first AskSize bytes of b.
func (a *Ask) Put(b []byte, tag *[TagSize]byte) {
	copy(b, tag[:])
	a.Request.Put(b[TagSize:])
	binary.BigEndian.PutUint32(b[TagSize+HeaderSize:], a.From)
	binary.BigEndian.PutUint32(b[TagSize+HeaderSize+4:], a.Bytes)
}

// ParseAsk reads a datagram that Put wrote, and bounds it.
func ParseAsk(b []byte, tag *[TagSize]byte) (Ask, error) {
	if len(b) != AskSize || subtle.ConstantTimeCompare(b[:TagSize], tag[:]) != 1 {
		return Ask{}, malformed("a datagram that is not from the other end of the lane")
	}
	r, err := ParseRequest(b[TagSize : TagSize+HeaderSize])
	if err != nil {
		return Ask{}, err
	}
	a := Ask{r, binary.BigEndian.Uint32(b[TagSize+HeaderSize:]), binary.BigEndian.Uint32(b[TagSize+HeaderSize+4:])}
	if a.From > r.Length || a.Bytes > r.Length-a.From || (a.Bytes == 0) != (r.Length == 0) {
		return Ask{}, malformed("an ask for %d bytes at %d of %d", a.Bytes, a.From, r.Length)
	}
	return a, nil
}

// Datagram is the header of one that brings some of what an Ask asked for.
//
//	0 tag  16 id  20 index
type Datagram struct {
	ID    uint32 // of the ask
	Index uint32 // which part: all but the last are of the size that was agreed
}

// Put writes the header into the first DatagramHeaderSize bytes of b.
func (d Datagram) Put(b []byte, tag *[TagSize]byte) {
	copy(b, tag[:])
	binary.BigEndian.PutUint32(b[TagSize:], d.ID)
	binary.BigEndian.PutUint32(b[TagSize+4:], d.Index)
}

// ParseDatagram splits one into its header and what it brings. Whether that was asked for
// is for the lane to check.
func ParseDatagram(b []byte, tag *[TagSize]byte) (d Datagram, payload []byte, err error) {
	if len(b) < DatagramHeaderSize || subtle.ConstantTimeCompare(b[:TagSize], tag[:]) != 1 {
		return Datagram{}, nil, malformed("a datagram that is not from the other end of the lane")
	}
	return Datagram{binary.BigEndian.Uint32(b[TagSize:]), binary.BigEndian.Uint32(b[TagSize+4:])}, b[DatagramHeaderSize:], nil
}
