package peertool

import (
	"cmp"
	"net/netip"
	"strconv"
	"time"

	"github.com/rdmaxfer/rdmaxfer/compare"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// perftests are the names of perftest's programs.
var perftests = map[wire.Tool]string{
	wire.ToolWriteBW: "ib_write_bw", wire.ToolReadBW: "ib_read_bw", wire.ToolSendBW: "ib_send_bw",
	wire.ToolWriteLat: "ib_write_lat", wire.ToolReadLat: "ib_read_lat", wire.ToolSendLat: "ib_send_lat",
}

// leastReceives is what a receiver of ib_send_bw has posted, by perftest's default: fewer
// than the sender has in flight would be refused.
const leastReceives = 512

func deref(v *uint8) uint8 {
	if v == nil {
		return 0
	}
	return *v
}

func number[T uint8 | uint16 | uint32 | int](n T) string { return strconv.FormatInt(int64(n), 10) }

// serverCommand is the listening end of a tool. Not a word of it is the peer's.
func serverCommand(ask *wire.RunTool, mine *wire.Candidate, f *wire.Fabric, port uint16) (name string, args []string, endsItself bool) {
	switch ask.Tool {
	case wire.ToolQperf, wire.ToolQperfRDMA:
		return "qperf", []string{"-lp", number(port)}, false
	case wire.ToolIperf3:
		return "iperf3", []string{"-s", "-1", "-p", number(port)}, true
	}
	return perftests[ask.Tool], perftestArgs(ask, mine, f, port), true
}

// perftestArgs are the same at both ends, unless their users want other things of the
// network. (The sending one has an address too.)
func perftestArgs(ask *wire.RunTool, mine *wire.Candidate, f *wire.Fabric, port uint16) []string {
	args := []string{"-F", "-p", number(port), "-d", mine.Device, "-i", number(mine.Port), "-s", number(ask.Size), "-n", number(ask.Iterations)}
	if mine.Ethernet {
		args = append(args, "-x", number(mine.GIDIndex))
	}
	optional := func(flag string, v uint16) {
		if v > 0 {
			args = append(args, flag, number(v))
		}
	}
	optional("-q", ask.QPs)
	optional("-l", ask.Chain)
	optional("-Q", ask.Signal)
	switch {
	case ask.Tool == wire.ToolReadBW, ask.Tool == wire.ToolReadLat: // which refuse it
	case ask.Tool == wire.ToolWriteLat, ask.Tool == wire.ToolSendLat: // whose default is the device's, and ours is none
		args = append(args, "-I", number(ask.Inline))
	default:
		optional("-I", ask.Inline)
	}
	wanted := func(flag string, v *uint8) {
		if v != nil {
			args = append(args, flag, number(*v))
		}
	}
	wanted("-S", f.ServiceLevel)
	wanted("--tclass", f.TrafficClass)
	wanted("-u", f.Timeout)
	if mtu := cmp.Or(deref(f.MTU), ask.MTU); mtu > 0 {
		args = append(args, "-m", number(128<<mtu))
	}
	if ask.Both {
		args = append(args, "-b")
	}
	if ask.Events {
		args = append(args, "-e")
	}
	if ask.UD {
		args = append(args, "-c", "UD")
	}
	switch ask.Tool {
	case wire.ToolSendBW:
		args = append(args, "-t", number(ask.Depth), "-r", number(max(leastReceives, 2*ask.Depth)))
	case wire.ToolWriteBW, wire.ToolReadBW:
		args = append(args, "-t", number(ask.Depth))
	default:
		args = append(args, "-U") // every single time
	}
	return args
}

// qperfArgs are those of the end that sends, which tells the other whether to poll.
func qperfArgs(at transfer.ToolAt, l compare.PeerLoad, test string) []string {
	host := at.Addr.Addr()
	args := []string{"-lp", number(at.Addr.Port()), "-t", number(wholeSeconds(l.Duration)), "-uu", "-m", number(l.Size)}
	if at.Local != nil {
		// The connection manager finds the device by its address. (Without, qperf takes the
		// first device.)
		args = append(args, "-cm1")
		if at.Local.Ethernet {
			host = netip.AddrFrom16(at.GID).Unmap()
		}
		if l.As != nil && !l.As.Events {
			args = append(args, "-cp1")
		}
	}
	return append([]string{host.String()}, append(args, test)...)
}

func iperf3Args(at transfer.ToolAt, size int, d time.Duration) []string {
	return []string{"-c", at.Addr.Addr().String(), "-p", number(at.Addr.Port()), "-t", number(wholeSeconds(d)), "-l", number(size), "-J"}
}

// wholeSeconds rounds up: qperf and iperf3 count no parts of one.
func wholeSeconds(d time.Duration) int { return max(1, int((d+time.Second-1)/time.Second)) }
