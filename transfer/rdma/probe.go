package rdma

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// A probe is a queue pair that lives as long as it takes to send a few messages from
// the receiver to the sender, each a packet: of 256 bytes, then of every MTU up to the
// port's. The sender's program has nothing to do but to post receives: its device
// acknowledges. So an acknowledgement proves both directions, and the largest message
// that got one is the MTU of the path, whatever the ports believe.

// probeTimeout is the acknowledgement time-out of a probe's queue pair, 134 ms: with the
// retries about as long as anybody waits, so that a host that was only busy is not taken
// for one that is out of reach; and short enough for cards, which may take four times as
// long, to send again before that.
const probeTimeout = 15

// probeMTUs are the sizes of a probe's messages, as codes.
var probeMTUs = []ibverbs.MTU{1, 2, 3, 4, 5}

// probeBytes is the largest of them.
var probeBytes = probeMTUs[len(probeMTUs)-1].Bytes()

// bench is what the probes over one device share.
type bench struct {
	users int // benches' lock is for this one

	mu  sync.Mutex // of opening: one device that hangs holds up no other
	ctx *ibverbs.Context
	pd  *ibverbs.PD
	mr  *ibverbs.MR // every message comes out of it, or lands in it: nobody looks
}

// benches has a device open while there are probes over it.
type benches struct {
	mu   sync.Mutex
	open map[string]*bench
}

func (b *benches) get(device string) (*bench, error) {
	b.mu.Lock()
	n := b.open[device]
	if n == nil {
		n = new(bench)
		if b.open == nil {
			b.open = make(map[string]*bench)
		}
		b.open[device] = n
	}
	n.users++
	b.mu.Unlock()

	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mr != nil {
		return n, nil
	}
	if err := n.make(device); err != nil {
		return nil, errors.Join(err, n.close(), b.put(device, nil))
	}
	return n, nil
}

// put gives back what get gave; nil for what it could not.
func (b *benches) put(device string, n *bench) error {
	b.mu.Lock()
	last := b.open[device]
	if last.users--; last.users > 0 {
		b.mu.Unlock()
		return nil
	}
	delete(b.open, device)
	b.mu.Unlock()
	if n == nil {
		return nil
	}
	return n.close()
}

func (n *bench) make(device string) (err error) {
	if n.ctx, err = ibverbs.Open(device); err != nil {
		return err
	}
	if n.pd, err = n.ctx.AllocPD(); err != nil {
		return err
	}
	n.mr, err = n.pd.AllocMR(probeBytes, ibverbs.AccessLocalWrite)
	return err
}

func (n *bench) close() error {
	var errs []error
	if n.mr != nil {
		errs = append(errs, n.mr.Close())
	}
	if n.pd != nil {
		errs = append(errs, n.pd.Close())
	}
	if n.ctx != nil {
		errs = append(errs, n.ctx.Close())
	}
	n.mr, n.pd, n.ctx = nil, nil, nil
	return errors.Join(errs...)
}

// probeEnd is one host's end of a probe.
type probeEnd struct {
	all   *benches
	bench *bench
	cand  *wire.Candidate
	cq    *ibverbs.CQ
	prep  *ibverbs.PreparedQP
	qp    *ibverbs.QP
}

// newEnd makes one that can send, or receive, every message.
func (b *benches) newEnd(c *wire.Candidate, pkey uint16) (*probeEnd, error) {
	n, err := b.get(c.Device)
	if err != nil {
		return nil, err
	}
	e := &probeEnd{all: b, bench: n, cand: c}
	if e.cq, err = n.ctx.CreateCQ(2 * len(probeMTUs)); err != nil {
		return nil, errors.Join(err, e.close())
	}
	conf := ibverbs.QPConfig{SendCQ: e.cq, RecvCQ: e.cq, MaxSend: len(probeMTUs), MaxRecv: len(probeMTUs), Port: int(c.Port), GIDIndex: int(c.GIDIndex)}
	if conf.PKeyIndex, err = pkeyIndex(n.ctx, c, pkey); err == nil {
		e.prep, err = n.pd.PrepareQP(conf)
	}
	if err == nil {
		err = stillThere(e.prep, c)
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// stillThere compares what a queue pair was made of with what the candidate was: GID
// indices shift as addresses come and go.
func stillThere(prep *ibverbs.PreparedQP, c *wire.Candidate) error {
	if e := prep.Endpoint(); e.GID != ibverbs.GID(c.GID) {
		return fmt.Errorf("%s port %d has %v at GID index %d now, and not %v any more: has the address been removed?", c.Device, c.Port, e.GID.Addr(), c.GIDIndex, addrOf(c))
	}
	return nil
}

// pkeyIndex finds a partition key in a port's table; 0, the first, for 0.
func pkeyIndex(ctx *ibverbs.Context, c *wire.Candidate, pkey uint16) (int, error) {
	if pkey == 0 {
		return 0, nil
	}
	keys, err := ctx.PKeys(int(c.Port))
	if err != nil {
		return 0, err
	}
	for i, k := range keys {
		if k == pkey {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%s port %d is not in the partition %#x (--pkey)", c.Device, c.Port, pkey)
}

// wake has the kernel look for a neighbour now, by a datagram to the port that discards
// (RFC 863). Connecting a queue pair looks too, but looks again only after some hundred
// milliseconds. What becomes of it is of no consequence.
func wake(c *wire.Candidate, remote netip.Addr) {
	if !c.Ethernet {
		return
	}
	local := addrOf(c)
	if local.IsLinkLocalUnicast() {
		local, remote = local.WithZone(c.Netdev), remote.WithZone(c.Netdev)
	}
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)), Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { _ = unix.BindToDevice(int(fd), c.Netdev) })
	}}
	conn, err := d.Dial("udp", netip.AddrPortFrom(remote, 9).String())
	if err != nil {
		return
	}
	_, _ = conn.Write([]byte{0})
	conn.Close()
}

