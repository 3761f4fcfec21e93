// Package transfer is the engine of rdmaxfer, neutral of what carries the bytes.
//
// The receiver pulls: a transfer is a manifest of files cut into extents; the
// receiver's scheduler decides which extent comes next, a lane asks the sender
// for it, and what arrives is landed in a sink. The sender only answers. A lane
// is made by a transport that is handed in (see [PullTransport] and
// [ServeTransport]); this package imports none.
//
// Beside the lanes there is one control connection, a [Session]: TLS 1.3, both
// ends proving that they hold the same key. Everything that must be trusted
// travels there: the manifest, lane parameters, digests, receipts.
package transfer
