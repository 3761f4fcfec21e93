package ledger

import (
	"crypto/rand"
	"encoding/binary"
	"hash/crc32"
)

// Key names one version of one file: its path, size and the source's version.
type Key [16]byte

// A file begins with a header:
//
//	magic 8 · version 4 · transfer 16 · salt 16 · checksum 4
const (
	magic      = "rdmxledg"
	version    = 1
	headerSize = 48
)

// A record is a header and a body whose size follows from the kind:
//
//	checksum 4 · checksum of the record before 4 · kind 1 · zero 3 · key 16
//
// The checksum covers everything behind it. Every size is a multiple of four.
const (
	recordHeader = 28
	maxRecord    = recordHeader + objectSize + digestSize
	objectSize   = 24 // dev 8 · inode 8 · birth 8
	digestSize   = 32
)

type kind uint8

const (
	kindPart     kind = 1 + iota // object
	kindBlock                    // block 4 · digest
	kindFinished                 // object
	kindDigested                 // object · digest: finished, with its digest
	kindForget                   // nothing
	kinds
)

var sizes = [kinds]int{
	kindPart:     recordHeader + objectSize,
	kindBlock:    recordHeader + 4 + digestSize,
	kindFinished: recordHeader + objectSize,
	kindDigested: recordHeader + objectSize + digestSize,
	kindForget:   recordHeader,
}

// record is any record; the kind says which fields count.
type record struct {
	kind   kind
	key    Key
	object Object
	block  uint32
	digest [digestSize]byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// newHeader makes a file's header and gives the checksum that its first record names.
func newHeader(transfer [16]byte) ([]byte, uint32) {
	b := make([]byte, 0, headerSize)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, version)
	b = append(b, transfer[:]...)
	var salt [16]byte
	rand.Read(salt[:]) // never fails
	b = append(b, salt[:]...)
	sum := checksum(b)
	return binary.BigEndian.AppendUint32(b, sum), sum
}

// parseHeader gives the header's checksum; it fails where the file is of another
// version, of another transfer, or damaged.
func parseHeader(b []byte, transfer [16]byte) (sum uint32, ok bool) {
	if len(b) < headerSize {
		return 0, false
	}
	body := b[:headerSize-4]
	sum = binary.BigEndian.Uint32(b[headerSize-4:])
	ok = string(b[:8]) == magic && binary.BigEndian.Uint32(b[8:]) == version &&
		[16]byte(b[12:28]) == transfer && sum == checksum(body)
	return sum, ok
}

// appendRecord encodes r behind b and gives the record's checksum.
func appendRecord(b []byte, prev uint32, r *record) ([]byte, uint32) {
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, prev)
	b = append(b, byte(r.kind), 0, 0, 0)
	b = append(b, r.key[:]...)
	switch r.kind {
	case kindPart, kindFinished, kindDigested:
		b = binary.BigEndian.AppendUint64(b, r.object.Dev)
		b = binary.BigEndian.AppendUint64(b, r.object.Ino)
		b = binary.BigEndian.AppendUint64(b, uint64(r.object.BornNS))
	case kindBlock:
		b = binary.BigEndian.AppendUint32(b, r.block)
	}
	if r.kind == kindBlock || r.kind == kindDigested {
		b = append(b, r.digest[:]...)
	}
	sum := checksum(b[at+4:])
	binary.BigEndian.PutUint32(b[at:], sum)
	return b, sum
}

// parseRecord decodes the record that b begins with. It gives the record's size, or
// 0 if there is no whole and sound record, its checksum, and that of its predecessor.
func parseRecord(b []byte, r *record) (n int, sum, prev uint32) {
	if len(b) < recordHeader {
		return 0, 0, 0
	}
	k := kind(b[8])
	if k == 0 || k >= kinds || len(b) < sizes[k] {
		return 0, 0, 0
	}
	n = sizes[k]
	sum = binary.BigEndian.Uint32(b)
	if sum != checksum(b[4:n]) || b[9]|b[10]|b[11] != 0 {
		return 0, 0, 0
	}
	prev = binary.BigEndian.Uint32(b[4:])
	*r = record{kind: k, key: Key(b[12:28])}
	body := b[recordHeader:n]
	switch k {
	case kindPart, kindFinished, kindDigested:
		r.object.Dev = binary.BigEndian.Uint64(body)
		r.object.Ino = binary.BigEndian.Uint64(body[8:])
		r.object.BornNS = int64(binary.BigEndian.Uint64(body[16:]))
	case kindBlock:
		r.block = binary.BigEndian.Uint32(body)
	}
	if k == kindBlock || k == kindDigested {
		r.digest = [digestSize]byte(body[len(body)-digestSize:])
	}
	return n, sum, prev
}
