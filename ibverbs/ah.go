package ibverbs

// AH is an address handle (struct ibv_ah): where a UD queue pair sends to.
type AH struct{ object }

// AHRef names an address handle in a [SendWR]. It is good while the AH lives.
type AHRef uint64

// CreateAH makes an address handle for the port of the peer that remote names, from
// the local port and GID index (ibv_create_ah). remote's QPN and PSN are not looked
// at: see [SendWR].RemoteQPN.
func (p *PD) CreateAH(port, gidIndex int, remote Endpoint, path Path) (*AH, error) {
	attr, err := p.ctx.QueryPort(port)
	if err != nil {
		return nil, err
	}
	local, err := p.ctx.endpoint(port, gidIndex, &attr)
	if err != nil {
		return nil, err
	}
	path.setDefaults()
	if err := path.check(&local, &remote, attr.LinkLayer); err != nil {
		return nil, err
	}
	v := addressVector(port, gidIndex, &attr, &local, &remote, &path)
	h, rc := sysCreateAH(p.h, &v)
	if rc < 0 {
		return nil, pathError("ibv_create_ah", rc, &local, &remote, gidIndex)
	}
	a := new(AH)
	a.made(kindAH, h, &p.object)
	return a, nil
}

// Ref names the handle in work requests.
func (a *AH) Ref() AHRef { return AHRef(uintptr(a.h)) }

// Close frees the handle (ibv_destroy_ah). Nothing may be posted that still names it.
func (a *AH) Close() error { return a.close(sysDestroyAH) }
