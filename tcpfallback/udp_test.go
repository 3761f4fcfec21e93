package tcpfallback

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

func udpLoad(size, depth, most int) transfer.Load {
	l := load(size, depth)
	l.Transport, l.Serve = transfer.TransportUDP, Datagrams{Most: most}
	return l
}

func TestDatagramsAreMeasured(t *testing.T) {
	h := newHosts(t)
	m, _, errs := h.meter(t.Context())
	for _, most := range []int{0, 1472, wire.MinDatagram} {
		for _, size := range []int{1, 3000, 1 << 16, 1 << 20} {
			for _, depth := range []int{1, 16} {
				r, err := m.Measure(t.Context(), udpLoad(size, depth, most))
				if err != nil {
					t.Fatalf("%d in flight of %d bytes in datagrams of %d: %v", depth, size, most, err)
				}
				each := max(most, wire.MinDatagram)
				if most == 0 {
					each = wire.MaxDatagram // over loopback
				}
				each -= wire.DatagramHeaderSize
				least := r.Extents * int64((size+each-1)/each)
				if r.Extents < 1 || r.Bytes != r.Extents*int64(size) || r.Datagrams < least-int64(depth*(size/each+1)) || r.Lost > r.Datagrams || !strings.HasPrefix(r.Remote, "datagram=") {
					t.Errorf("%d in flight of %d bytes in datagrams of %d: %+v; want %d of them", depth, size, most, r, least)
				}
			}
		}
	}
	l := udpLoad(1000, 16, 0)
	l.Interval = time.Millisecond
	if r, err := m.Measure(t.Context(), l); err != nil || r.Latency.TotalCount() < 10 {
		t.Errorf("an open loop: %+v, %v", r, err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := <-errs; err != nil {
		t.Errorf("the receiver: %v", err)
	}
}

// lossy loses datagrams that the sender's end sends: a fault, made on purpose.
type lossy struct {
	Datagrams
	lose func(n int) bool // the nth, with the trial's
}

func (l lossy) Answer(ctx context.Context, p transfer.LaneParams, open *wire.OpenLane, answer *wire.LaneAnswer) (transfer.Server, error) {
	made, err := l.Datagrams.Answer(ctx, p, open, answer)
	if err != nil {
		return nil, err
	}
	d := made.(*datagramServer)
	d.segment = false // so that each is one
	d.s.batch = &losing{batcher: d.s.batch, lose: l.lose}
	return d, nil
}

type losing struct {
	batcher
	lose func(int) bool
	n    int
}

func (l *losing) WriteBatch(ms []ipv4.Message, flags int) (int, error) {
	for i := range ms {
		l.n++
		if l.lose(l.n) {
			continue
		}
		if _, err := l.batcher.WriteBatch(ms[i:i+1], flags); err != nil {
			return i, err
		}
	}
	return len(ms), nil
}

// What is lost is counted, asked for again, and shows in the round trips; what nothing comes
// of has an end. The session goes on.
func TestLostDatagrams(t *testing.T) {
	h := newHosts(t)
	m, _, errs := h.meter(t.Context())
	run := func(depth int, lose func(int) bool) (*transfer.Measurement, error) {
		l := udpLoad(40000, depth, 1472)
		l.Serve = lossy{Datagrams{Most: 1472}, lose}
		l.Warmup, l.Duration = 0, 300*time.Millisecond
		return m.Measure(t.Context(), l)
	}
	// The first is the trial's answer, those up to the 29th the first extent's, which begins
	// the measurement.
	r, err := run(1, func(n int) bool { return n == 60 || n == 61 })
	if err != nil || r.Lost != 2 || time.Duration(r.Latency.Max()) < late {
		t.Errorf("two of one extent: %+v, %v", r, err)
	}
	r, err = run(16, func(n int) bool { return n%100 == 0 })
	if err != nil || r.Lost < 2 || r.Lost*50 > r.Datagrams || time.Duration(r.Latency.ValueAtQuantile(50)) > late/2 {
		t.Errorf("one in a hundred: %+v, %v", r, err)
	}
	if r, err = run(4, func(n int) bool { return n > 60 }); err == nil || !strings.Contains(err.Error(), "is UDP filtered") || transfer.CodeOf(err) != transfer.CodeConnect {
		t.Errorf("nothing more: %+v, %v", r, err)
	}
	if r, err = run(4, func(n int) bool { return true }); err == nil || !strings.Contains(err.Error(), "no datagram of 1472 bytes comes") {
		t.Errorf("nothing at all: %+v, %v", r, err)
	}
	if r, err = run(4, func(n int) bool { return false }); err != nil || r.Lost != 0 {
		t.Errorf("all: %+v, %v", r, err)
	}
	m.Close()
	if err := <-errs; err != nil {
		t.Errorf("the receiver: %v", err)
	}
}

// Only a measurement has lanes of datagrams: a transfer's sender refuses one.
func TestTransfersHaveNoDatagrams(t *testing.T) {
	h := newHosts(t)
	path, _ := file(t, 1000)
	h.push, h.pull = Transport{Method: "copy"}, Datagrams{}
	sent, received := h.send(h.l.Addr().String(), "copy", transfer.VerifyNone, path)
	if sent == nil || received == nil || !strings.Contains(received.Error(), "not in use") {
		t.Errorf("the sender: %v; the receiver: %v", sent, received)
	}
}

// ends are a sender's end that serves, and a receiver's socket that a test plays.
func ends(t *testing.T, here string, src *transfer.Source) (*datagrams, *wire.UDPLane) {
	t.Helper()
	at := netip.MustParseAddr(here)
	s, err := openDatagrams(at)
	if err != nil {
		t.Fatal(err)
	}
	var answer wire.LaneAnswer
	server, err := Datagrams{Most: 1472}.Answer(t.Context(), transfer.LaneParams{Here: at, There: at}, &wire.OpenLane{UDP: &wire.UDPLane{Port: s.port(), Tag: s.tag}}, &answer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.connect(netip.AddrPortFrom(at, answer.UDP.Port)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, src) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil && err != context.Canceled {
			t.Errorf("the sender's end: %v", err)
		}
		server.Close()
		s.conn.Close()
	})
	s.conn.SetDeadline(time.Now().Add(time.Minute))
	return s, answer.UDP
}

// An extent comes in as many datagrams as it takes, over both protocols; what is no ask, or
// not the other end's, has no answer.
func TestDatagramsAnswerTheOtherEndAlone(t *testing.T) {
	for _, here := range []string{"127.0.0.1", "::1"} {
		path, content := file(t, 5000)
		s, theirs := ends(t, here, open(t, path))
		ask := func(tag [wire.TagSize]byte, a wire.Ask) {
			t.Helper()
			b := make([]byte, wire.AskSize)
			a.Put(b, &tag)
			if _, err := s.conn.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		ask([wire.TagSize]byte{}, wire.Ask{Request: wire.Request{ID: 1, Length: 5000}, Bytes: 5000})
		ask(s.tag, wire.Ask{Request: wire.Request{ID: 2, Length: 5000}, Bytes: 5000})
		if _, err := s.conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		stranger, err := net.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr(here), theirs.Port).String())
		if err != nil {
			t.Fatal(err)
		}
		defer stranger.Close()
		b := make([]byte, wire.AskSize)
		(&wire.Ask{Request: wire.Request{ID: 3, Length: 5000}, Bytes: 5000}).Put(b, &theirs.Tag)
		if _, err := stranger.Write(b); err != nil {
			t.Fatal(err)
		}
		ask(theirs.Tag, wire.Ask{Request: wire.Request{ID: 4, Length: 5000}, From: 1000, Bytes: 3000})
		ask(theirs.Tag, wire.Ask{Request: wire.Request{ID: 5}}) // a trial, after all others
		got := make([]byte, 3000)
		buf := make([]byte, 1<<16)
		for count := 0; ; count++ {
			n, err := s.conn.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			d, payload, err := wire.ParseDatagram(buf[:n], &s.tag)
			if err != nil {
				t.Fatal(err)
			}
			if d.ID == 5 {
				if n != 1472 || count != 3 {
					t.Errorf("%s: a trial of %d bytes after %d datagrams", here, n, count)
				}
				break
			}
			if d.ID != 4 || d.Index > 2 {
				t.Fatalf("%s: an answer to what nobody may ask: %+v", here, d)
			}
			copy(got[int(d.Index)*(1472-wire.DatagramHeaderSize):], payload)
		}
		if !bytes.Equal(got, content[1000:4000]) {
			t.Errorf("%s: other bytes than the file's", here)
		}
	}
}

