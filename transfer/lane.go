package transfer

import (
	"context"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Extent is what travels as a whole: a byte range of one file, aligned and of a
// power-of-two size but for the tail of the file, or a pack of whole small files.
type Extent struct {
	File  uint32 // its number in the manifest; the first, of a pack
	Off   int64  // bytes
	Len   int    // bytes
	Count uint32 // entries that a pack reaches over; 0 for a range of one file
}

// Request is what a lane asks for e with.
func (e Extent) Request(id uint32) wire.Request {
	return wire.Request{ID: id, File: e.File, Count: e.Count, Length: uint32(e.Len), Offset: e.Off}
}

// Feed is what the receiving end of a lane takes its work from. A feed belongs to
// one lane and one goroutine of it.
type Feed interface {
	// Next waits for an extent. io.EOF means that there will be none any more.
	Next(context.Context) (Extent, error)
	// TryNext answers at once.
	TryNext() (Extent, bool)
	// Land takes the bytes of an extent that Next or TryNext gave. p is the lane's
	// again when it returns. An error ends the lane.
	Land(e Extent, p []byte) error
	// Refuse gives back an extent that the sender can't serve: its file failed.
	Refuse(e Extent)
}

// FileFeed is a [Feed] of which an extent may land without Land: by whatever moves bytes
// into a file that the program never sees.
type FileFeed interface {
	Feed
	// Verifying reports whether digests are taken: what landed so is read again for them.
	Verifying() bool
	// Place gives the file in which e lands, at its own offset; nil when it is for Land
	// to take. From then on e is this lane's alone, and its bytes are on the connection: a
	// lane that is too slow with them is ended. Placed, Land (when nothing was written yet)
	// or Displaced says what became of it. A lane that breaks says nothing.
	Place(e Extent) *os.File
	// Placed says that all of e is in the file, and how long writing it took; 0 where that is a way of
	// writing for which lanes don't take turns at a file. b is room for an extent.
	Placed(e Extent, b []byte, writing time.Duration) error
	// Displaced says why e could not be written. Its file fails.
	Displaced(e Extent, err error)
}

// Puller is the receiving end of a lane that is up.
type Puller interface {
	// Pull asks for extents until the feed ends (nil), ctx ends, or the lane
	// breaks. Whatever was in flight then is the feed's owner's to give to others:
	// once Pull has returned, nothing of it lands any more.
	Pull(ctx context.Context, f Feed) error
	// Describe names what the lane runs on, as the summary line does: "rxe_a gid=1
	// mtu=4096 op=send".
	Describe() string
	// Close frees what the lane holds. It is called after Pull has returned.
	Close() error
}

// Server is the sending end of a lane that is up.
type Server interface {
	// Serve answers requests until the receiver hangs up (nil), ctx ends, or the
	// lane breaks.
	Serve(ctx context.Context, src *Source) error
	// Describe names this host's side of the lane.
	Describe() string
	// Close ends the lane: the receiver's end sees an end, and nothing of this host's memory is
	// in the peer's reach any more.
	Close() error
}

// LaneParams are what both ends of a session agreed on before there are lanes.
type LaneParams struct {
	ID         uint32
	Path       string // at the receiving end: one that [PullTransport].Paths gave
	Depth      int    // requests in flight at the most
	ExtentSize int    // bytes; the longest extent
	// Conn gives the TCP connection that was proved to be this lane: the receiving
	// end waits for it, the sending end dials it. control, if any, is called with the socket
	// before that, after [Sockets].Control.
	Conn func(ctx context.Context, control Control) (*net.TCPConn, error)
	// Secret is set where that connection is to be encrypted: 32 bytes that the two ends
	// have, and nobody else.
	Secret []byte
	// Here and There are the two ends' addresses, as the session's connection has them. They
	// are set for lanes of datagrams.
	Here, There netip.Addr
}

// Trickling is a [Puller] that knows of an extent's bytes before all of them have come.
type Trickling interface {
	// Arrived is how many bytes have come so far, of whatever.
	Arrived() uint64
	// Busy says that this end has work with what has come: its file takes long.
	Busy() bool
}

// Lossy is a [Puller] of a lane that loses some of what it carries, and asks for it again.
type Lossy interface {
	// Datagrams says how many were asked for so far, and how many of those did not come in
	// time. It is for the goroutine that pulls.
	Datagrams() (asked, lost int64)
}

// PullTransport makes the receiving ends of lanes of one kind.
type PullTransport interface {
	Name() string // "rdma", "tcp", or "udp" to measure with
	// Paths lists what lanes can run on between these two hosts, the best first and
	// one at least, by names that are good for [LaneParams].Path; one that is worth several
	// lanes, where nobody says how many, is named as often. An error says why
	// there is nothing, and matches [ErrFinal] where there will be nothing. The report
	// is for users; it is nil where there is nothing to say.
	Paths(ctx context.Context, q PathQuery) ([]string, *wire.Paths, error)
	// Prepare makes what the sender must be told to open its end, and writes it
	// into open. An error says why there is no such lane between these two hosts.
	Prepare(ctx context.Context, hello *wire.Hello, p LaneParams, open *wire.OpenLane) (PendingPuller, error)
}

// PendingPuller is a receiving end that waits for the sender's.
type PendingPuller interface {
	// Connect finishes the lane with the sender's answer and proves that bytes
	// cross it. The PendingPuller is spent, whatever the outcome.
	Connect(ctx context.Context, answer *wire.LaneAnswer) (Puller, error)
	// Close gives it up instead.
	Close() error
}

// ServeTransport makes the sending ends of lanes of one kind.
type ServeTransport interface {
	// Name is what the lane is called in messages and reports.
	Name() string
	// Offer says where this host can be reached, in the first message.
	Offer(hello *wire.Hello)
	// Answer opens the sending end that open asks for and fills in the answer.
	Answer(ctx context.Context, p LaneParams, open *wire.OpenLane, answer *wire.LaneAnswer) (Server, error)
}
