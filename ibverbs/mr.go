package ibverbs

import (
	"errors"
	"fmt"
	"math"
	"syscall"
	"unsafe"
)

// MR is registered memory (struct ibv_mr): outside the Go heap, and pinned unless
// it is paged on demand.
type MR struct {
	object
	buf  []byte
	addr uint64 // as work requests name the first byte
	size int
	own  bool // buf was mapped here and goes with the MR
	lkey uint32
	rkey uint32
}

// MemoryOptions say where the memory of [PD.AllocMROn] comes from.
type MemoryOptions struct {
	// HugePages asks for pages of 2 MiB from the system's pool (vm.nr_hugepages):
	// fewer entries in the device's tables. Without it, or when the pool is empty
	// and Require is not set, transparent huge pages are asked for from 2 MiB on.
	HugePages bool
	// Node puts the memory on a NUMA node, counted from 0, when OnNode is set. Without
	// Require, what that node has no room for comes from others.
	Node   int
	OnNode bool
	// Require makes it an error when HugePages or OnNode can't be had.
	Require bool
}

// AllocMR maps size bytes of zeroed memory, page-aligned, and registers it; the
// mapping lives until Close. From 2 MiB on, transparent huge pages are asked for.
func (p *PD) AllocMR(size int, access Access) (*MR, error) {
	return p.AllocMROn(size, access, MemoryOptions{})
}

// AllocMROn is AllocMR with a say in where the memory comes from.
func (p *PD) AllocMROn(size int, access Access, o MemoryOptions) (*MR, error) {
	if size <= 0 {
		return nil, &ParamError{"size", fmt.Sprint(size), "must be positive"}
	}
	buf, err := mapMemory(size, o)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes for a memory region: %w", size, err)
	}
	mr, err := p.RegisterMR(buf[:size], access)
	if err != nil {
		_ = unmap(buf)
		return nil, err
	}
	mr.own = true
	return mr, nil
}

// RegisterMR registers a mapping that the caller made and keeps until the MR is
// closed (ibv_reg_mr; with optional flags ibv_reg_mr_iova2). It must not be memory
// of the Go heap. A range longer than the device's MaxMRSize, where it says one, is a
// [*ParamError]; see [PD.RegisterSplit].
func (p *PD) RegisterMR(mapping []byte, access Access) (*MR, error) {
	if len(mapping) == 0 {
		return nil, &ParamError{"mapping", "0 bytes", "must not be empty"}
	}
	dev, err := p.ctx.QueryDevice()
	if err != nil {
		return nil, err
	}
	if most := dev.MaxMRSize; most > 0 && uint64(len(mapping)) > most { // some devices would cut it silently
		return nil, &ParamError{"mapping", fmt.Sprintf("%d bytes", len(mapping)), fmt.Sprintf("the device registers %d at once: see RegisterSplit", most)}
	}
	h, lkey, rkey, rc := sysRegMR(p.h, mapping, access)
	if rc < 0 {
		return nil, registerError(fmt.Sprintf("ibv_reg_mr of %d bytes", len(mapping)), rc, access)
	}
	mr := &MR{buf: mapping, addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mapping)))), size: len(mapping), lkey: lkey, rkey: rkey}
	mr.made(kindMR, h, &p.object)
	return mr, nil
}

// registerError says what usually is behind an errno.
func registerError(op string, rc int, access Access) error {
	err := opError(op, rc)
	switch errno := syscall.Errno(-rc); {
	case access&AccessOnDemand != 0 && (errno == syscall.EINVAL || errno == syscall.EOPNOTSUPP):
		return fmt.Errorf("%w: %w (on-demand paging; see Context.CanODP)", ErrUnsupported, err)
	case errno == syscall.ENOMEM || errno == syscall.EAGAIN || errno == syscall.EPERM:
		return withHint(err, "locked memory is limited to "+memlockLimit()+"; raise it: ulimit -l unlimited, or LimitMEMLOCK= in the service, or memlock in /etc/security/limits.conf")
	case errno == syscall.EFAULT:
		return withHint(err, "this kernel can't register such a mapping with these access flags")
	case errno == syscall.EINVAL && access&(AccessRemoteWrite|AccessRemoteAtomic) != 0 && access&AccessLocalWrite == 0:
		return withHint(err, "remote writes and atomics need AccessLocalWrite too")
	}
	return err
}