// kept is a feed that keeps what lands.
type kept struct {
	next []transfer.Extent
	got  map[int64][]byte
}

func (f *kept) Next(context.Context) (transfer.Extent, error) {
	if e, ok := f.TryNext(); ok {
		return e, nil
	}
	return transfer.Extent{}, io.EOF
}

func (f *kept) TryNext() (e transfer.Extent, ok bool) {
	if len(f.next) == 0 {
		return e, false
	}
	e, f.next = f.next[0], f.next[1:]
	return e, true
}

func (f *kept) Land(e transfer.Extent, b []byte) error {
	f.got[e.Off] = append(f.got[e.Off], b...)
	return nil
}

func (f *kept) Refuse(transfer.Extent) {}

// Whatever comes, in whatever order, once or twice, and from whomever: an extent has its own
// bytes, and lands once.
func TestDatagramsInAnyOrder(t *testing.T) {
	s, err := openDatagrams(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.conn.Close()
	const size = 120000 // two asks, of 64 datagrams at the most
	d := newDatagramPuller(s, [wire.TagSize]byte{}, 1472, transfer.LaneParams{Depth: 2, ExtentSize: size})
	d.window = 1 << 20
	if _, err := s.connect(netip.MustParseAddrPort(s.conn.LocalAddr().String())); err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("0123456789abcdef"), 2*size/16)
	f := &kept{[]transfer.Extent{{Off: 0, Len: size}, {Off: size, Len: size}}, make(map[int64][]byte)}
	if err := d.ask(t.Context(), f); err != nil || len(d.flying) != 4 {
		t.Fatalf("%d asks, %v", len(d.flying), err)
	}
	asks := append([]ask(nil), d.flying...)
	datagram := func(id uint32, index int, tag [wire.TagSize]byte) []byte {
		a := asks[id-1]
		from := min(index*d.each(), a.bytes)
		part := content[int(a.of.e.Off)+a.from+from:][:min(d.each(), a.bytes-from)]
		b := append(make([]byte, wire.DatagramHeaderSize), part...)
		wire.Datagram{ID: id, Index: uint32(index)}.Put(b, &tag)
		return b
	}
	take := func(b []byte) {
		t.Helper()
		if err := d.take(b, f); err != nil {
			t.Fatal(err)
		}
	}
	for id := uint32(4); id > 0; id-- {
		count := d.count(asks[id-1].bytes)
		over := datagram(id, 0, s.tag)
		wire.Datagram{ID: id + 100, Index: 0}.Put(over, &s.tag)
		take(over)
		wire.Datagram{ID: id, Index: uint32(count)}.Put(over, &s.tag)
		take(over)
		take(over[:wire.DatagramHeaderSize]) // nothing, behind the last
		for index := count - 1; index >= 0; index-- {
			forged := datagram(id, index, [wire.TagSize]byte{1})
			clear(forged[wire.DatagramHeaderSize:])
			take(forged)
			good := datagram(id, index, s.tag)
			take(good[:len(good)-1]) // too short
			take(append(bytes.Clone(good), 0))
			take(good)
			take(good)
		}
	}
	for _, off := range []int64{0, size} {
		if !bytes.Equal(f.got[off], content[off:off+size]) {
			t.Errorf("at %d: %d bytes landed, or others than there are", off, len(f.got[off]))
		}
	}
	if d.due != 0 || len(d.flying) != 0 || len(d.spare) != 2 {
		t.Errorf("%d bytes due, %d asks, %d spare", d.due, len(d.flying), len(d.spare))
	}
}

