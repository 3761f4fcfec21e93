package digest

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crc32cSum(v uint32) (s Sum) {
	binary.BigEndian.PutUint32(s[:], v)
	return s
}

func crc32cValue(s *Sum) uint32 { return binary.BigEndian.Uint32(s[:]) }

// crc32cConcat gives the CRC of left's bytes followed by right's n: appending n
// bytes multiplies left by x^8n, and the rest is linear (zlib's crc32_combine).
func crc32cConcat(left, right uint32, n int64) uint32 {
	for i := 0; n != 0; i, n = i+1, n>>1 {
		if n&1 != 0 {
			left = crc32cTimes(crc32cPowers[i], left)
		}
	}
	return left ^ right
}

// crc32cPowers[i] is x to the power of 8·2^i, modulo the polynomial.
var crc32cPowers = func() (p [63]uint32) {
	p[0] = 1 << (31 - 8) // x^8: the coefficient of x^0 is the uppermost bit
	for i := 1; i < len(p); i++ {
		p[i] = crc32cTimes(p[i-1], p[i-1])
	}
	return p
}()

// crc32cTimes multiplies two polynomials over GF(2), modulo Castagnoli's.
func crc32cTimes(a, b uint32) (product uint32) {
	for m := uint32(1) << 31; m != 0; m >>= 1 {
		if a&m != 0 {
			product ^= b
		}
		carry := b & 1
		b >>= 1
		b ^= crc32.Castagnoli & -carry
	}
	return product
}
