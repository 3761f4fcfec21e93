package wire

import (
	"bufio"
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
		&ToolReady{Port: 18700, Candidate: 1, GID: [16]byte{15: 1}, Fabric: &fabric},
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
	all := append(examples(), &OpenLane{ID: 2, Depth: 1, TCP: &TCPLane{Ticket: [32]byte{31: 1}, Kernel: "f00d"}},
		&Digests{}, &Digests{Extents: []uint32{}, Sums: []byte{}}, &Hello{Lanes: 1}, &LaneAnswer{})
	for _, m := range all {
		frame, err := Append(nil, m)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		stream.Write(frame)
		seen[m.kind()] = true
	}
	const times = 8
	for _, room := range []int{16, 200, stream.Len()} { // those that fit are decoded where they are
		r := bufio.NewReaderSize(bytes.NewReader(bytes.Repeat(stream.Bytes(), times)), room)
		var got []Message
		for range times * len(all) {
			one, err := Read(r)
			if err != nil {
				t.Fatalf("after %d: %v", len(got), err)
			}
			got = append(got, one)
		}
		if _, err := Read(r); err != io.EOF {
			t.Errorf("at the end: %v, want EOF", err)
		}
		// By now there is something else where they were.
		for i, m := range got {
			if want := all[i%len(all)]; !reflect.DeepEqual(m, want) {
				t.Errorf("%#v came back as %#v", want, m)
			}
		}
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
		if _, err := Read(bufio.NewReader(bytes.NewReader(frame))); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
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
		if _, err := Append(nil, &Abort{Reason: got}); err != nil {
			t.Errorf("%.20q: %v", c.in, err)
		}
	}
}

// FuzzDecode feeds frames of any kind: they are refused, or they are the one form
// of a message.
func FuzzDecode(f *testing.F) {
	for _, m := range examples() {
		frame, err := Append(nil, m)
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
		again, err := Append(nil, m)
		if err != nil {
			t.Fatalf("%#v was decoded and can't be encoded: %v", m, err)
		}
		if !bytes.Equal(again[4:], frame) {
			t.Fatalf("%#v has two forms: %x and %x", m, frame, again[4:])
		}
	})
}