// A socket is asked for no more than it has room for.
func TestDatagramsFitTheirRoom(t *testing.T) {
	s, err := openDatagrams(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.conn.Close()
	if _, err := s.connect(netip.MustParseAddrPort(s.conn.LocalAddr().String())); err != nil {
		t.Fatal(err)
	}
	s.room = 1 << 20
	d := newDatagramPuller(s, [wire.TagSize]byte{}, 1472, transfer.LaneParams{Depth: 16, ExtentSize: 1 << 20})
	f := &kept{got: make(map[int64][]byte)}
	for i := range 16 {
		f.next = append(f.next, transfer.Extent{Off: int64(i) << 20, Len: 1 << 20})
	}
	if err := d.ask(t.Context(), f); err != nil || d.due > s.room || d.due < s.room/2 {
		t.Errorf("%d bytes asked for, of %d, %v", d.due, s.room, err)
	}
}

// between gives a receiver's end that has asked for one extent of 3000 bytes, in one ask, and the
// sender's socket, which a test plays.
func between(t *testing.T) (*datagramPuller, *kept, *datagrams) {
	t.Helper()
	here := netip.MustParseAddr("127.0.0.1")
	var s [2]*datagrams
	for i := range s {
		var err error
		if s[i], err = openDatagrams(here); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s[i].conn.Close() })
	}
	for i := range s {
		if _, err := s[i].connect(netip.AddrPortFrom(here, s[1-i].port())); err != nil {
			t.Fatal(err)
		}
	}
	d := newDatagramPuller(s[0], s[1].tag, 1472, transfer.LaneParams{Depth: 1, ExtentSize: 3000})
	f := &kept{[]transfer.Extent{{Len: 3000}}, make(map[int64][]byte)}
	if err := d.ask(t.Context(), f); err != nil || len(d.flying) != 1 {
		t.Fatalf("%d asks, %v", len(d.flying), err)
	}
	return d, f, s[1]
}

