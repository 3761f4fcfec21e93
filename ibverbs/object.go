package ibverbs

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// kind is a sort of object: its name, and the C call that ends it.
type kind struct {
	name, destroy string
	live          atomic.Int64
}

var (
	kindContext = &kind{name: "device", destroy: "ibv_close_device"}
	kindPD      = &kind{name: "PD", destroy: "ibv_dealloc_pd"}
	kindMR      = &kind{name: "MR", destroy: "ibv_dereg_mr"}
	kindMW      = &kind{name: "MW", destroy: "ibv_dealloc_mw"}
	kindAH      = &kind{name: "AH", destroy: "ibv_destroy_ah"}
	kindCQ      = &kind{name: "CQ", destroy: "ibv_destroy_cq"}
	kindSRQ     = &kind{name: "SRQ", destroy: "ibv_destroy_srq"}
	kindQP      = &kind{name: "QP", destroy: "ibv_destroy_qp"}
	kinds       = []*kind{kindContext, kindPD, kindMR, kindMW, kindAH, kindCQ, kindSRQ, kindQP}
)

// Live counts the objects of this process that were made and not closed, by kind:
// "device", "PD", "MR", "MW", "AH", "CQ", "SRQ" and "QP". Kinds of which there are
// none are left out, so that a test which must not leak expects an empty map.
func Live() map[string]int {
	m := make(map[string]int)
	for _, k := range kinds {
		if n := k.live.Load(); n != 0 {
			m[k.name] = int(n)
		}
	}
	return m
}

// object is what all handles of the library have in common: a parent does not
// close while children of it live, and nothing closes twice.
type object struct {
	kind     *kind
	h        unsafe.Pointer
	children atomic.Int32
	parents  []*object
}

// made takes a new handle and tells the parents.
func (o *object) made(k *kind, h unsafe.Pointer, parents ...*object) {
	o.kind, o.h, o.parents = k, h, parents
	k.live.Add(1)
	for _, p := range parents {
		p.children.Add(1)
	}
}

// close ends the handle by destroy, which answers 0 or -errno.
func (o *object) close(destroy func(unsafe.Pointer) int) error {
	if o.h == nil {
		return fmt.Errorf("%s: %w", o.kind.destroy, ErrClosed)
	}
	if n := o.children.Load(); n > 0 {
		return &BusyError{Parent: o.kind.name, Children: int(n)}
	}
	// A removed device's destructors succeed (TestDeviceRemoved). Should one say all the
	// same that the device is gone, there is nothing left to be tried.
	if err := opError(o.kind.destroy, destroy(o.h)); err != nil && !err.(*Error).Is(ErrDeviceGone) {
		return err
	}
	o.h = nil
	o.kind.live.Add(-1)
	for _, p := range o.parents {
		p.children.Add(-1)
	}
	return nil
}
