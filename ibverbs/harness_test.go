//go:build rxe

package ibverbs

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests run on host a of the testbed's pair:
//
//	testbed/vm --pair -- testbed/softroce exec a -- ibverbs.test
//
// Two queue pairs of rxe_a are connected to each other.

const (
	testDevice = "rxe_a"
	testAddr   = "10.0.0.1"
	bufSize    = 64 << 10
)

// side is one end of a connection with all that it takes.
type side struct {
	pd *PD
	mr *MR
	cq *CQ
	qp *QP
}

func openTest(t *testing.T) (*Context, GIDEntry) {
	t.Helper()
	ctx, err := Open(testDevice)
	if err != nil {
		t.Fatalf("this test needs the testbed's pair: %v", err)
	}
	t.Cleanup(func() { closed(t, ctx) })
	gid, err := findTestGID(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return ctx, gid
}

func findTestGID(ctx *Context) (GIDEntry, error) {
	return ctx.FindGID(1, netip.MustParseAddr(testAddr), GIDTypeRoCEv2)
}

func closed(t *testing.T, c interface{ Close() error }) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("%T: %v", c, err)
	}
}

const allAccess = AccessLocalWrite | AccessRemoteRead | AccessRemoteWrite | AccessRemoteAtomic

// connected makes two connected sides of reliable queue pairs.
func connected(t *testing.T) [2]*side { return connectedAs(t, QPConfig{}, 0) }

// connectedAs makes two connected sides. What conf leaves out is filled in; more is
// what the regions permit besides the usual.
func connectedAs(t *testing.T, conf QPConfig, more Access) [2]*side {
	t.Helper()
	ctx, gid := openTest(t)
	a, b := newSide(t, ctx, more), newSide(t, ctx, more)
	conf.GIDIndex = gid.Index
	conf.MaxSendSGE, conf.MaxRecvSGE = 2, 2
	a.qp, b.qp = connectPair(t, a, b, conf, conf)
	return [2]*side{a, b}
}

// newSide makes all but the queue pair.
func newSide(t *testing.T, ctx *Context, more Access) *side {
	t.Helper()
	s := &side{}
	var err error
	if s.pd, err = ctx.AllocPD(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, s.pd) })
	if s.mr, err = s.pd.AllocMR(bufSize, allAccess|more); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.mr != nil {
			closed(t, s.mr)
		}
	})
	if s.cq, err = ctx.CreateCQ(64); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, s.cq) })
	return s
}

// connectPair connects two queue pairs of one device to each other. They are closed
// when the test ends, unless it has done so.
func connectPair(t *testing.T, a, b *side, aconf, bconf QPConfig) (*QP, *QP) {
	t.Helper()
	for _, c := range []*QPConfig{&aconf, &bconf} {
		c.MaxSend, c.MaxRecv = 16, 16
		c.Access = AccessRemoteRead | AccessRemoteWrite | AccessRemoteAtomic | AccessBindMW
	}
	aconf.SendCQ, aconf.RecvCQ = a.cq, a.cq
	bconf.SendCQ, bconf.RecvCQ = b.cq, b.cq
	x, y := connect(t, a.pd, b.pd, aconf, bconf, ConnectParams{Timeout: 10, Retries: 2, RNRRetries: 1})
	for _, qp := range []*QP{x, y} {
		t.Cleanup(func() {
			if qp.h != nil {
				closed(t, qp)
			}
		})
	}
	return x, y
}

// connect makes two queue pairs and connects them; they are the caller's to close.
func connect(t *testing.T, apd, bpd *PD, aconf, bconf QPConfig, params ConnectParams) (x, y *QP) {
	t.Helper()
	p, err := apd.PrepareQP(aconf)
	if err != nil {
		t.Fatal(err)
	}
	q, err := bpd.PrepareQP(bconf)
	if err != nil {
		t.Fatal(err)
	}
	pe, qe := p.Endpoint(), q.Endpoint()
	if x, err = p.Connect(qe, params); err != nil {
		t.Fatal(err)
	}
	if y, err = q.Connect(pe, params); err != nil {
		t.Fatal(err)
	}
	return x, y
}

func (s *side) send(t *testing.T, wr SendWR) {
	t.Helper()
	wr.Flags |= SendSignaled
	if n, err := s.qp.PostSend([]SendWR{wr}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
}

func (s *side) recv(t *testing.T, id uint64, off, n int) {
	t.Helper()
	wr := RecvWR{ID: id, NumSGE: 1}
	wr.SGE[0] = s.mr.SGE(off, n)
	if n, err := s.qp.PostRecv([]RecvWR{wr}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
}

// complete waits for one completion.
func (s *side) complete(t *testing.T) WC {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	wcs := make([]WC, 1)
	n, err := s.cq.WaitPoll(ctx, wcs)
	if n != 1 || err != nil {
		t.Fatalf("%d completions, %v", n, err)
	}
	return wcs[0]
}

func (s *side) wr(op Opcode, off, n int, peer *side, peerOff int) SendWR {
	wr := SendWR{ID: 42, Opcode: op, NumSGE: 1}
	wr.SGE[0] = s.mr.SGE(off, n)
	if peer != nil {
		wr.RemoteAddr = peer.mr.Addr(peerOff)
		wr.RKey = peer.mr.RKey()
	}
	return wr
}

// ok waits for one completion and fails the test unless it is a success.
func (s *side) ok(t *testing.T) WC {
	t.Helper()
	wc := s.complete(t)
	if wc.Err() != nil {
		t.Fatalf("%v", wc.Err())
	}
	return wc
}

// TestMain is also the other host: see TestTwoHosts. It fails when a test left an object of the library open.
func TestMain(m *testing.M) {
	if os.Getenv(otherHost) != "" {
		serveOtherHost()
		return
	}
	code := m.Run()
	if left := Live(); len(left) > 0 {
		fmt.Println("FAIL: left open:", left)
		code = 1
	}
	os.Exit(code)
}

// kernel is the running kernel's version, 7.3 as 703. What a kernel has is probed;
// tests use this to know what a probe must have found.
func kernel() int {
	var u unix.Utsname
	var major, minor int
	if err := unix.Uname(&u); err != nil {
		panic(err)
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		panic(err)
	}
	return 100*major + minor
}

// run runs a program that must succeed.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}
