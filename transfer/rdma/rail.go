package rdma

import (
	"fmt"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Rail gives the addresses of a path that [Transport.Paths] found, by its name: this host's,
// and the number of the sender's. It is for programs that make queue pairs of their own.
func (t *Transport) Rail(name string) (mine wire.Candidate, remote uint16, err error) {
	p := t.rail(name)
	if p == nil {
		return wire.Candidate{}, 0, fmt.Errorf("%w is called %q", ErrNoPath, name)
	}
	return p.mine.Candidate, p.theirs.Number, nil
}
