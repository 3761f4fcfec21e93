package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// examples has every message, with every field set to something that is not zero.
func examples() []Message {
	digest := bytes.Repeat([]byte{7}, DigestSize)
	gid := [16]byte{0: 0xfe, 15: 1}
	qp := QueuePair{QPN: 0xffffff, PSN: 0x123456, GID: gid, LID: 9, MTU: 5}
	eight, sixteen := uint8(3), uint16(0x8001)
	fabric := Fabric{ServiceLevel: &eight, TrafficClass: &eight, PKey: &sixteen, MTU: &eight, Timeout: &eight, Retries: &eight}
	lane := &RDMALane{Candidate: 3, Device: "rxe_a", QP: qp, Op: "send", Reads: 1, PKey: sixteen, Fabric: fabric}
	candidate := Candidate{Number: 2, Device: "mlx5_0", Port: 1, GIDIndex: 3, GID: gid, GIDType: 2, LID: 4, MTU: 5, Ethernet: true,
		Netdev: "ens1", Mbps: 100000, Node: 1, Far: true, PKeys: []uint16{0xffff}}
	refused := []Refusal{{Device: "mlx5_1", Port: 1, Reason: "is DOWN"}}
	offer := &Offer{Candidates: []Candidate{candidate}, Refused: refused, Reason: "none", Final: true, Fabric: fabric, Rails: []Rail{{Here: "a", There: "b"}}}
	return []Message{
		&Hello{Version: 1, Transport: "auto", Op: "send", Verify: "blake3", Lanes: 2, RDMA: offer, Transfer: [16]byte{7}},
		&Welcome{Version: 1, Session: [16]byte{1, 2, 3}, ExtentSize: 1 << 20, Entries: 5},
		&Welcome{Version: 1, ExtentSize: 1 << 20, Entries: 5, Durable: true, Prompt: true},
		&OpenLane{ID: 1, Depth: 16, RDMA: lane},
		&LaneAnswer{ID: 1, Reason: "no", RDMA: lane, Method: "copy"},
		&LaneDown{ID: 1, Reason: "broke"},
		&Plan{Transport: "tcp", Lanes: []uint32{1, 2}, Reason: "no RDMA"},
		&Entry{File: 1, Path: "dir/file", Size: 1 << 40, Mode: 0o644, MTimeNS: -1, Sparse: true, Version: 1 << 63},
		&Entry{File: 2, Path: "dir/link", Kind: Symlink, Link: "../elsewhere"},
		&Entry{File: 3, Path: "dir/name", Kind: HardLink, Link: "dir/file", First: 1},
		&Entry{File: 4, Path: "f", Owner: &Owner{UID: 1, GID: 2, User: "a"}, Attrs: []Attr{{Name: "user.x", Value: []byte{0}}, {Name: ACLDefault, Value: []byte{1}}}},
		&ManifestEnd{Files: 2, Bytes: 3, Unsent: 4},
		&Digests{File: 1, Extents: []uint32{0, 9}, Sums: append(digest, digest...)},
		&Landed{File: 1},
		&Vouch{Files: []uint32{1, 3}, Digests: append(digest, digest...)},
		&Vouch{Files: []uint32{1}},
		&FileFailed{File: 1, Code: 7, Reason: "it was truncated"},
		&Receipt{Files: []uint32{1, 3}, Digests: append(digest, digest...)},
		&Receipt{Files: []uint32{1}},
		&Done{Files: 1, Bytes: 2, Nanoseconds: 3, Resumed: 1, Lanes: []LaneBytes{{ID: 1, Bytes: 2}}},
		&Abort{Code: 4, Reason: "the peer is gone"},
		&Ping{},
		&More{Entries: 7},
		&Grown{File: 1, Size: 1 << 40, End: true},
		&Kept{File: 1, Below: 9},
		&Hello{Version: 1, Measure: true},
		&Measure{Transport: "rdma", Op: "write", Size: 64, Depth: 16, Extents: 17, Warmup: 1, Nanoseconds: 2, Interval: 3, Count: true},
		&Measuring{Detail: "rxe_a"},
		&Measured{Code: 9, Reason: "no RDMA", Extents: 3, Nanoseconds: 4, CPU: CPU{User: 1, System: 2, Host: 3, SoftIRQ: 4}, Took: []int64{5, 9}, Times: []int64{2, 1}, Memory: Memory{1, 2, 3}, Work: &Work{1, 2, -1}},
		&Hello{Lanes: 1, DryRun: true, Encrypt: true},
		&Foreseen{File: 1, Here: 16 << 20, Done: true, Replaces: true},
		&Hello{Lanes: 1, PathsOnly: true, Limit: 1000},
		offer,
		&AskOffer{},
		&ProbePath{ID: 1, Candidate: 2, QP: qp, PKey: sixteen, Fabric: fabric},
		&PathAnswer{ID: 1, QP: &qp},
		&PathAnswer{ID: 1, Reason: "no such device"},
		&ProbesOver{Below: 3},
		&ProbesSeen{Below: 3, IDs: []uint32{1, 2}},
		&Paths{Rows: []PathRow{{Receiver: candidate, Sender: candidate, State: PathChosen, MTU: 5, Took: 7, Reason: "small packets alone"}}, Refused: refused, Reason: "none", Nanoseconds: 9},
		&Welcome{Version: 1, ExtentSize: 1 << 20, Tools: true},
		&RunTool{Tool: ToolIperf3, Size: 4096, Depth: 16, Iterations: 1000, Nanoseconds: 1e9, QPs: 2, Chain: 3, Signal: 4, Inline: 5, MTU: 5, Both: true, Events: true, UD: true},
		&ToolReady{Port: 18700, Candidate: 1, GID: [16]byte{15: 1}},
		&ToolDone{},
		&Verbs{Op: "write", Latency: true, Both: true, Size: 64, Depth: 128, QPs: 2, Chain: 16, Signal: 100, Inline: 64, Buffers: 3, Events: true, Spin: 20, MTU: 5, Nanoseconds: 1e9},
		&VerbsEnd{Candidate: 1, QPs: []QueuePair{{QPN: 1, MTU: 5}}, Addr: 1 << 40, RKey: 7, Detail: "rxe_a"},
		&VerbsReady{},
		&VerbsStop{},
		&VerbsOver{Code: 9, Reason: "no RDMA", Messages: 1, Nanoseconds: 2, Received: 3, CPU: CPU{User: 1}},
		&ToolEnded{Code: 2, Reason: "recv --allow-peers", CPU: CPU{User: 1, System: 2, Host: 3}},
		&OpenLane{ID: 3, Depth: 1, UDP: &UDPLane{Port: 1, Tag: [TagSize]byte{15: 1}}},
		&LaneAnswer{ID: 3, UDP: &UDPLane{Port: 1, Tag: [TagSize]byte{15: 1}, Payload: 1472}},
		&Measured{Datagrams: 9, Lost: 3},
		&AskHardware{},
		hardware(),
	}
}

