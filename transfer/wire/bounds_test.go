package wire

import (
	"bufio"
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
)

// TestEveryBoundHolds takes each message to its bound, which passes, and one step
// beyond, which neither end lets pass.
func TestEveryBoundHolds(t *testing.T) {
	text := func(n int) string { return strings.Repeat("x", n) }
	hello := func(edit func(*Hello)) Message {
		m := &Hello{Lanes: 1, RDMA: &Offer{Candidates: []Candidate{{Port: 1, MTU: 1}}}}
		edit(m)
		return m
	}
	measure := func(f func(*Measure)) Message {
		m := &Measure{Size: 1, Depth: 1, Extents: 1, Nanoseconds: 1}
		f(m)
		return m
	}
	tool := func(f func(*RunTool)) Message {
		m := &RunTool{Tool: 1, Size: 1, Depth: 1, Nanoseconds: 1}
		f(m)
		return m
	}
	verbs := func(f func(*Verbs)) Message {
		m := &Verbs{Size: 1, Depth: 1, QPs: 1, Chain: 1, Signal: 1, Buffers: 1, Nanoseconds: 1}
		f(m)
		return m
	}
	pairs := func(n int, f func(*QueuePair)) Message {
		m := &VerbsEnd{QPs: make([]QueuePair, n)}
		for i := range m.QPs {
			m.QPs[i].MTU = 1
			f(&m.QPs[i])
		}
		return m
	}
	none := func(*QueuePair) {}
	lane := func(edit func(*RDMALane)) Message {
		l := &RDMALane{QP: QueuePair{MTU: 1}}
		edit(l)
		return &OpenLane{Depth: 1, RDMA: l}
	}
	seven, eight := uint8(7), uint8(8)
	fabric := func(edit func(*Fabric, *uint8)) Message {
		m := &Offer{}
		edit(&m.Fabric, new(uint8))
		return m
	}
	rows := func(n int) []PathRow {
		list := make([]PathRow, n)
		for i := range list {
			list[i].Receiver, list[i].Sender = Candidate{Port: 1, MTU: 1}, Candidate{Port: 1, MTU: 1}
		}
		return list
	}
	rowOf := func(edit func(*PathRow)) Message {
		m := &Paths{Rows: rows(1)}
		edit(&m.Rows[0])
		return m
	}
	host := func(f func(*Hardware)) Message {
		m := hardware()
		f(m)
		return m
	}
	port := func(f func(*HardwarePort)) Message {
		return host(func(m *Hardware) { f(&m.Devices[0].Ports[0]) })
	}
	counters := func(n int) map[string]uint64 {
		m := make(map[string]uint64)
		for i := range n {
			m[strings.Repeat("c", i%9)+string(rune('a'+i%26))+strings.Repeat("d", i/26)] = 1
		}
		return m
	}
	datagrams := func(l UDPLane) Message { return &LaneAnswer{UDP: &l} }
	digests := func(n, bytes int) Message { return &Digests{Extents: make([]uint32, n), Sums: make([]byte, bytes)} }
	for _, c := range []struct {
		name     string
		ok, over Message
	}{
		{"lanes", hello(func(m *Hello) { m.Lanes = MaxLanes }), hello(func(m *Hello) { m.Lanes = MaxLanes + 1 })},
		{"limit", hello(func(m *Hello) { m.Limit = 1 }), hello(func(m *Hello) { m.Limit = -1 })},
		{"lanes of a plan", &Plan{Lanes: make([]uint32, MaxLanes)}, &Plan{Lanes: make([]uint32, MaxLanes+1)}},
		{"bytes of a lane", &Done{Lanes: []LaneBytes{{}}}, &Done{Lanes: []LaneBytes{{Bytes: -1}}}},
		{"addresses", hello(func(m *Hello) { m.RDMA.Candidates = addresses(MaxCandidates) }), hello(func(m *Hello) { m.RDMA.Candidates = addresses(MaxCandidates + 1) })},
		{"device", hello(func(m *Hello) { m.RDMA.Candidates[0].Device = text(64) }), hello(func(m *Hello) { m.RDMA.Candidates[0].Device = text(65) })},
		{"device's letters", hello(func(m *Hello) { m.RDMA.Candidates[0].Device = "é" }), hello(func(m *Hello) { m.RDMA.Candidates[0].Device = "\x1b" })},
		{"address MTU", hello(func(m *Hello) { m.RDMA.Candidates[0].MTU = 5 }), hello(func(m *Hello) { m.RDMA.Candidates[0].MTU = 6 })},
		{"no address MTU", hello(func(m *Hello) { m.RDMA.Candidates[0].MTU = 1 }), hello(func(m *Hello) { m.RDMA.Candidates[0].MTU = 0 })},
		{"port", hello(func(m *Hello) { m.RDMA.Candidates[0].Port = 255 }), hello(func(m *Hello) { m.RDMA.Candidates[0].Port = 0 })},
		{"reason", hello(func(m *Hello) { m.RDMA.Reason = text(MaxText) }), hello(func(m *Hello) { m.RDMA.Reason = text(MaxText + 1) })},
		{"netdev", hello(func(m *Hello) { m.RDMA.Candidates[0].Netdev = "v" }), hello(func(m *Hello) { m.RDMA.Candidates[0].Netdev = "\x1b" })},
		{"kind of GID", hello(func(m *Hello) { m.RDMA.Candidates[0].GIDType = 2 }), hello(func(m *Hello) { m.RDMA.Candidates[0].GIDType = 3 })},
		{"partitions", hello(func(m *Hello) { m.RDMA.Candidates[0].PKeys = make([]uint16, maxPKeys) }), hello(func(m *Hello) { m.RDMA.Candidates[0].PKeys = make([]uint16, maxPKeys+1) })},
		{"refused ports", &Offer{Refused: make([]Refusal, maxRefused)}, &Offer{Refused: make([]Refusal, maxRefused+1)}},
		{"refused port", &Offer{Refused: []Refusal{{Reason: "down"}}}, &Offer{Refused: []Refusal{{Reason: "\x1b"}}}},
		{"rails", &Offer{Rails: make([]Rail, MaxRails)}, &Offer{Rails: make([]Rail, MaxRails+1)}},
		{"rail", &Offer{Rails: []Rail{{Here: text(maxDevice)}}}, &Offer{Rails: []Rail{{There: text(maxDevice + 1)}}}},
		{"service level", fabric(func(f *Fabric, v *uint8) { *v = 15; f.ServiceLevel = v }), fabric(func(f *Fabric, v *uint8) { *v = 16; f.ServiceLevel = v })},
		{"MTU wanted", fabric(func(f *Fabric, v *uint8) { *v = 1; f.MTU = v }), fabric(func(f *Fabric, v *uint8) { f.MTU = v })},
		{"MTU too large", fabric(func(f *Fabric, v *uint8) { *v = 5; f.MTU = v }), fabric(func(f *Fabric, v *uint8) { *v = 6; f.MTU = v })},
		{"time-out", fabric(func(f *Fabric, v *uint8) { *v = 31; f.Timeout = v }), fabric(func(f *Fabric, v *uint8) { *v = 32; f.Timeout = v })},
		{"retries", fabric(func(f *Fabric, v *uint8) { *v = 7; f.Retries = v }), fabric(func(f *Fabric, v *uint8) { *v = 8; f.Retries = v })},
		{"end of a probe", &PathAnswer{QP: &QueuePair{MTU: 1}}, &PathAnswer{}},
		{"probes seen", &ProbesSeen{IDs: make([]uint32, MaxProbes)}, &ProbesSeen{IDs: make([]uint32, MaxProbes+1)}},
		{"pairs", &Paths{Rows: rows(maxRows)}, &Paths{Rows: rows(maxRows + 1)}},
		{"state of a pair", rowOf(func(r *PathRow) { r.State = PathChosen }), rowOf(func(r *PathRow) { r.State = PathChosen + 1 })},
		{"address of a pair", rowOf(func(r *PathRow) { r.Sender.MTU = 5 }), rowOf(func(r *PathRow) { r.Sender.MTU = 6 })},
		{"reason of a pair", rowOf(func(r *PathRow) { r.Reason = "x" }), rowOf(func(r *PathRow) { r.Reason = "\x9b" })},
		{"transport", hello(func(m *Hello) { m.Transport = text(MaxText) }), hello(func(m *Hello) { m.Transport = text(MaxText + 1) })},
		{"op", hello(func(m *Hello) { m.Op = "send" }), hello(func(m *Hello) { m.Op = "\n" })},
		{"verify", hello(func(m *Hello) { m.Verify = "none" }), hello(func(m *Hello) { m.Verify = "\x9b" })},
		{"large extents", &Welcome{ExtentSize: MaxExtent}, &Welcome{ExtentSize: 2 * MaxExtent}},
		{"small extents", &Welcome{ExtentSize: 1 << 10}, &Welcome{ExtentSize: 1 << 9}},
		{"extents", &Welcome{ExtentSize: 1 << 11}, &Welcome{ExtentSize: 1<<11 + 1}},
		{"depth", &OpenLane{Depth: 1024, TCP: &TCPLane{}}, &OpenLane{Depth: 1025, TCP: &TCPLane{}}},
		{"no depth", &OpenLane{Depth: 1, TCP: &TCPLane{}}, &OpenLane{TCP: &TCPLane{}}},
		{"no transport", &OpenLane{Depth: 1, TCP: &TCPLane{}}, &OpenLane{Depth: 1}},
		{"both transports", lane(func(*RDMALane) {}), &OpenLane{Depth: 1, TCP: &TCPLane{}, RDMA: &RDMALane{QP: QueuePair{MTU: 1}}}},
		{"kernel", &OpenLane{Depth: 1, TCP: &TCPLane{Kernel: text(MaxText)}}, &OpenLane{Depth: 1, TCP: &TCPLane{Kernel: text(MaxText + 1)}}},
		{"queue pair", lane(func(l *RDMALane) { l.QP.QPN = 0xffffff }), lane(func(l *RDMALane) { l.QP.QPN = 0x1000000 })},
		{"packet", lane(func(l *RDMALane) { l.QP.PSN = 0xffffff }), lane(func(l *RDMALane) { l.QP.PSN = 0x1000000 })},
		{"MTU", lane(func(l *RDMALane) { l.QP.MTU = 5 }), lane(func(l *RDMALane) { l.QP.MTU = 6 })},
		{"no MTU", lane(func(l *RDMALane) { l.QP.MTU = 1 }), lane(func(l *RDMALane) { l.QP.MTU = 0 })},
		{"lane's device", lane(func(l *RDMALane) { l.Device = text(64) }), lane(func(l *RDMALane) { l.Device = text(65) })},
		{"lane's op", lane(func(l *RDMALane) { l.Op = "read" }), lane(func(l *RDMALane) { l.Op = "\x00" })},
		{"answer", &LaneAnswer{RDMA: &RDMALane{QP: QueuePair{MTU: 5}}}, &LaneAnswer{RDMA: &RDMALane{QP: QueuePair{MTU: 6}}}},
		{"answer's method", &LaneAnswer{Method: text(MaxText)}, &LaneAnswer{Method: text(MaxText + 1)}},
		{"answer's reason", &LaneAnswer{Reason: text(MaxText)}, &LaneAnswer{Reason: text(MaxText + 1)}},
		{"down", &LaneDown{Reason: text(MaxText)}, &LaneDown{Reason: text(MaxText + 1)}},
		{"plan", &Plan{Reason: text(MaxText)}, &Plan{Reason: text(MaxText + 1)}},
		{"plan's transport", &Plan{Transport: "tcp"}, &Plan{Transport: "\x1b[2J"}},
		{"size", &Entry{Path: "f", Size: MaxSize}, &Entry{Path: "f", Size: MaxSize + 1}},
		{"negative size", &Entry{Path: "f"}, &Entry{Path: "f", Size: -1}},
		{"file", &Entry{Path: "f", File: MaxEntries - 1}, &Entry{Path: "f", File: MaxEntries}},
		{"first", &Entry{Path: "f", File: 2, Kind: HardLink, Link: "g", First: 1}, &Entry{Path: "f", File: 2, Kind: HardLink, Link: "g", First: 2}},
		{"first of a file", &Entry{Path: "f", File: 2}, &Entry{Path: "f", File: 2, First: 1}},
		{"link", &Entry{Path: "f", Kind: Symlink, Link: "g"}, &Entry{Path: "f", Kind: Symlink, Link: "g\x00"}},
		{"name of another", &Entry{Path: "f", File: 2, Kind: HardLink, Link: "g"}, &Entry{Path: "f", File: 2, Kind: HardLink, Link: "../g"}},
		{"owner", &Entry{Path: "f", Owner: &Owner{User: "a"}}, &Entry{Path: "f", Owner: &Owner{User: "\x1b"}}},
		{"attribute", &Entry{Path: "f", Attrs: []Attr{{Name: "user.a", Value: make([]byte, MaxAttrs-6)}}}, &Entry{Path: "f", Attrs: []Attr{{Name: "user.a", Value: make([]byte, MaxAttrs-5)}}}},
		{"capability", &Entry{Path: "f", Attrs: []Attr{{Name: ACLAccess, Value: []byte{1}}}}, &Entry{Path: "f", Attrs: []Attr{{Name: "security.capability", Value: []byte{1}}}}},
		{"path", &Entry{Path: "a..b"}, &Entry{Path: "../b"}},
		{"files", &ManifestEnd{Files: MaxEntries}, &ManifestEnd{Files: MaxEntries + 1}},
		{"measured size", measure(func(m *Measure) { m.Size = MaxExtent }), measure(func(m *Measure) { m.Size = MaxExtent + 1 })},
		{"no measured size", measure(func(m *Measure) { m.Size = 1 }), measure(func(m *Measure) { m.Size = 0 })},
		{"measured depth", measure(func(m *Measure) { m.Depth, m.Extents = 1024, 1024 }), measure(func(m *Measure) { m.Depth, m.Extents = 1025, 1025 })},
		{"measured extents", measure(func(m *Measure) { m.Depth, m.Extents = 5, 5 }), measure(func(m *Measure) { m.Depth, m.Extents = 5, 4 })},
		{"time to measure", measure(func(m *Measure) { m.Nanoseconds = MaxMeasure }), measure(func(m *Measure) { m.Nanoseconds = MaxMeasure + 1 })},
		{"no time to measure", measure(func(m *Measure) { m.Nanoseconds = 1 }), measure(func(m *Measure) { m.Nanoseconds = 0 })},
		{"time to warm up", measure(func(m *Measure) { m.Warmup = MaxMeasure }), measure(func(m *Measure) { m.Warmup = MaxMeasure + 1 })},
		{"interval", measure(func(m *Measure) { m.Interval = MaxInterval }), measure(func(m *Measure) { m.Interval = MaxInterval + 1 })},
		{"no interval", measure(func(m *Measure) { m.Interval = 0 }), measure(func(m *Measure) { m.Interval = -1 })},
		{"memory", &Measured{}, &Measured{Memory: Memory{Pinned: -1}}},
		{"work", &Measured{Work: &Work{SystemCalls: -1}}, &Measured{Work: &Work{SystemCalls: -2}}},
		{"interrupts", &Measured{}, &Measured{CPU: CPU{SoftIRQ: -1}}},
		{"verbs' CPU", &VerbsOver{}, &VerbsOver{CPU: CPU{System: -1}}},
		{"measured op", measure(func(m *Measure) { m.Op = "send" }), measure(func(m *Measure) { m.Op = "\x1b" })},
		{"measured lane", &Measuring{Detail: "rxe_a"}, &Measuring{Detail: "\x00"}},
		{"times", &Measured{Took: make([]int64, maxTook), Times: make([]int64, maxTook)}, &Measured{Took: make([]int64, maxTook+1), Times: make([]int64, maxTook+1)}},
		{"times of times", &Measured{Took: []int64{1}, Times: []int64{1}}, &Measured{Took: []int64{1}}},
		{"time", &Measured{Took: []int64{0}, Times: []int64{0}}, &Measured{Took: []int64{-1}, Times: []int64{0}}},
		{"measurement", &Measured{}, &Measured{CPU: CPU{Host: -1}}},
		{"why not", &Measured{Reason: text(MaxText)}, &Measured{Reason: text(MaxText + 1)}},
		{"bytes", &ManifestEnd{}, &ManifestEnd{Bytes: -1}},
		{"a digest too short", digests(2, 64), digests(2, 63)},
		{"a digest too many", digests(0, 0), digests(0, 32)},
		{"failure", &FileFailed{Reason: text(MaxText)}, &FileFailed{Reason: text(MaxText + 1)}},
		{"receipts", &Receipt{Files: make([]uint32, 2), Digests: make([]byte, 64)}, &Receipt{Files: make([]uint32, 2), Digests: make([]byte, 63)}},
		{"receipts of too many", &Receipt{Files: make([]uint32, MaxPack)}, &Receipt{Files: make([]uint32, MaxPack+1)}},
		{"receipts of none", &Receipt{Files: make([]uint32, 1)}, &Receipt{}},
		{"vouchers", &Vouch{Files: make([]uint32, 2), Digests: make([]byte, 64)}, &Vouch{Files: make([]uint32, 2), Digests: make([]byte, 32)}},
		{"vouchers of too many", &Vouch{Files: make([]uint32, MaxPack)}, &Vouch{Files: make([]uint32, MaxPack+1)}},
		{"vouchers of none", &Vouch{Files: make([]uint32, 1)}, &Vouch{}},
		{"verbs' size", verbs(func(m *Verbs) { m.Size = MaxExtent }), verbs(func(m *Verbs) { m.Size = MaxExtent + 1 })},
		{"verbs' depth", verbs(func(m *Verbs) { m.Depth = 4096 }), verbs(func(m *Verbs) { m.Depth = 4097 })},
		{"verbs' queue pairs", verbs(func(m *Verbs) { m.QPs = 64 }), verbs(func(m *Verbs) { m.QPs = 65 })},
		{"verbs a doorbell", verbs(func(m *Verbs) { m.Chain = 64 }), verbs(func(m *Verbs) { m.Chain = 65 })},
		{"verbs a completion", verbs(func(m *Verbs) { m.Depth, m.Signal = 9, 9 }), verbs(func(m *Verbs) { m.Depth, m.Signal = 9, 10 })},
		{"verbs inline", verbs(func(m *Verbs) { m.Inline = 1024 }), verbs(func(m *Verbs) { m.Inline = 1025 })},
		{"verbs' buffers", verbs(func(m *Verbs) { m.Buffers = 1 << 20 }), verbs(func(m *Verbs) { m.Buffers = 1<<20 + 1 })},
		{"verbs' MTU", verbs(func(m *Verbs) { m.MTU = 5 }), verbs(func(m *Verbs) { m.MTU = 6 })},
		{"verbs' spin", verbs(func(m *Verbs) { m.Spin = MaxVerbsSpin }), verbs(func(m *Verbs) { m.Spin = MaxVerbsSpin + 1 })},
		{"verbs' time", verbs(func(m *Verbs) { m.Nanoseconds = MaxVerbsTime }), verbs(func(m *Verbs) { m.Nanoseconds = MaxVerbsTime + 1 })},
		{"verbs' op", verbs(func(m *Verbs) { m.Op = "ud" }), verbs(func(m *Verbs) { m.Op = "\x1b" })},
		{"queue pairs", pairs(64, none), pairs(65, none)},
		{"no queue pairs", pairs(1, none), pairs(0, none)},
		{"one of the queue pairs", pairs(2, none), pairs(2, func(q *QueuePair) { q.QPN = 0x1000000 })},
		{"verbs' address", &VerbsEnd{QPs: []QueuePair{{MTU: 1}}, Candidate: MaxCandidates - 1}, &VerbsEnd{QPs: []QueuePair{{MTU: 1}}, Candidate: MaxCandidates}},
		{"verbs' messages", &VerbsOver{}, &VerbsOver{Messages: -1}},
		{"why no verbs", &VerbsOver{Reason: text(MaxText)}, &VerbsOver{Reason: text(MaxText + 1)}},
		{"tool", tool(func(m *RunTool) { m.Tool = toolEnd - 1 }), tool(func(m *RunTool) { m.Tool = toolEnd })},
		{"no tool", tool(func(m *RunTool) { m.Tool = 1 }), tool(func(m *RunTool) { m.Tool = 0 })},
		{"tool's size", tool(func(m *RunTool) { m.Size = MaxExtent }), tool(func(m *RunTool) { m.Size = MaxExtent + 1 })},
		{"tool's depth", tool(func(m *RunTool) { m.Depth = 4096 }), tool(func(m *RunTool) { m.Depth = 4097 })},
		{"tool's queue pairs", tool(func(m *RunTool) { m.QPs = 64 }), tool(func(m *RunTool) { m.QPs = 65 })},
		{"tool's completions", tool(func(m *RunTool) { m.Signal = 1 }), tool(func(m *RunTool) { m.Signal = 2 })},
		{"tool's inline", tool(func(m *RunTool) { m.Inline = 1024 }), tool(func(m *RunTool) { m.Inline = 1025 })},
		{"tool's MTU", tool(func(m *RunTool) { m.MTU = 5 }), tool(func(m *RunTool) { m.MTU = 6 })},
		{"tool's messages", tool(func(m *RunTool) { m.Iterations = MaxToolIterations }), tool(func(m *RunTool) { m.Iterations = MaxToolIterations + 1 })},
		{"tool's time", tool(func(m *RunTool) { m.Nanoseconds = MaxToolTime }), tool(func(m *RunTool) { m.Nanoseconds = MaxToolTime + 1 })},
		{"no time for a tool", tool(func(m *RunTool) { m.Nanoseconds = 1 }), tool(func(m *RunTool) { m.Nanoseconds = 0 })},
		{"tool's address", &ToolReady{Port: 1, Candidate: MaxCandidates - 1}, &ToolReady{Port: 1, Candidate: MaxCandidates}},
		{"probe's number", &ProbePath{ID: math.MaxUint32 - 1, QP: QueuePair{MTU: 1}}, &ProbePath{ID: math.MaxUint32, QP: QueuePair{MTU: 1}}},
		{"tool's fabric", &ToolReady{Port: 1, Fabric: &Fabric{Retries: &seven}}, &ToolReady{Port: 1, Fabric: &Fabric{Retries: &eight}}},
		{"tool's port", &ToolReady{Port: 1}, &ToolReady{}},
		{"why no tool", &ToolEnded{Reason: text(MaxText)}, &ToolEnded{Reason: text(MaxText + 1)}},
		{"tool's CPU", &ToolEnded{}, &ToolEnded{CPU: CPU{User: -1}}},
		{"no port for datagrams", datagrams(UDPLane{Port: 1}), datagrams(UDPLane{})},
		{"small datagrams", datagrams(UDPLane{Port: 1, Payload: MinDatagram}), datagrams(UDPLane{Port: 1, Payload: MinDatagram - 1})},
		{"large datagrams", datagrams(UDPLane{Port: 1, Payload: MaxDatagram}), datagrams(UDPLane{Port: 1, Payload: MaxDatagram + 1})},
		{"a lane of two kinds", &OpenLane{Depth: 1, UDP: &UDPLane{Port: 1}}, &OpenLane{Depth: 1, UDP: &UDPLane{Port: 1}, TCP: &TCPLane{}}},
		{"a lane of datagrams", &OpenLane{Depth: 1, UDP: &UDPLane{Port: 1}}, &OpenLane{Depth: 1, UDP: &UDPLane{}}},
		{"lost datagrams", &Measured{Datagrams: 1, Lost: 1}, &Measured{Datagrams: 1, Lost: 2}},
		{"less than none lost", &Measured{}, &Measured{Lost: -1}},
		{"devices", host(func(m *Hardware) { m.Devices = make([]HardwareDevice, 1); m.Devices[0].Ports = []HardwarePort{} }), host(func(m *Hardware) { m.Devices = make([]HardwareDevice, MaxHardwareDevices+1) })},
		{"no list of devices", host(func(m *Hardware) { m.Devices = []HardwareDevice{} }), host(func(m *Hardware) { m.Devices = nil })},
		{"ports", host(func(m *Hardware) { m.Devices[0].Ports = make([]HardwarePort, MaxHardwarePorts) }), host(func(m *Hardware) { m.Devices[0].Ports = make([]HardwarePort, MaxHardwarePorts+1) })},
		{"counters", port(func(p *HardwarePort) { p.Counters = counters(MaxHardwareCounters) }), port(func(p *HardwarePort) { p.Counters = counters(MaxHardwareCounters + 1) })},
		{"a counter's name", port(func(p *HardwarePort) { p.Counters = map[string]uint64{text(maxHardwareText): 1} }), port(func(p *HardwarePort) { p.Counters = map[string]uint64{text(maxHardwareText + 1): 1} })},
		{"a port's state", port(func(p *HardwarePort) { p.State = text(maxHardwareText) }), port(func(p *HardwarePort) { p.State = "\x1b" })},
		{"a service level", port(func(p *HardwarePort) { p.ServiceLevel = 15 }), port(func(p *HardwarePort) { p.ServiceLevel = 16 })},
		{"a processor", host(func(m *Hardware) { m.Processor = text(maxHardwareText) }), host(func(m *Hardware) { m.Processor = text(maxHardwareText + 1) })},
		{"a provider", host(func(m *Hardware) { m.Devices[0].Provider = text(maxHardwareText) }), host(func(m *Hardware) { m.Devices[0].Provider = text(maxHardwareText + 1) })},
		{"foreseen", &Foreseen{Here: MaxSize}, &Foreseen{Here: MaxSize + 1}},
		{"negative foreseen", &Foreseen{}, &Foreseen{Here: -1}},
		{"done", &Done{}, &Done{Bytes: -1}},
		{"time", &Done{}, &Done{Nanoseconds: -1}},
		{"abort", &Abort{Reason: text(MaxText)}, &Abort{Reason: text(MaxText + 1)}},
		{"frame", digests(29000, 29000*32), digests(32768, 32768*32)},
	} {
		if _, err := Append(nil, c.ok); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := Append(nil, c.over); err == nil {
			t.Errorf("%s: encoded beyond its bound", c.name)
		}
		body, err := encoder.Marshal(c.over)
		if err != nil {
			t.Fatal(c.name, err)
		}
		frame := append([]byte{0, 0, 0, 0, byte(c.over.kind())}, body...)
		frame[0], frame[1], frame[2], frame[3] = byte((len(body)+1)>>24), byte((len(body)+1)>>16), byte((len(body)+1)>>8), byte(len(body)+1)
		if m, err := Read(bufio.NewReader(bytes.NewReader(frame))); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %#v, %v; want it refused", c.name, m, err)
		}
	}
}

func addresses(n int) (list []Candidate) {
	for range n {
		list = append(list, Candidate{Port: 1, MTU: 1})
	}
	return list
}
