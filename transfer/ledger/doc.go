// Package ledger is the receiver's durable record of what has landed: one file a
// transfer, in the destination directory, which makes resume possible.
//
// A ledger is only ever appended to. A record is written after the data that it
// speaks of is durable, so what a ledger says is true whenever it can be read. What
// it does not say may be true all the same: then something is sent again, and that
// is all. So a tail that is torn, a byte that is damaged, a failed write end in
// fewer records, never in wrong ones.
//
// On disk (big endian): a header, then records, each with a checksum (CRC-32C) of
// its own and the checksum of the record before it. The header has a random number
// in its checksum, so a record passes in that place of that file alone: blocks that
// an earlier, longer file left behind do not. A device is taken to write a sector of
// 512 bytes whole or not at all; in which order it writes them does not matter.
//
// The package knows files by a 16-byte key and nothing of manifests or lanes.
package ledger
