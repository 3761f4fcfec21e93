package ibverbs

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"unsafe"
)

// QPConfig is what a reliable-connected queue pair is made of.
type QPConfig struct {
	SendCQ, RecvCQ         *CQ // may be the same
	MaxSend, MaxRecv       int // work requests outstanding
	MaxSendSGE, MaxRecvSGE int // stretches a work request; 0 means 1, MaxSGE at the most
	MaxInline              int // bytes; what the device gives may be more or less
	Port                   int // of the device, from 1; 0 means 1
	GIDIndex               int // of the local address; see Context.FindGID
	PKeyIndex              int
	Access                 Access // what the peer may do: remote write, read, atomics
}

// ConnectParams are the parameters of a connection. The zero value of each means
// the default that its comment gives.
type ConnectParams struct {
	MTU            MTU    // path MTU; default the lower of both ports'
	Timeout        uint8  // acknowledgement time-out, 4.096 µs × 2^n; default 14 (67 ms)
	Retries        uint8  // after time-outs, 1 to 7; default 6: soft-RoCE takes 7 as "for ever"
	RNRRetries     uint8  // after "receiver not ready", 1 to 6; default 6. 7 would be for ever
	MinRNRTimer    uint8  // coded delay that a receiver asks for (IBTA 9.7.5.2.8); default 12 (0.64 ms)
	MaxReads       uint8  // outstanding READs and atomics as initiator; default 1
	MaxReadsServed uint8  // the same as responder; default 1
	ServiceLevel   uint8  // 0 to 15
	TrafficClass   uint8  // RoCE v2: the IP header's DSCP and ECN
	FlowLabel      uint32 // 20 bits; RoCE v2: spreads flows over equal-cost paths
	HopLimit       uint8  // default 64
}

func (p *ConnectParams) setDefaults(local, remote MTU) {
	def := func(v *uint8, d uint8) {
		if *v == 0 {
			*v = d
		}
	}
	def((*uint8)(&p.MTU), uint8(min(local, remote)))
	def(&p.Timeout, 14)
	def(&p.Retries, 6)
	def(&p.RNRRetries, 6)
	def(&p.MinRNRTimer, 12)
	def(&p.MaxReads, 1)
	def(&p.MaxReadsServed, 1)
	def(&p.HopLimit, 64)
}

// PreparedQP is a queue pair in INIT: receives may be posted, nothing sent. It
// ends by Connect, which hands it on as a [QP], or by Close.
type PreparedQP struct{ qp *QP }

// PrepareQP makes a reliable-connected queue pair and brings it to INIT
// (ibv_create_qp, ibv_modify_qp).
func (p *PD) PrepareQP(c QPConfig) (*PreparedQP, error) {
	for _, n := range []*int{&c.Port, &c.MaxSendSGE, &c.MaxRecvSGE} {
		if *n == 0 {
			*n = 1
		}
	}
	if c.MaxSendSGE > MaxSGE || c.MaxRecvSGE > MaxSGE {
		return nil, fmt.Errorf("ibv_create_qp: more than %d stretches a work request: %w", MaxSGE, ErrUnsupported)
	}
	port, err := p.ctx.QueryPort(c.Port)
	if err != nil {
		return nil, err
	}
	if port.State != PortActive {
		return nil, fmt.Errorf("%s port %d is %v (bring its network device up: ip link set dev NETDEV up)", p.ctx.name, c.Port, port.State)
	}
	local := Endpoint{PSN: rand.Uint32() & 0xffffff, LID: port.LID, MTU: port.ActiveMTU}
	if local.GID, err = p.ctx.gidAt(c.Port, c.GIDIndex); err != nil && port.LinkLayer == LinkEthernet {
		return nil, err
	}
	h, qpn, inline, rc := sysCreateQP(p.h, &c)
	if rc < 0 {
		return nil, withHint(opError("ibv_create_qp", rc), fmt.Sprintf("%d sends, %d receives, %d inline bytes: more than the device has?", c.MaxSend, c.MaxRecv, c.MaxInline))
	}
	local.QPN = qpn
	if rc := sysQPInit(h, c.Port, c.PKeyIndex, c.Access); rc < 0 {
		sysDestroyQP(h)
		return nil, opError("ibv_modify_qp to INIT", rc)
	}
	p.children.Add(1)
	c.SendCQ.children.Add(1)
	c.RecvCQ.children.Add(1)
	return &PreparedQP{&QP{pd: p, h: h, conf: c, local: local, inline: inline}}, nil
}