// hardware has every field set.
func hardware() *Hardware {
	node := -1
	return &Hardware{Kernel: "7.3", CPUs: 2, Processor: "A Processor", NUMANodes: 1, RDMACore: "libibverbs.so.1.15.61.0",
		Devices: []HardwareDevice{{Name: "rxe_a", Driver: "d", Provider: "librxe-rdmav57.so", Firmware: "f", Board: "b", NUMANode: &node, PCIe: "x16", Ports: []HardwarePort{
			{Number: 1, State: "4: ACTIVE", LinkLayer: "Ethernet", Rate: "10 Gb/sec", NetDev: "v_a", NetMTU: 4200, ServiceLevel: 3, Counters: map[string]uint64{"sent_pkts": 1 << 63, "a": 0}},
		}}}}
}

func TestEveryMessageComesBackAsItWas(t *testing.T) {
	seen := make(map[Kind]bool)
	var stream bytes.Buffer
	all := append(examples(), &OpenLane{ID: 2, Depth: 1, TCP: &TCPLane{Ticket: [32]byte{31: 1}, Method: "auto"}},
		&Digests{}, &Digests{Extents: []uint32{}, Sums: []byte{}}, &Hello{Lanes: 1}, &LaneAnswer{})
	for _, m := range all {
		frame, err := Encode(m)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		stream.Write(frame)
		seen[m.kind()] = true
	}
	for _, m := range all {
		got, err := Read(&stream)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if !reflect.DeepEqual(got, m) {
			t.Errorf("%#v came back as %#v", m, got)
		}
	}
	if _, err := Read(&stream); err != io.EOF {
		t.Errorf("at the end: %v, want EOF", err)
	}
	for k := range Kind(255) {
		if m := newMessage(k); (m != nil) != seen[k] || m != nil && m.kind() != k {
			t.Errorf("kind %d: %T, seen %v", k, m, seen[k])
		}
	}
}

