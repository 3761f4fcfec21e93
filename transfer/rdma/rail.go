package rdma

import (
	"fmt"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Rail gives the addresses of a path that [Transport.Paths] found, by its name: this host's,
// and the number of the sender's; and what is in force at this end. It is for programs that
// make queue pairs of their own.
func (t *Transport) Rail(name string) (mine wire.Candidate, remote uint16, f wire.Fabric, err error) {
	p := t.rail(name)
	if p == nil {
		return mine, 0, f, fmt.Errorf("%w is called %q", ErrNoPath, name)
	}
	return p.mine.Candidate, p.theirs.Number, p.inForce(ibverbs.MTU(p.mine.MTU)).Fabric, nil
}

// inForce is what is wanted of a path, on which larger packets than have arrived may not,
// for a queue pair that would send some up to an MTU.
func (p *pair) inForce(m ibverbs.MTU) Fabric {
	if p.mtu != 0 && p.mtu < m {
		return p.fabric.within(p.mtu)
	}
	return p.fabric
}
