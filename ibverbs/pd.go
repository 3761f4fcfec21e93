package ibverbs

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// PD is a protection domain: what is in one can't be used with what is in
// another (struct ibv_pd).
type PD struct {
	ctx      *Context
	h        unsafe.Pointer
	children atomic.Int32
}

// AllocPD makes a protection domain (ibv_alloc_pd).
func (c *Context) AllocPD() (*PD, error) {
	h, rc := sysAllocPD(c.h)
	if rc < 0 {
		return nil, opError("ibv_alloc_pd", rc)
	}
	c.children.Add(1)
	return &PD{ctx: c, h: h}, nil
}

// Close frees the protection domain (ibv_dealloc_pd). It is a [*BusyError] while
// memory regions or queue pairs of it live.
func (p *PD) Close() error {
	return closeHandle("ibv_dealloc_pd", "PD", &p.h, &p.children, &p.ctx.children, sysDeallocPD)
}

// MR is registered memory (struct ibv_mr): pinned, and outside the Go heap.
type MR struct {
	pd   *PD
	h    unsafe.Pointer
	buf  []byte
	own  bool // buf was mapped here and goes with the MR
	lkey uint32
	rkey uint32
}

// AllocMR maps size bytes of zeroed memory, page-aligned, and registers it; the
// mapping lives until Close. From 2 MiB on, transparent huge pages are asked for.
func (p *PD) AllocMR(size int, access Access) (*MR, error) {
	if size <= 0 {
		return nil, fmt.Errorf("ibv_reg_mr: size %d: must be positive", size)
	}
	buf, err := mapAnonymous(size)
	if err != nil {
		return nil, fmt.Errorf("mmap %d bytes for a memory region: %w", size, err)
	}
	mr, err := p.RegisterMR(buf, access)
	if err != nil {
		_ = unmap(buf)
		return nil, err
	}
	mr.own = true
	return mr, nil
}

// RegisterMR registers a mapping that the caller made and keeps until the MR is
// closed (ibv_reg_mr). It must not be memory of the Go heap.
func (p *PD) RegisterMR(mapping []byte, access Access) (*MR, error) {
	h, lkey, rkey, rc := sysRegMR(p.h, mapping, access)
	if rc < 0 {
		err := opError(fmt.Sprintf("ibv_reg_mr of %d bytes", len(mapping)), rc)
		switch syscall.Errno(-rc) {
		case syscall.ENOMEM, syscall.EAGAIN, syscall.EPERM:
			err = withHint(err, "locked memory is limited to "+memlockLimit()+"; raise it: ulimit -l unlimited, or LimitMEMLOCK= in the service, or memlock in /etc/security/limits.conf")
		case syscall.EFAULT:
			err = withHint(err, "this kernel can't register such a mapping with these access flags")
		}
		return nil, err
	}
	p.children.Add(1)
	return &MR{pd: p, h: h, buf: mapping, lkey: lkey, rkey: rkey}, nil
}

// Bytes is the memory. It is gone after Close.
func (m *MR) Bytes() []byte { return m.buf }

// LKey names the region in this host's work requests.
func (m *MR) LKey() uint32 { return m.lkey }

// RKey names the region in the peer's work requests.
func (m *MR) RKey() uint32 { return m.rkey }

// SGE is the stretch of the region from off on, n bytes long. A stretch outside
// the region is a bug of the caller's and panics, as a slice would.
func (m *MR) SGE(off, n int) SGE {
	_ = m.buf[off : off+n]
	return SGE{Addr: m.Addr(off), Length: uint32(n), LKey: m.lkey}
}

// Addr is the address of the byte at off, as the peer's work requests name it
// ([SendWR].RemoteAddr).
func (m *MR) Addr(off int) uint64 {
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(m.buf)))) + uint64(off)
}

// Close deregisters the memory (ibv_dereg_mr) and, when it came from AllocMR,
// unmaps it. Nothing may be posted that still names it.
func (m *MR) Close() error {
	if err := closeHandle("ibv_dereg_mr", "MR", &m.h, nil, &m.pd.children, sysDeregMR); err != nil {
		return err
	}
	buf := m.buf
	m.buf = nil
	if m.own {
		return unmap(buf)
	}
	return nil
}
