//go:build rxe

package ibverbs

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Between two hosts: this same program runs on host b too, where it makes memory and
// queue pairs, and tells what arrives at them.

// otherHost is set in the environment of the program that is host b.
const otherHost = "IBVERBS_TEST_OTHER_HOST"

// offer is what host b has, arrival what came there.
type (
	offer struct {
		RC, UD Endpoint
		Addr   uint64
		RKey   uint32
	}
	arrival struct {
		ID          uint64
		Len, Imm    uint32
		WithImm, UD bool
	}
)

// Host b's memory: receives of 4 KiB for the connection, then one for datagrams,
// then what is free for reads and writes.
const (
	roomReceives = 4
	roomDatagram = roomReceives * 4096
	roomFree     = roomDatagram + 2*4096
	otherQKey    = 0x22222222
)

// serveOtherHost is host b, until its input ends.
func serveOtherHost() {
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "host b:", err)
			os.Exit(1)
		}
	}
	ctx, err := Open("rxe_b")
	must(err)
	gid, err := ctx.FindGID(1, netip.MustParseAddr("10.0.0.2"), GIDTypeRoCEv2)
	must(err)
	pd, err := ctx.AllocPD()
	must(err)
	mr, err := pd.AllocMR(bufSize, allAccess)
	must(err)
	cq, err := ctx.CreateCQ(64)
	must(err)
	conf := QPConfig{SendCQ: cq, RecvCQ: cq, MaxSend: 4, MaxRecv: 8, GIDIndex: gid.Index, QKey: otherQKey,
		Access: AccessRemoteRead | AccessRemoteWrite | AccessRemoteAtomic}
	prep, err := pd.PrepareQP(conf)
	must(err)
	ud, err := pd.OpenUD(conf)
	must(err)
	for i := range roomReceives {
		wr := RecvWR{ID: uint64(i), NumSGE: 1}
		wr.SGE[0] = mr.SGE(i*4096, 4096)
		_, err := prep.PostRecv([]RecvWR{wr})
		must(err)
	}
	wr := RecvWR{ID: 100, NumSGE: 1}
	wr.SGE[0] = mr.SGE(roomDatagram, 4096+GRHSize)
	_, err = ud.PostRecv([]RecvWR{wr})
	must(err)

	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	must(out.Encode(offer{RC: prep.Endpoint(), UD: ud.Endpoint(), Addr: mr.Addr(0), RKey: mr.RKey()}))
	var remote Endpoint
	must(in.Decode(&remote))
	qp, err := prep.Connect(remote, ConnectParams{MaxReadsServed: 4})
	must(err)
	must(out.Encode("connected"))
	ended, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	wcs := make([]WC, 8)
	for {
		n, err := cq.WaitPoll(ended, wcs)
		if ended.Err() != nil {
			break
		}
		must(err)
		for i := range wcs[:n] {
			must(wcs[i].Err())
			must(out.Encode(arrival{wcs[i].ID, wcs[i].ByteLen, wcs[i].Imm(), wcs[i].Flags&WCHasImm != 0, wcs[i].QPN == ud.Number()}))
		}
	}
	for _, c := range []interface{ Close() error }{qp, ud, cq, mr, pd, ctx} {
		must(c.Close())
	}
}

