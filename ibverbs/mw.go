package ibverbs

import "fmt"

// MW is a memory window (struct ibv_mw): an rkey for a part of a region, given and
// taken back by work requests, without the kernel.
type MW struct {
	object
	typ MWType
}

// MWType is the sort of a memory window (enum ibv_mw_type).
type MWType int

// The sorts of windows. One of type 1 belongs to the protection domain, and is
// taken back by binding it to nothing; one of type 2 belongs to the queue pair that
// bound it, and is taken back by [OpLocalInv], or by the peer's [OpSendWithInv].
const (
	MWType1 MWType = 1
	MWType2 MWType = 2
)

// AllocMW makes a memory window (ibv_alloc_mw). [ErrUnsupported] where the device
// has none of that type.
func (p *PD) AllocMW(typ MWType) (*MW, error) {
	h, rc := sysAllocMW(p.h, typ)
	if rc < 0 {
		return nil, opError("ibv_alloc_mw", rc)
	}
	w := &MW{typ: typ}
	w.made(kindMW, h, &p.object)
	return w, nil
}

// RKey names the window in the peer's work requests. Each bind gives a new one.
func (w *MW) RKey() uint32 { return sysMWRKey(w.h) }

// Close frees the window (ibv_dealloc_mw).
func (w *MW) Close() error { return w.close(sysDeallocMW) }

// Bind says what BindMW gives to the peer.
type Bind struct {
	ID       uint64
	MR       *MR // registered with AccessBindMW
	Off, Len int // bytes; a Len of 0 takes a window of type 1 back
	Access   Access
	Flags    SendFlags
}

// BindMW posts the binding of a window (ibv_bind_mw, or for type 2 ibv_post_send of
// IBV_WR_BIND_MW). It takes a place in the send queue; the window's RKey is the new
// one at once, and good for the peer when the completion has come.
func (q *QP) BindMW(w *MW, b Bind) error {
	if !b.MR.has(b.Off, b.Len) {
		return &ParamError{"window", fmt.Sprintf("%d bytes at %d", b.Len, b.Off), fmt.Sprintf("lies outside the region of %d bytes", b.MR.size)}
	}
	return opError("ibv_bind_mw", sysBindMW(q.h, w.h, b.MR.h, &b, b.MR.Addr(b.Off)))
}
