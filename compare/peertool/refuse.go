package peertool

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rdmaxfer/rdmaxfer/compare"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// setting is one of a load of verbs that a program has in its own way. What stands beside
// ours has to be the same load: a program that can't repeat one refuses.
type setting struct {
	differs bool
	has     string // what the program does, and the option of bench that asks for it
}

func refusal(program string, own []setting) error {
	var has []string
	for _, s := range own {
		if s.differs {
			has = append(has, s.has)
		}
	}
	if len(has) == 0 {
		return nil
	}
	return fmt.Errorf("it can't repeat this: %s %s", program, strings.Join(has, ", "))
}

// leastMessages is the fewest messages that perftest takes (-n).
const leastMessages = 5

// perftestRefuses is an error of a load that perftest has no options for.
func perftestRefuses(l compare.PeerLoad, alone int) error {
	as := l.As
	if as == nil {
		return nil
	}
	n := each(as.Iterations, queues(l))
	return refusal("perftest", []setting{
		{as.Buffers > 1, "has the room of one message, over and over (--buffers 1)"},
		{as.Events && as.Spin > 0, "does not poll before it waits on events (--spin 0)"},
		{as.Iterations > 0 && n < leastMessages, fmt.Sprintf("sends %d messages at least (--iters)", leastMessages)},
		{n > most[alone], fmt.Sprintf("tells of %d messages at the most (--iters)", most[alone])},
	})
}

// qperfDepth is how many messages qperf's rc_bw has in flight (its NCQE).
const qperfDepth = 1024

// qperfRefuses is an error of a load that qperf's rc tests have no options for: of size, time,
// and whether they poll, alone. (Its --mtu_size is not for --use_cm.)
func qperfRefuses(l compare.PeerLoad) error {
	as := l.As
	if as == nil {
		return nil
	}
	bandwidth := !as.Latency
	return refusal("qperf", []setting{
		{as.Op == "ud", "sends no datagrams here (--op send)"},
		{as.Both, "sends one way"},
		{as.QPs > 1, "has one queue pair (--qps 1)"},
		{as.Chain > 1, "posts each message by itself (--chain 1)"},
		{bandwidth && as.Depth != qperfDepth, fmt.Sprintf("has %d messages in flight (--depth %d)", qperfDepth, qperfDepth)},
		{bandwidth && as.Signal != 1, "has a completion for each message (--signal 1)"},
		{as.Inline > 0, "asks for no room for inline messages (--inline 0)"},
		{as.Buffers > 1, "has the room of one message, over and over (--buffers 1)"},
		{as.Events && as.Spin > 0, "does not poll before it waits on events (--spin 0)"},
		{as.Iterations > 0, "goes by the time (--duration)"},
		{as.MTU > 0, "leaves the path MTU to its connection manager"},
	})
}

// errFabric is why qperf does not run where a user wants something of the network.
var errFabric = errors.New("it can't repeat this: qperf leaves MTU, service level and traffic class to its connection manager")

// wanted says whether a fabric has what qperf has no options for, and figures depend on.
func wanted(f *wire.Fabric) bool {
	return f.MTU != nil || f.ServiceLevel != nil || f.TrafficClass != nil
}
