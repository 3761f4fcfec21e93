package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// LaneMagic is the first byte of a TCP lane's connection. TLS begins with 0x16,
// so one port tells the two apart by one byte.
const LaneMagic = 'R'

// Sizes of what a TCP lane begins with, bytes: the dialler's preamble, and the
// proof that the listener answers with.
const (
	PreambleSize = 1 + 3 + 16 + 4 + sha256.Size
	ProofSize    = sha256.Size
)

// Preamble is how a connection says which lane of which session it is: the
// session's name, the lane's number, and a proof made from the lane's ticket,
// which only travelled inside the session's TLS. A ticket is good for one
// presentation.
type Preamble struct {
	Session [16]byte
	Lane    uint32
	Proof   [sha256.Size]byte
}

// Put writes the preamble into the first PreambleSize bytes of b.
func (p *Preamble) Put(b []byte) {
	copy(b, "RXL1")
	copy(b[4:], p.Session[:])
	binary.BigEndian.PutUint32(b[20:], p.Lane)
	copy(b[24:PreambleSize], p.Proof[:])
}

// ParsePreamble reads a preamble. Its proof is not checked here.
func ParsePreamble(b []byte) (Preamble, error) {
	if len(b) != PreambleSize || string(b[:4]) != "RXL1" {
		return Preamble{}, malformed("not the beginning of a lane")
	}
	p := Preamble{Session: [16]byte(b[4:20]), Lane: binary.BigEndian.Uint32(b[20:])}
	copy(p.Proof[:], b[24:])
	return p, nil
}

// LaneProof is the proof of one end of a lane: role is "dial" or "listen". That of
// "encrypt" is sent by nobody: it is the secret of an encrypted lane.
func LaneProof(ticket [32]byte, session [16]byte, lane uint32, role string) [sha256.Size]byte {
	h := hmac.New(sha256.New, ticket[:])
	h.Write([]byte("rdmaxfer lane " + role))
	h.Write(session[:])
	h.Write(binary.BigEndian.AppendUint32(nil, lane))
	return [sha256.Size]byte(h.Sum(nil))
}