func TestDecodeAllowsOneFormAlone(t *testing.T) {
	landed := "0a" // kind
	welcome := "02" + "a4" + "0101" + "0250" + strings.Repeat("11", 16) + "031a00100000" + "0400"
	for _, c := range []struct{ name, frame string }{
		{"nothing", ""},
		{"kind 0", "00a0"},
		{"a kind that is not there", "15a0"},
		{"no body", landed},
		{"an unknown field", landed + "a201010218ff"},
		{"a field with a name", landed + "a161316131"},
		{"a duplicate field", landed + "a201010102"},
		{"a field left out", landed + "a0"},
		{"null", landed + "f6"},
		{"undefined", landed + "f7"},
		{"an array", landed + "8101"},
		{"indefinite length", landed + "bf0101ff"},
		{"a byte too many", landed + "a1010100"},
		{"cut short", landed + "a101"},
		{"a longer number than needed", landed + "a1011801"},
		{"a negative number", landed + "a10120"},
		{"a number of 33 bits", landed + "a1011b0000000100000000"},
		{"a fraction", landed + "a101f93c00"},
		{"a simple value", landed + "a101e1"},
		{"text for a number", landed + "a1016131"},
		{"a tag", landed + "a101c101"},
		{"a big number tag", landed + "a101c24101"},
		{"a map too deep", landed + strings.Repeat("a101", 40) + "01"},
		{"text that is not UTF-8", "05a201010261ff"},
		{"text with an escape", "05a20101021b611b"},
		{"bytes for text", "05a20101024161"},
		{"fields out of order", "05a2026161" + "0101"},
		{"too few bytes for an array", strings.Replace(welcome, "0250"+strings.Repeat("11", 16), "024111", 1)},
		{"too many bytes for an array", strings.Replace(welcome, "0250", "0251ff", 1)},
		{"numbers for bytes", strings.Replace(welcome, "0250"+strings.Repeat("11", 16), "0290"+strings.Repeat("11", 16), 1)},
	} {
		frame, err := hex.DecodeString(c.frame)
		if err != nil {
			t.Fatal(c.name, err)
		}
		if m, err := Decode(frame); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %#v, %v; want it refused", c.name, m, err)
		}
	}
	for _, good := range []string{landed + "a10101", "05a2010102616b", welcome} {
		frame, _ := hex.DecodeString(good)
		if _, err := Decode(frame); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func TestReadBoundsFrames(t *testing.T) {
	for _, c := range []struct {
		name, frame string
		want        error
	}{
		{"empty", "00000000", ErrMalformed},
		{"a byte more than a frame holds", "00100001", ErrMalformed},
		{"four gigabytes", "ffffffff", ErrMalformed},
		{"no length", "0000", io.ErrUnexpectedEOF},
		{"no body", "00000002", io.ErrUnexpectedEOF},
		{"half a body", "0000000310", io.ErrUnexpectedEOF},
		{"nothing", "", io.EOF},
	} {
		frame, _ := hex.DecodeString(c.frame)
		if _, err := Read(bytes.NewReader(frame)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

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
		{"method", &OpenLane{Depth: 1, TCP: &TCPLane{Method: "copy"}}, &OpenLane{Depth: 1, TCP: &TCPLane{Method: text(MaxText + 1)}}},
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
		if _, err := Encode(c.ok); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := Encode(c.over); err == nil {
			t.Errorf("%s: encoded beyond its bound", c.name)
		}
		body, err := encoder.Marshal(c.over)
		if err != nil {
			t.Fatal(c.name, err)
		}
		frame := append([]byte{0, 0, 0, 0, byte(c.over.kind())}, body...)
		frame[0], frame[1], frame[2], frame[3] = byte((len(body)+1)>>24), byte((len(body)+1)>>16), byte((len(body)+1)>>8), byte(len(body)+1)
		if m, err := Read(bytes.NewReader(frame)); !errors.Is(err, ErrMalformed) {
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

func TestCheckPath(t *testing.T) {
	long := strings.Repeat("n", 255)
	for _, good := range []string{"f", "a/b/c", ".hidden", "...", "..a", "a..", "with space", "ünï", "\u202e", "-rf", "~", long, long + "/" + long, `a\b`} {
		if err := CheckPath(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "/", "/etc/passwd", ".", "..", "../x", "a/../b", "a/..", "./a", "a/./b", "a//b", "a/", "a\x00b", "a\nb", "a\x1b[2J", "\x7f", "a\u0085b",
		"a\xffb", long + "n", "d/" + long + "n", strings.Repeat("a/", MaxPath/2) + "a"} {
		if err := CheckPath(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v; want it refused", bad, err)
		} else if strings.ContainsFunc(err.Error(), unicode.IsControl) || !utf8.ValidString(err.Error()) {
			t.Errorf("%q: the error shows it raw", bad)
		}
	}
}

func TestClipMakesAnyTextSendable(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"as it was", "as it was"},
		{"two\nlines", "two lines"},
		{"\x1b[2J", " [2J"},
		{"/data/\xff/f", "/data/\ufffd/f"},
		{strings.Repeat("x", MaxText), strings.Repeat("x", MaxText)},
		{strings.Repeat("x", MaxText+1), strings.Repeat("x", MaxText-3) + "..."},
		{strings.Repeat("\xff", MaxText), strings.Repeat("\ufffd", (MaxText-3)/3) + "..."},
	} {
		got := Clip(c.in)
		if got != c.want {
			t.Errorf("%.20q: %d bytes %.20q, want %.20q", c.in, len(got), got, c.want)
		}
		if _, err := Encode(&Abort{Reason: got}); err != nil {
			t.Errorf("%.20q: %v", c.in, err)
		}
	}
}

// FuzzDecode feeds frames of any kind: they are refused, or they are the one form
// of a message.
func FuzzDecode(f *testing.F) {
	for _, m := range examples() {
		frame, err := Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame[4:])
	}
	f.Add([]byte{byte(kindLanded), 0xf6})
	f.Add([]byte{byte(kindHello), 0xbf, 0xff})
	f.Fuzz(func(t *testing.T, frame []byte) {
		m, err := Decode(frame)
		if err != nil {
			return
		}
		again, err := Encode(m)
		if err != nil {
			t.Fatalf("%#v was decoded and can't be encoded: %v", m, err)
		}
		if !bytes.Equal(again[4:], frame) {
			t.Fatalf("%#v has two forms: %x and %x", m, frame, again[4:])
		}
	})
}
