package peertool

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/rdmaxfer/rdmaxfer/compare"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Peers are all the tools that there are, run over the meter's session. Those of RDMA come
// first.
func Peers(m *transfer.Meter) []compare.Peer {
	const halved = "perftest's _lat tells half a round trip, doubled here; "
	const rest = "its rates are MiB/s, whatever the label; the same buffer over and over, and no requests"
	return []compare.Peer{
		perftest(m, "write", wire.ToolWriteBW, wire.ToolWriteLat, 2, halved+rest),
		perftest(m, "read", wire.ToolReadBW, wire.ToolReadLat, 1, "perftest's ib_read_lat tells whole round trips, taken as they are; it moves bytes the other way, from there to here; "+rest),
		perftest(m, "send", wire.ToolSendBW, wire.ToolSendLat, 2, halved+rest),
		qperf(m, "qperf rc", "rdma send", wire.ToolQperfRDMA, "rc_bw", "rc_lat", "rc_bw has 1024 messages in flight, whatever ours has, and both tests wait on events, but beside bench's polling they poll; "),
		qperf(m, "qperf tcp", "tcp", wire.ToolQperf, "tcp_bw", "tcp_lat", "a stream of which nobody asks for a part, and TCP joins small messages; "),
		{
			Name: "iperf3", Beside: "tcp", Normalised: "its bits divided by eight, whole seconds, as received; a stream of which nobody asks for a part, and TCP joins small messages",
			Rate: func(ctx context.Context, l compare.PeerLoad) (*compare.PeerSample, error) {
				s := new(compare.PeerSample)
				err := both(ctx, m, s, wire.ToolIperf3, l, 0, func(ctx context.Context, _ *wire.RunTool, at transfer.ToolAt) (err error) {
					var said string
					if said, s.Here, err = run(ctx, "iperf3", iperf3Args(at, l.Size, l.Duration)); err != nil {
						return err
					}
					s.Rate, err = parseIperf3(said)
					s.Bytes = s.Rate * float64(wholeSeconds(l.Duration))
					return err
				})
				return s, err
			},
		},
	}
}

// client runs this host's end.
type client func(context.Context, *wire.RunTool, transfer.ToolAt) error

// both runs both ends of a tool.
func both(ctx context.Context, m *transfer.Meter, s *compare.PeerSample, tool wire.Tool, l compare.PeerLoad, iterations int, f client) error {
	ask := &wire.RunTool{Tool: tool, Size: uint32(l.Size), Depth: uint16(l.Depth), Iterations: uint32(iterations), Nanoseconds: int64(limit(l.Duration))}
	if as := l.As; as != nil {
		ask.MTU, ask.Both, ask.Events, ask.UD, ask.Inline = as.MTUCode(), as.Both, as.Events, as.Op == "ud", uint16(as.Inline)
		if !as.Latency { // of which perftest refuses these
			ask.QPs, ask.Signal = uint16(as.QPs), uint16(as.Signal)
		}
		if as.Chain > 1 {
			ask.Chain = uint16(as.Chain)
		}
	}
	there, err := m.Tool(ctx, ask, func(ctx context.Context, at transfer.ToolAt) error { return f(ctx, ask, at) })
	s.There, s.Version = there, version(ctx, tool)
	return err
}

// aside is what of a tool's time is for its start and end.
const aside = 30 * time.Second

// MaxDuration is the longest measurement that a tool can be asked for: it is ended after
// [wire.MaxToolTime], whatever it does.
const MaxDuration = wire.MaxToolTime - aside

// longest is how long what perftest is told should take, at the most: it is told messages, and
// may be half as fast as what they were counted by.
const longest = MaxDuration / 2

// limit is how long a tool may take: many times as long as it should.
func limit(d time.Duration) time.Duration {
	return min(wire.MaxToolTime, aside+10*d)
}

// fewest and most are how many messages perftest is told to send where nobody says how many:
// fewer say little, and each time of more would be a line.
var fewest, most = [2]int{20, 20}, [2]int{wire.MaxToolIterations, 100_000}

// queues is how many queue pairs perftest uses.
func queues(l compare.PeerLoad) int {
	if l.As == nil || l.As.Latency {
		return 1
	}
	return max(1, l.As.QPs)
}

// each is a queue pair's share of so many messages.
func each(n, queues int) int { return (n + queues - 1) / queues }