// receive posts the receives. They all land in one place.
func (e *probeEnd) receive() error {
	wrs := make([]ibverbs.RecvWR, len(probeMTUs))
	for i := range wrs {
		wrs[i].NumSGE = 1
		wrs[i].SGE[0] = e.bench.mr.SGE(0, probeBytes)
	}
	_, err := e.prep.PostRecv(wrs)
	return err
}

// endpoint is what the other end must know, with an MTU that is no larger than that.
func (e *probeEnd) endpoint(f *Fabric) wire.QueuePair { return queuePair(e.prep.Endpoint(), f) }

func queuePair(e ibverbs.Endpoint, f *Fabric) wire.QueuePair {
	return wire.QueuePair{QPN: e.QPN, PSN: e.PSN, GID: e.GID, LID: e.LID, MTU: uint8(f.lower(e.MTU)), GRH: e.NeedsGRH}
}

// endpointOf is a queue pair that the peer told of.
func endpointOf(q *wire.QueuePair) ibverbs.Endpoint {
	return ibverbs.Endpoint{QPN: q.QPN, PSN: q.PSN, GID: q.GID, LID: q.LID, MTU: ibverbs.MTU(q.MTU), NeedsGRH: q.GRH}
}

// connect brings the end up.
func (e *probeEnd) connect(remote *wire.QueuePair, f *Fabric) (err error) {
	prep := e.prep
	e.prep = nil
	e.qp, err = connectQP(prep, e.cand, remote, f, ibverbs.ConnectParams{Timeout: probeTimeout})
	return err
}

// connectQP brings a queue pair up as the fabric wants it. more has what is not the
// fabric's: outstanding READs, the time for a receiver that is not ready, another time-out.
func connectQP(prep *ibverbs.PreparedQP, c *wire.Candidate, remote *wire.QueuePair, f *Fabric, more ibverbs.ConnectParams) (*ibverbs.QP, error) {
	local := prep.Endpoint()
	p := f.params(c, local.QPN, sysRoot)
	p.MaxReads, p.MaxReadsServed, p.MinRNRTimer = more.MaxReads, more.MaxReadsServed, more.MinRNRTimer
	if more.Timeout != 0 {
		p.Timeout = more.Timeout
	}
	p.MTU = f.lower(min(local.MTU, ibverbs.MTU(remote.MTU)))
	return prep.Connect(endpointOf(remote), p)
}

// run sends the messages and waits for their acknowledgements, or for ctx. It gives the
// largest MTU that passed, 0 for nothing, how long the first took, for how long there was
// none any more, and why.
func (e *probeEnd) run(ctx context.Context) (passed ibverbs.MTU, took, silent time.Duration, err error) {
	var wrs []ibverbs.SendWR
	for _, m := range probeMTUs {
		if m > e.qp.MTU() {
			break
		}
		wr := ibverbs.SendWR{ID: uint64(m), Opcode: ibverbs.OpSend, Flags: ibverbs.SendSignaled, NumSGE: 1}
		wr.SGE[0] = e.bench.mr.SGE(0, m.Bytes())
		wrs = append(wrs, wr)
	}
	began := time.Now()
	if _, err := e.qp.PostSend(wrs); err != nil {
		return 0, 0, 0, err
	}
	last := began
	wcs := make([]ibverbs.WC, len(wrs))
	for left := len(wrs); left > 0; {
		n, err := e.cq.WaitPoll(ctx, wcs)
		if err != nil {
			return passed, took, time.Since(last), err
		}
		for i := range wcs[:n] {
			if wcs[i].Status != ibverbs.WCSuccess {
				return passed, took, time.Since(last), wcs[i].Err()
			}
			last = time.Now()
			if passed == 0 {
				took = last.Sub(began)
			}
			passed = ibverbs.MTU(wcs[i].ID)
			left--
		}
	}
	return passed, took, 0, nil
}

// seen reports whether a message has arrived at this end.
func (e *probeEnd) seen() bool {
	var wcs [1]ibverbs.WC
	n, err := e.cq.Poll(wcs[:])
	return err == nil && n > 0 && wcs[0].Status == ibverbs.WCSuccess
}

// close ends the probe.
func (e *probeEnd) close() error {
	var errs []error
	if e.prep != nil {
		errs = append(errs, e.prep.Close())
	}
	if e.qp != nil {
		errs = append(errs, e.qp.Close())
	}
	if e.cq != nil {
		errs = append(errs, e.cq.Close())
	}
	return errors.Join(append(errs, e.all.put(e.cand.Device, e.bench))...)
}
