package ibverbs

// PD is a protection domain: what is in one can't be used with what is in
// another (struct ibv_pd).
type PD struct {
	object
	ctx *Context
}

// AllocPD makes a protection domain (ibv_alloc_pd).
func (c *Context) AllocPD() (*PD, error) {
	h, rc := sysAllocPD(c.h)
	if rc < 0 {
		return nil, opError("ibv_alloc_pd", rc)
	}
	p := &PD{ctx: c}
	p.made(kindPD, h, &c.object)
	return p, nil
}

// Close frees the protection domain (ibv_dealloc_pd). It is a [*BusyError] while
// anything of it lives.
func (p *PD) Close() error { return p.close(sysDeallocPD) }
