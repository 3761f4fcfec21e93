package rdma

import (
	"context"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Rail is the best pair of addresses between the hosts, as far as can be told without a
// packet: this one's, and the number of the sender's. It is for programs that make queue
// pairs of their own. s is what this host's user chose.
func Rail(hello *wire.Hello, s *Selection) (mine wire.Candidate, remote uint16, err error) {
	t := &Transport{Selection: *s}
	names, _, err := t.Paths(context.Background(), transfer.PathQuery{Hello: hello})
	if err != nil {
		return wire.Candidate{}, 0, err
	}
	rail := t.rail(names[0])
	return rail.mine.Candidate, rail.theirs.Number, nil
}