// RegisterSplit registers a mapping in as few regions as the device's MaxMRSize
// allows, each of which but the last is a multiple of align bytes (a power of two,
// at least the page size). Some devices cut longer regions silently.
func (p *PD) RegisterSplit(mapping []byte, align int, access Access) ([]*MR, error) {
	attr, err := p.ctx.QueryDevice()
	if err != nil {
		return nil, err
	}
	return p.registerSplit(mapping, align, attr.MaxMRSize, access)
}

func (p *PD) registerSplit(mapping []byte, align int, most uint64, access Access) ([]*MR, error) {
	if align <= 0 || align&(align-1) != 0 || most < uint64(align) {
		return nil, &ParamError{"align", fmt.Sprint(align), fmt.Sprintf("must be a power of two, and at most the device's %d bytes", most)}
	}
	step := int(min(most, 1<<62)) &^ (align - 1)
	var list []*MR
	for off := 0; off < len(mapping); off += step {
		mr, err := p.RegisterMR(mapping[off:min(len(mapping), off+step)], access)
		if err != nil {
			for _, m := range list {
				err = errors.Join(err, m.Close())
			}
			return nil, err
		}
		list = append(list, mr)
	}
	return list, nil
}

// RegisterDMABuf registers length bytes from offset on of a dma-buf, memory of
// another device such as a GPU (ibv_reg_dmabuf_mr, rdma-core 34, kernel 5.12). iova
// is the address at which work requests name its first byte. There are no Bytes.
// [ErrUnsupported] where the library, the kernel or the device can't.
func (p *PD) RegisterDMABuf(fd int, offset uint64, length int, iova uint64, access Access) (*MR, error) {
	if length <= 0 {
		return nil, &ParamError{"length", fmt.Sprint(length), "must be positive"}
	}
	h, lkey, rkey, rc := sysRegDMABuf(p.h, offset, length, iova, fd, access)
	if rc < 0 {
		return nil, opError(fmt.Sprintf("ibv_reg_dmabuf_mr of %d bytes", length), rc)
	}
	mr := &MR{addr: iova, size: length, lkey: lkey, rkey: rkey}
	mr.made(kindMR, h, &p.object)
	return mr, nil
}

// Bytes is the memory, which of a dma-buf is nil. It is gone after Close.
func (m *MR) Bytes() []byte { return m.buf }

// LKey names the region in this host's work requests.
func (m *MR) LKey() uint32 { return m.lkey }

// RKey names the region in the peer's work requests.
func (m *MR) RKey() uint32 { return m.rkey }

// SGE is the stretch of the region from off on, n bytes long. A stretch outside
// the region is a bug of the caller's and panics, as a slice would; so is one of 4 GiB
// or more, whose length a work request has no room for.
func (m *MR) SGE(off, n int) SGE {
	if !m.has(off, n) || uint64(n) > math.MaxUint32 {
		panic(fmt.Sprintf("ibverbs: a stretch of %d bytes at %d, of a memory region of %d", n, off, m.size))
	}
	return SGE{Addr: m.Addr(off), Length: uint32(n), LKey: m.lkey}
}

// has reports whether n bytes from off on lie in the region.
func (m *MR) has(off, n int) bool { return off >= 0 && n >= 0 && n <= m.size-off }

// Addr is the address of the byte at off, as the peer's work requests name it
// ([SendWR].RemoteAddr).
func (m *MR) Addr(off int) uint64 { return m.addr + uint64(off) }

// Close deregisters the memory (ibv_dereg_mr) and, when it came from AllocMR,
// unmaps it. Nothing may be posted that still names it.
func (m *MR) Close() error {
	if err := m.close(sysDeregMR); err != nil {
		return err
	}
	buf := m.buf
	m.buf, m.addr, m.size = nil, 0, 0
	if m.own {
		return unmap(buf)
	}
	return nil
}
