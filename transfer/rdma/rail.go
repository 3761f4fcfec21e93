package rdma

import "github.com/rdmaxfer/rdmaxfer/transfer/wire"

// Rail is the best pair of addresses between the hosts: this one's, and the place of the
// sender's in what it offered. It is for programs that make queue pairs of their own.
func Rail(hello *wire.Hello) (mine wire.Candidate, remote uint16, err error) {
	rail, err := findRail(hello, "")
	if err != nil {
		return wire.Candidate{}, 0, err
	}
	return rail.mine.wire(), rail.remote, nil
}
