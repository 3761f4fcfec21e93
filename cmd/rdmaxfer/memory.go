package main

import (
	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/rdmaxfer/rdmaxfer/transfer/rdma"
)

func memoryFlag() *cli.StringFlag {
	return &cli.StringFlag{Name: "memory", Value: units.CustomSize("%.0f%s", rdma.DefaultMemory, 1024, []string{"", "K", "M", "G"}),
		Usage: "register no more than `SIZE` with RDMA devices, of all lanes together"}
}

// budget is what --memory allows.
func budget(c *cli.Context) (*rdma.Budget, error) {
	n, err := units.RAMInBytes(c.String("memory"))
	if err != nil || n < rdma.LeastMemory {
		return nil, usagef("--memory %s: a size of %s or more, such as 64M", c.String("memory"), units.BytesSize(rdma.LeastMemory))
	}
	return rdma.NewBudget(n), nil
}