func (c *Context) gidAt(port, index int) (GID, error) {
	entries, err := c.GIDTable()
	if err != nil {
		return GID{}, err
	}
	for _, e := range entries {
		if e.Port == port && e.Index == index {
			return e.GID, nil
		}
	}
	return GID{}, fmt.Errorf("%s port %d has no GID at index %d (see: rdmaxfer devices)", c.name, port, index)
}

// Endpoint is what the peer's Connect needs.
func (p *PreparedQP) Endpoint() Endpoint { return p.qp.local }

// PostRecv posts receives; see [QP.PostRecv].
func (p *PreparedQP) PostRecv(wrs []RecvWR) (int, error) { return p.qp.PostRecv(wrs) }

// Connect brings the queue pair to RTR and RTS (ibv_modify_qp) and hands it on:
// the PreparedQP is spent whatever the outcome, and closed if it is an error.
// The peer must have done the same before the first message is sent.
func (p *PreparedQP) Connect(remote Endpoint, params ConnectParams) (*QP, error) {
	qp := p.qp
	if qp == nil {
		return nil, fmt.Errorf("connect: prepared queue pair: %w", ErrClosed)
	}
	p.qp = nil
	params.setDefaults(qp.local.MTU, remote.MTU)
	qp.params = params
	step, rc := sysQPConnect(qp.h, &qp.conf, &qp.local, &remote, &params)
	if rc < 0 {
		qp.Close()
		hint := fmt.Sprintf("remote GID %v LID %d, local GID %v index %d, MTU %d", remote.GID, remote.LID, qp.local.GID, qp.conf.GIDIndex, params.MTU.Bytes())
		switch syscall.Errno(-rc) {
		case syscall.EINVAL:
			hint += ": are both addresses of one family, and the MTU one that the port carries?"
		case syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ETIMEDOUT:
			hint += ": no route to the address (ip route get), or it does not answer ARP"
		}
		return nil, withHint(opError("ibv_modify_qp to "+step, rc), hint)
	}
	return qp, nil
}

// Close destroys a queue pair that was never connected.
func (p *PreparedQP) Close() error {
	if p.qp == nil {
		return fmt.Errorf("prepared queue pair: %w", ErrClosed)
	}
	qp := p.qp
	p.qp = nil
	return qp.Close()
}

// QP is a connected queue pair (struct ibv_qp). Posting is safe from several
// goroutines, as it is in the C library; Close is for one, after everything.
type QP struct {
	pd     *PD
	h      unsafe.Pointer
	conf   QPConfig
	local  Endpoint
	params ConnectParams
	inline int
}

// Number is the queue pair's number, as in completions.
func (q *QP) Number() uint32 { return q.local.QPN }

// MTU is the path MTU that the connection uses.
func (q *QP) MTU() MTU { return q.params.MTU }

// MaxInline is how many bytes a send with [SendInline] can carry.
func (q *QP) MaxInline() int { return q.inline }

// PostSend posts a batch in one crossing (ibv_post_send). It answers how many
// were posted: on an error those before the refused one are, the others not.
func (q *QP) PostSend(wrs []SendWR) (int, error) {
	if len(wrs) == 0 {
		return 0, nil
	}
	n, rc := sysPostSend(q.h, wrs)
	if rc < 0 {
		return n, q.postError("ibv_post_send", rc, q.conf.MaxSend)
	}
	return n, nil
}

// PostRecv posts a batch of receives in one crossing (ibv_post_recv), with the
// same answer as PostSend. A device fills them in the order in which they were
// posted.
func (q *QP) PostRecv(wrs []RecvWR) (int, error) {
	if len(wrs) == 0 {
		return 0, nil
	}
	n, rc := sysPostRecv(q.h, wrs)
	if rc < 0 {
		return n, q.postError("ibv_post_recv", rc, q.conf.MaxRecv)
	}
	return n, nil
}

func (q *QP) postError(op string, rc, depth int) error {
	err := opError(op, rc)
	if syscall.Errno(-rc) == syscall.ENOMEM {
		err = withHint(err, fmt.Sprintf("the queue holds %d: poll completions before posting more", depth))
	}
	return q.conf.SendCQ.gone(err)
}

// Fail moves the queue pair to the error state (ibv_modify_qp to ERR): what was
// posted before comes back as flushed completions, nothing more is sent, and
// nothing more lands.
func (q *QP) Fail() error { return opError("ibv_modify_qp to ERR", sysQPErr(q.h)) }

// Close destroys the queue pair (ibv_destroy_qp). Completions that were not
// polled stay in its completion queues.
func (q *QP) Close() error {
	if err := closeHandle("ibv_destroy_qp", "QP", &q.h, nil, &q.pd.children, sysDestroyQP); err != nil {
		return err
	}
	q.conf.SendCQ.children.Add(-1)
	q.conf.RecvCQ.children.Add(-1)
	return nil
}