// iterations is how many messages each queue pair sends: as many as were asked for, or as
// take about as long as a load should, up to the longest.
func iterations(l compare.PeerLoad, alone int) int {
	var whole int
	if l.As != nil && l.As.Iterations > 0 {
		whole = each(l.As.Iterations, queues(l))
	} else {
		n := math.Ceil(l.Expect * min(l.Duration, longest).Seconds() / float64(queues(l)))
		whole = int(min(float64(most[alone]), max(float64(fewest[alone]), n, float64(2*l.Depth))))
	}
	if l.As != nil && l.As.Chain > 1 { // perftest posts whole lists alone
		whole = min(whole+l.As.Chain-1, most[alone]) / l.As.Chain * l.As.Chain
	}
	return whole
}

func perftest(m *transfer.Meter, op string, bw, lat wire.Tool, times int, normalised string) compare.Peer {
	return compare.Peer{
		Name: "ib_" + op, Beside: "rdma " + op, Normalised: normalised,
		Rate: func(ctx context.Context, l compare.PeerLoad) (*compare.PeerSample, error) {
			if err := perftestRefuses(l, 0); err != nil {
				return nil, err
			}
			n, s := iterations(l, 0), new(compare.PeerSample)
			err := both(ctx, m, s, bw, l, n, perftestClient(s, func(said string) (err error) {
				all := n * queues(l)
				s.Rate, err = parsePerftestRate(said, l.Size, all)
				s.Bytes = float64(all) * float64(l.Size)
				if l.As != nil && l.As.Both {
					s.Bytes *= 2
				}
				return err
			}))
			return s, err
		},
		Trip: func(ctx context.Context, l compare.PeerLoad) (*compare.PeerSample, error) {
			if err := perftestRefuses(l, 1); err != nil {
				return nil, err
			}
			s := new(compare.PeerSample)
			err := both(ctx, m, s, lat, l, iterations(l, 1), perftestClient(s, func(said string) (err error) {
				if s.Trips, err = parsePerftestTrips(said, times); err == nil {
					s.Trip = float64(s.Trips.ValueAtQuantile(50)) / 1e9
				}
				return err
			}))
			return s, err
		},
	}
}

func perftestClient(s *compare.PeerSample, parse func(said string) error) client {
	return func(ctx context.Context, ask *wire.RunTool, at transfer.ToolAt) error {
		said, cpu, err := run(ctx, perftests[ask.Tool], append(perftestArgs(ask, at.Local, &at.Fabric, at.Addr.Port()), at.Addr.Addr().String()))
		if s.Here = cpu; err != nil {
			return err
		}
		return parse(said)
	}
}

func qperf(m *transfer.Meter, name, beside string, tool wire.Tool, bw, lat, also string) compare.Peer {
	measure := func(ctx context.Context, l compare.PeerLoad, test, unit string, use func(*compare.PeerSample, float64)) (*compare.PeerSample, error) {
		if err := qperfRefuses(l); err != nil {
			return nil, err
		}
		s := new(compare.PeerSample)
		err := both(ctx, m, s, tool, l, 0, func(ctx context.Context, _ *wire.RunTool, at transfer.ToolAt) error {
			if wanted(&at.Fabric) {
				return errFabric
			}
			said, cpu, err := run(ctx, "qperf", qperfArgs(at, l, test))
			if s.Here = cpu; err != nil {
				return err
			}
			v, err := parseQperf(said, unit)
			if err == nil {
				use(s, v)
			}
			return err
		})
		return s, err
	}
	return compare.Peer{
		Name: name, Beside: beside, Normalised: also + "qperf's latency is the average of half round trips, doubled here; whole seconds",
		Rate: func(ctx context.Context, l compare.PeerLoad) (*compare.PeerSample, error) {
			return measure(ctx, l, bw, "bytes/sec", func(s *compare.PeerSample, v float64) {
				s.Rate, s.Bytes = v, v*float64(wholeSeconds(l.Duration))
			})
		},
		Trip: func(ctx context.Context, l compare.PeerLoad) (*compare.PeerSample, error) {
			return measure(ctx, l, lat, "ns", func(s *compare.PeerSample, v float64) { s.Trip = 2 * v / 1e9 })
		},
	}
}

// versions are what the programs say they are.
var versions sync.Map

// version asks a program of this host for its own, once. One that does not say is no error.
func version(ctx context.Context, tool wire.Tool) string {
	name, _, _ := serverCommand(&wire.RunTool{Tool: tool}, &wire.Candidate{}, &wire.Fabric{}, 0)
	if v, ok := versions.Load(name); ok {
		return v.(string)
	}
	p, err := start(ctx, name, []string{"--version"})
	if err != nil {
		return ""
	}
	<-p.ended // perftest's status is 1
	v := parseVersion(p.said.String())
	versions.Store(name, v)
	return v
}
