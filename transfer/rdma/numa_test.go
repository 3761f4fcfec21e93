package rdma

import (
	"slices"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

func TestNodes(t *testing.T) {
	nodes := nodeCPUs(fstest.MapFS{
		"node0/cpulist":  {Data: []byte("0-2,8\n")},
		"node1/cpulist":  {Data: []byte("3\n")},
		"node2/cpulist":  {Data: []byte("\n")}, // memory alone
		"node3/cpulist":  {Data: []byte("5-4\n")},
		"node4/meminfo":  {},
		"nodes/cpulist":  {Data: []byte("9\n")},
		"has_cpu":        {Data: []byte("0-1\n")},
		"node10/cpulist": {Data: []byte("10,12-13\n")},
	})
	if len(nodes) != 3 || !slices.Equal(nodes[0], []int{0, 1, 2, 8}) || !slices.Equal(nodes[1], []int{3}) || !slices.Equal(nodes[10], []int{10, 12, 13}) {
		t.Errorf("%v", nodes)
	}
	var may unix.CPUSet
	may.Set(8)
	may.Set(13)
	got := nodesOf(nodes, &may)
	if slices.Sort(got); !slices.Equal(got, []int{0, 10}) {
		t.Errorf("may run on %v", got)
	}
	for _, bad := range []string{"x", "1-", "-1-2", "0-99999999"} {
		if l, err := parseList(bad); err == nil {
			t.Errorf("%q: %v", bad, l)
		}
	}
}

// TestBindTo: a goroutine stays on the processors that it was bound to, and is free again
// after that. What its thread may not run on anyway changes nothing.
func TestBindTo(t *testing.T) {
	may := func() (s unix.CPUSet) {
		if err := unix.SchedGetaffinity(0, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		before := may()
		cpu := 0
		for !before.IsSet(cpu) {
			cpu++
		}
		leave := bindTo([]int{cpu, 1023})
		if s := may(); s.Count() != 1 || !s.IsSet(cpu) {
			t.Errorf("bound to processor %d: may run on %d of them", cpu, s.Count())
		}
		leave()
		if after := may(); after != before {
			t.Errorf("may run on %d processors after, %d before", after.Count(), before.Count())
		}
		leave = bindTo([]int{1023})
		if after := may(); after != before {
			t.Errorf("bound to a processor that there is not: may run on %d", after.Count())
		}
		leave()
	}()
	<-done
}
