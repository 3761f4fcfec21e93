package rdma

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// Where a host has more than one NUMA node, a lane's memory and the goroutine that
// serves it stay on its device's: what crosses between sockets is slower, and takes from
// what others have.

// nodeCPUs lists the processors of each NUMA node of a host (sysfs-devices-node). root is
// /sys/devices/system/node.
func nodeCPUs(root fs.FS) map[int][]int {
	nodes := make(map[int][]int)
	dirs, _ := fs.Glob(root, "node[0-9]*")
	for _, d := range dirs {
		n, err := strconv.Atoi(strings.TrimPrefix(d, "node"))
		if err != nil {
			continue
		}
		b, err := fs.ReadFile(root, d+"/cpulist")
		if err != nil {
			continue
		}
		if cpus, err := parseList(strings.TrimSpace(string(b))); err == nil && len(cpus) > 0 {
			nodes[n] = cpus
		}
	}
	return nodes
}

// parseList understands "0-3,8,10-11" (the kernel's bitmap lists).
func parseList(s string) (list []int, err error) {
	for part := range strings.SplitSeq(s, ",") {
		if part == "" {
			continue
		}
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		a, err := strconv.Atoi(from)
		if err != nil {
			return nil, fmt.Errorf("a list of processors: %w", err)
		}
		b, err := strconv.Atoi(to)
		if err != nil || b < a || b-a > 1<<16 {
			return nil, fmt.Errorf("a list of processors: %q", s)
		}
		for n := a; n <= b; n++ {
			list = append(list, n)
		}
	}
	return list, nil
}

// theNodes are this host's.
func theNodes() map[int][]int { return nodeCPUs(os.DirFS("/sys/devices/system/node")) }

// allowedNodes are those that this process may run on (sched_getaffinity(2)); nil where
// there is one alone.
func allowedNodes() []int {
	nodes := theNodes()
	var may unix.CPUSet
	if len(nodes) < 2 || unix.SchedGetaffinity(0, &may) != nil {
		return nil
	}
	return nodesOf(nodes, &may)
}

func nodesOf(nodes map[int][]int, may *unix.CPUSet) (list []int) {
	for n, cpus := range nodes {
		for _, c := range cpus {
			if may.IsSet(c) {
				list = append(list, n)
				break
			}
		}
	}
	return list
}

// memoryOn says where a lane's memory shall lie: on its device's node, where that is
// known and there is another.
func memoryOn(node int) ibverbs.MemoryOptions {
	if node < 0 || len(theNodes()) < 2 {
		return ibverbs.MemoryOptions{}
	}
	return ibverbs.MemoryOptions{Node: node, OnNode: true}
}

// stayOn keeps the calling goroutine on the processors of a node that its thread may run
// on, until the function that it gives is called. Where there is nothing to choose it
// does nothing.
func stayOn(node int) (leave func()) {
	nodes := theNodes()
	if node < 0 || len(nodes) < 2 {
		return func() {}
	}
	return bindTo(nodes[node])
}

// bindTo is stayOn for processors.
func bindTo(cpus []int) (leave func()) {
	runtime.LockOSThread()
	var may, want unix.CPUSet
	if unix.SchedGetaffinity(0, &may) == nil {
		for _, c := range cpus {
			if may.IsSet(c) {
				want.Set(c)
			}
		}
	}
	if want.Count() == 0 || unix.SchedSetaffinity(0, &want) != nil {
		runtime.UnlockOSThread()
		return func() {}
	}
	return func() {
		if unix.SchedSetaffinity(0, &may) == nil {
			runtime.UnlockOSThread()
		} // else the thread ends with its goroutine, and with it what was set
	}
}