func TestTwoHosts(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b := exec.CommandContext(bctx, "../testbed/softroce", "exec", "b", "--", "env", otherHost+"=1", self)
	b.Stderr = os.Stderr
	stdin, _ := b.StdinPipe()
	stdout, _ := b.StdoutPipe()
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		if err := b.Wait(); err != nil {
			t.Errorf("host b: %v", err)
		}
	}()
	from, to := json.NewDecoder(stdout), json.NewEncoder(stdin)
	hear := func(v any) {
		t.Helper()
		if err := from.Decode(v); err != nil {
			t.Fatalf("host b says nothing: %v", err)
		}
	}
	var there offer
	hear(&there)

	ctx, gid := openTest(t)
	a := newSide(t, ctx, 0)
	prep, err := a.pd.PrepareQP(QPConfig{SendCQ: a.cq, RecvCQ: a.cq, MaxSend: 8, MaxRecv: 1, GIDIndex: gid.Index})
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Encode(prep.Endpoint()); err != nil {
		t.Fatal(err)
	}
	var word string
	hear(&word) // it is in RTS: only now may something be sent
	if a.qp, err = prep.Connect(there.RC, ConnectParams{MaxReads: 4}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, a.qp) })

	remote := func(op Opcode, off, n, peerOff int) SendWR {
		wr := a.wr(op, off, n, nil, 0)
		wr.RemoteAddr, wr.RKey = there.Addr+uint64(peerOff), there.RKey
		return wr
	}
	arrived := func(want arrival) {
		t.Helper()
		var got arrival
		if hear(&got); got != want {
			t.Errorf("host b got %+v, want %+v", got, want)
		}
	}
	// readBack is what host b's memory holds, by the one verb that asks.
	readBack := func(off, n int) string {
		t.Helper()
		clear(a.bytes(32768, n))
		a.send(t, remote(OpRead, 32768, n, off))
		a.ok(t)
		return string(a.bytes(32768, n))
	}
	copy(a.bytes(0, 12), "over the net")

	a.send(t, a.wr(OpSend, 0, 12, nil, 0))
	a.ok(t)
	arrived(arrival{ID: 0, Len: 12})
	wr := a.wr(OpSendWithImm, 0, 8, nil, 0)
	wr.Imm = 77
	a.send(t, wr)
	a.ok(t)
	arrived(arrival{ID: 1, Len: 8, Imm: 77, WithImm: true})
	if got := readBack(0, 12) + readBack(4096, 8); got != "over the netover the" {
		t.Errorf("sent, then read back: %q", got)
	}
	a.send(t, remote(OpWrite, 5, 7, roomFree))
	a.ok(t)
	wr = remote(OpWriteWithImm, 0, 4, roomFree+7)
	wr.Imm = 78
	a.send(t, wr)
	a.ok(t)
	arrived(arrival{ID: 2, Len: 4, Imm: 78, WithImm: true})
	if got := readBack(roomFree, 11); got != "the netover" {
		t.Errorf("written, then read back: %q", got)
	}
	binary.NativeEndian.PutUint64(a.bytes(64, 8), 10)
	a.send(t, remote(OpWrite, 64, 8, roomFree+64))
	a.ok(t)
	wr = remote(OpFetchAdd, 128, 8, roomFree+64)
	wr.CompareAdd = 5
	a.send(t, wr)
	a.ok(t)
	wr = remote(OpCompareSwap, 136, 8, roomFree+64)
	wr.CompareAdd, wr.Swap = 15, 99
	a.send(t, wr)
	a.ok(t)
	fetched := [2]uint64{binary.NativeEndian.Uint64(a.bytes(128, 8)), binary.NativeEndian.Uint64(a.bytes(136, 8))}
	if left := binary.NativeEndian.Uint64([]byte(readBack(roomFree+64, 8))); fetched != [2]uint64{10, 15} || left != 99 {
		t.Errorf("atomics fetched %v and left %d", fetched, left)
	}

	udqp, err := a.pd.OpenUD(QPConfig{SendCQ: a.cq, RecvCQ: a.cq, MaxSend: 4, MaxRecv: 1, GIDIndex: gid.Index, QKey: otherQKey})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, udqp) })
	ah, err := a.pd.CreateAH(1, gid.Index, there.UD, Path{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, ah) })
	wr = a.wr(OpSend, 0, 4, nil, 0)
	wr.Flags, wr.AH, wr.RemoteQPN, wr.RemoteQKey = SendSignaled, ah.Ref(), there.UD.QPN, otherQKey
	if _, err := udqp.PostSend([]SendWR{wr}); err != nil {
		t.Fatal(err)
	}
	a.ok(t)
	arrived(arrival{ID: 100, Len: 4 + GRHSize, UD: true})
	if got := readBack(roomDatagram+GRHSize, 4); got != "over" {
		t.Errorf("a datagram, read back: %q", got)
	}
}