// What came while others had the processor has not been lost.
func TestDatagramsThatWaitAreTaken(t *testing.T) {
	for tries := 0; ; tries++ { // they may have it again, for longer than a glance
		d, f, there := between(t)
		for from := 0; from < 3000; from += d.each() {
			b := make([]byte, wire.DatagramHeaderSize+min(d.each(), 3000-from))
			wire.Datagram{ID: d.oldest, Index: uint32(from / d.each())}.Put(b, &d.s.tag)
			if _, err := there.conn.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		d.flying[0].at = time.Now().Add(-deaf)
		for len(d.flying) > 0 && d.lost == 0 {
			if err := d.hear(t.Context(), f); err != nil {
				t.Fatal(err)
			}
		}
		if len(f.got[0]) == 3000 {
			return
		}
		if tries == 10 {
			t.Fatalf("%d datagrams count as lost", d.lost)
		}
	}
}

// Silence is a matter of time, however often the socket is looked at meanwhile.
func TestSilenceOfDatagramsIsTime(t *testing.T) {
	d, f, _ := between(t)
	for range 10 {
		d.flying[0].at = time.Now().Add(-late)
		if err := d.hear(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	d.flying[0].at, d.heard = time.Now().Add(-late), time.Now().Add(-deaf)
	if err := d.hear(t.Context(), f); err == nil || !strings.Contains(err.Error(), "no datagram has come") {
		t.Errorf("%v", err)
	}
}
