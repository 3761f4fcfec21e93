package rdma

import (
	"errors"
	"sync/atomic"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// Sinks are where the receiving end of a lane can land extents:
//
//	ring    slots of its own, which it writes to the file from; always
//	mapped  the file itself, mapped and registered an extent at a time: with write and
//	        read, on tmpfs, and where the device pages on demand on other local file systems
//
// auto is ring (docs/performance.md).
var Sinks = []string{SinkAuto, SinkRing, SinkMapped}

// The sinks.
const (
	SinkAuto   = "auto"
	SinkRing   = "ring"
	SinkMapped = "mapped"
)

// sinkOf is the sink of a lane. With send, answers land in the order in which they come.
func sinkOf(asked, op string) string {
	if asked == SinkMapped && op != OpSend {
		return SinkMapped
	}
	return SinkRing
}

// mapped is the sink of that name. An extent's pages are registered when it is asked for
// (write), or when the sender has said where it is (read), and not any more when it has
// landed: the peer can reach what it was asked to write, while it is to write it. The nil
// *mapped is the ring alone.
type mapped struct {
	pd       *ibverbs.PD
	access   ibverbs.Access
	onDemand bool
	files    transfer.FileFeed // of this Pull
	never    bool              // nothing can be mapped
	open     []landing         // by the request's index
	room     []byte            // an extent's, to look at what landed: not the ring's, which the peer may write to
	landed   atomic.Int64      // extents
}

// landing is an extent's place in its file; without a region it lands in the ring.
type landing struct {
	window *transfer.LandingWindow
	mr     *ibverbs.MR
}

// newMapped makes one for so many requests in flight of extents of that size, of an end that
// is not connected yet.
func newMapped(res *resources, depth, extent int) *mapped {
	m := &mapped{pd: res.pd, access: ibverbs.AccessLocalWrite | res.access, open: make([]landing, depth), room: make([]byte, extent)}
	need := ibverbs.ODPWrite
	if res.op == OpRead {
		need = ibverbs.ODPRead
	}
	m.onDemand = res.ctx.CanODP(m.access, need) == nil
	if m.onDemand && res.op == OpWrite {
		res.rnrTimer = pagingTimer
	}
	return m
}

// pagingTimer is 41 ms, coded (IBTA vol. 1, 9.7.5.2.8). A device that pages tells who
// writes to a page that is not there that it is not ready. By default the sender would
// ask again after 0.64 ms, six times, and give the lane up: less than a page may take
// where the disk is busy.
const pagingTimer = 24

// begin takes the feed of a Pull.
func (m *mapped) begin(f transfer.Feed) {
	if m != nil {
		m.files, _ = f.(transfer.FileFeed)
	}
}

// place finds out where request i's extent lands. It answers false when its file has no
// room for it, and has failed.
func (m *mapped) place(i int, e transfer.Extent) bool {
	if m == nil || m.never || m.files == nil {
		return true
	}
	file := m.files.Place(e)
	if file == nil {
		return true
	}
	w, err := transfer.OpenLandingWindow(file, e.Off, e.Len, m.onDemand)
	switch {
	case errors.Is(err, transfer.ErrNoWindow):
		m.never = true // all of a transfer lands on one file system
		return true
	case err != nil:
		m.files.Displaced(e, err)
		return false
	}
	access := m.access
	if w.OnDemand {
		access |= ibverbs.AccessOnDemand
	}
	mr, err := m.pd.RegisterMR(w.Mapping(), access)
	if err != nil { // registered memory has come to its limit: the ring does it alone
		_ = w.Close()
		m.never = true
		return true
	}
	m.open[i] = landing{w, mr}
	return true
}

// region is where request i's extent lands; nil for its slot.
func (m *mapped) region(i int) *ibverbs.MR {
	if m == nil {
		return nil
	}
	return m.open[i].mr
}

// land ends the landing of request i's extent. It answers false when that is in its slot of
// the ring.
func (m *mapped) land(i int, e transfer.Extent) (bool, error) {
	if m.region(i) == nil {
		return false, nil
	}
	if err := m.end(i); err != nil {
		return true, err
	}
	m.landed.Add(1)
	return true, m.files.Placed(e, m.room[:e.Len], 0) // no lane waits for another
}

// end takes the region of request i away: from then on nothing lands there.
func (m *mapped) end(i int) error {
	if m.region(i) == nil {
		return nil
	}
	l := m.open[i]
	m.open[i] = landing{}
	return errors.Join(l.mr.Close(), l.window.Close())
}

// close takes all away. The queue pair is gone.
func (m *mapped) close() error {
	if m == nil {
		return nil
	}
	var errs []error
	for i := range m.open {
		errs = append(errs, m.end(i))
	}
	return errors.Join(errs...)
}

// name is the sink that was used.
func (m *mapped) name() string {
	if m != nil && m.landed.Load() > 0 {
		return SinkMapped
	}
	return SinkRing
}
