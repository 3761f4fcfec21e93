package ibverbs

import (
	"fmt"
	"math/rand/v2"
	"syscall"
)

// QPType is the service of a queue pair (enum ibv_qp_type).
type QPType int

// The services.
const (
	QPTypeRC QPType = 2 // reliable, connected: every operation
	QPTypeUC QPType = 3 // unreliable, connected: sends and writes, without acknowledgement
	QPTypeUD QPType = 4 // unreliable datagrams: sends of one packet, to anybody
)

// String gives the name that the field uses.
func (t QPType) String() string {
	switch t {
	case QPTypeRC:
		return "RC"
	case QPTypeUC:
		return "UC"
	case QPTypeUD:
		return "UD"
	}
	return fmt.Sprintf("QPType(%d)", int(t))
}

// QPConfig is what a queue pair is made of.
type QPConfig struct {
	Type                   QPType // default QPTypeRC
	SendCQ, RecvCQ         *CQ    // may be the same
	SRQ                    *SRQ   // where receives come from, instead of the queue pair's own
	MaxSend, MaxRecv       int    // work requests outstanding; see [QP.Drain] for MaxQPWR of them
	MaxSendSGE, MaxRecvSGE int    // stretches a work request; 0 means 1, MaxSGE at the most
	MaxInline              int    // bytes; what the device gives may be more or less
	Port                   int    // of the device, from 1; 0 means 1
	GIDIndex               int    // of the local address; see Context.FindGID
	PKeyIndex              int
	Access                 Access // what the peer may do: remote write, read, atomics, MW binds
	QKey                   uint32 // UD: what senders must name
}

// setDefaults fills in zeroes and refuses what no device takes.
func (c *QPConfig) setDefaults() error {
	for _, n := range []*int{&c.Port, &c.MaxSendSGE, &c.MaxRecvSGE} {
		if *n == 0 {
			*n = 1
		}
	}
	if c.Type == 0 {
		c.Type = QPTypeRC
	}
	if most := max(c.MaxSendSGE, c.MaxRecvSGE); most > MaxSGE {
		return &ParamError{"stretches a work request", fmt.Sprint(most), fmt.Sprintf("must be 1 to %d", MaxSGE)}
	}
	if c.SendCQ == nil || c.RecvCQ == nil {
		return &ParamError{"completion queues", "nil", "a queue pair needs both; they may be the same"}
	}
	return nil
}

// PreparedQP is a queue pair in INIT: receives may be posted, nothing sent. It
// ends by Connect, which hands it on as a [QP], or by Close.
type PreparedQP struct{ qp *QP }

// PrepareQP makes a connected queue pair and brings it to INIT (ibv_create_qp,
// ibv_modify_qp). For datagrams see [PD.OpenUD].
func (p *PD) PrepareQP(c QPConfig) (*PreparedQP, error) {
	if c.Type == QPTypeUD {
		return nil, &ParamError{"type", "UD", "is not connected: use OpenUD"}
	}
	qp, err := p.createQP(c)
	if err != nil {
		return nil, err
	}
	return &PreparedQP{qp}, nil
}

// OpenUD makes a datagram queue pair and brings it to RTS. Its Endpoint and QKey are
// what others need to send to it, by an [AH]. Receives need room for [GRHSize] bytes
// in front of the message.
func (p *PD) OpenUD(c QPConfig) (*QP, error) {
	c.Type = QPTypeUD
	c.Access = 0
	qp, err := p.createQP(c)
	if err != nil {
		return nil, err
	}
	if step, rc := sysQPConnect(qp.h, &vector{}, &qp.local, &Endpoint{}, &ConnectParams{}); rc < 0 {
		qp.Close()
		return nil, opError("ibv_modify_qp to "+step, rc)
	}
	return qp, nil
}

// createQP makes a queue pair of any type and brings it to INIT.
func (p *PD) createQP(c QPConfig) (*QP, error) {
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	port, err := p.ctx.QueryPort(c.Port)
	if err != nil {
		return nil, err
	}
	if port.State != PortActive {
		return nil, fmt.Errorf("%s port %d is %v (bring its network device up: ip link set dev NETDEV up)", p.ctx.name, c.Port, port.State)
	}
	if c.PKeyIndex < 0 || c.PKeyIndex >= port.PKeys {
		return nil, &ParamError{"pkey index", fmt.Sprint(c.PKeyIndex), fmt.Sprintf("the port's table has %d entries", port.PKeys)}
	}
	local, err := p.ctx.endpoint(c.Port, c.GIDIndex, &port)
	if err != nil {
		return nil, err
	}
	dev, err := p.ctx.QueryDevice()
	if err != nil {
		return nil, err
	}
	h, qpn, inline, rc := sysCreateQP(p.h, &c, withMarkers(c.MaxSend, 1, dev.MaxQPWR), withMarkers(c.MaxRecv, 1, dev.MaxQPWR))
	if rc < 0 {
		return nil, withHint(opError("ibv_create_qp", rc), fmt.Sprintf("%d sends, %d receives, %d inline bytes: more than the device has?", c.MaxSend, c.MaxRecv, c.MaxInline))
	}
	local.QPN, local.PSN = qpn, rand.Uint32()&0xffffff
	if rc := sysQPInit(h, &c); rc < 0 {
		sysDestroyQP(h)
		return nil, opError("ibv_modify_qp to INIT", rc)
	}
	q := &QP{pd: p, conf: c, local: local, inline: inline, port: port}
	parents := []*object{&p.object, &c.SendCQ.object, &c.RecvCQ.object}
	if c.SRQ != nil {
		parents = append(parents, &c.SRQ.object)
	}
	q.made(kindQP, h, parents...)
	return q, nil
}

// Endpoint is what the peer's Connect needs.
func (p *PreparedQP) Endpoint() Endpoint { return p.qp.local }

// PostRecv posts receives; see [QP.PostRecv].
func (p *PreparedQP) PostRecv(wrs []RecvWR) (int, error) { return p.qp.PostRecv(wrs) }

// Connect brings the queue pair to RTR and RTS (ibv_modify_qp) and hands it on:
// the PreparedQP is spent whatever the outcome, and closed if it is an error.
// The peer must have done the same before the first message is sent: no packet has
// crossed the path yet. A parameter that can't be right is a [*ParamError].
func (p *PreparedQP) Connect(remote Endpoint, params ConnectParams) (*QP, error) {
	qp := p.qp
	if qp == nil {
		return nil, fmt.Errorf("connect: prepared queue pair: %w", ErrClosed)
	}
	p.qp = nil
	if err := qp.connect(&remote, &params); err != nil {
		qp.Close()
		return nil, err
	}
	return qp, nil
}

func (q *QP) connect(remote *Endpoint, params *ConnectParams) error {
	dev, err := q.pd.ctx.QueryDevice()
	if err != nil {
		return err
	}
	params.setDefaults(&q.local, remote)
	if err := params.check(q.conf.Type, &q.local, remote, &q.port, &dev); err != nil {
		return err
	}
	q.params = *params
	v := addressVector(q.conf.Port, q.conf.GIDIndex, &q.port, &q.local, remote, &params.Path)
	if step, rc := sysQPConnect(q.h, &v, &q.local, remote, params); rc < 0 {
		return pathError("ibv_modify_qp to "+step, rc, &q.local, remote, q.conf.GIDIndex)
	}
	return nil
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

// QP is a queue pair that can send (struct ibv_qp). Posting is safe from several
// goroutines, as it is in the C library; Close is for one, after everything.
type QP struct {
	object
	pd     *PD
	conf   QPConfig
	local  Endpoint
	port   PortAttr
	params ConnectParams
	inline int
	marks  [2]int // Drain's requests that have not come back: in SendCQ, and in RecvCQ if that is another
}

// Number is the queue pair's number, as in completions.
func (q *QP) Number() uint32 { return q.local.QPN }

// Endpoint is this side of the connection.
func (q *QP) Endpoint() Endpoint { return q.local }

// MTU is the path MTU that the connection uses; of a UD queue pair it is 0, and a
// message as long as its port's at the most.
func (q *QP) MTU() MTU { return q.params.MTU }

// Params are the parameters of the connection as they are in force.
func (q *QP) Params() ConnectParams { return q.params }

// MaxInline is how many bytes a send with [SendInline] can carry.
func (q *QP) MaxInline() int { return q.inline }

// QPState is the state of a queue pair (enum ibv_qp_state).
type QPState int

var qpStates = [...]string{"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR", "UNKNOWN"}

// The states in which a queue pair of this package is found.
const (
	QPStateInit QPState = 1
	QPStateRTS  QPState = 3
	QPStateErr  QPState = 6
)

// String gives the C library's name without IBV_QPS_.
func (s QPState) String() string {
	if s >= 0 && int(s) < len(qpStates) {
		return qpStates[s]
	}
	return fmt.Sprintf("QPState(%d)", int(s))
}

// State asks the device for the state (ibv_query_qp).
func (q *QP) State() (QPState, error) {
	rc := sysQPState(q.h)
	return QPState(rc), opError("ibv_query_qp", rc)
}

// PostSend posts a batch in one crossing (ibv_post_send). It answers how many
// were posted: on an error those before the refused one are, the others not. A
// program that keeps [SendCredits] puts the others back. A datagram without an address
// handle is a [*ParamError].
func (q *QP) PostSend(wrs []SendWR) (int, error) {
	var refused error
	if q.conf.Type == QPTypeUD {
		wrs, refused = addressed(wrs)
	}
	if len(wrs) == 0 {
		return 0, refused
	}
	n, rc := sysPostSend(q.h, wrs)
	if rc < 0 {
		return n, q.postError("ibv_post_send", rc, q.conf.MaxSend)
	}
	return n, refused
}

var errNoAH = &ParamError{"address handle", "0", "a datagram needs one: see AH.Ref"}

// addressed are the requests before the first without an address handle, which providers
// follow unseen.
func addressed(wrs []SendWR) ([]SendWR, error) {
	for i := range wrs {
		if wrs[i].AH == 0 {
			return wrs[:i], errNoAH
		}
	}
	return wrs, nil
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
	return q.conf.SendCQ.gone(queueFull(opError(op, rc), depth))
}

// queueFull adds the usual reason for ENOMEM.
func queueFull(err error, depth int) error {
	if err.(*Error).Err != syscall.ENOMEM {
		return err
	}
	return withHint(err, fmt.Sprintf("the queue holds %d: poll completions before posting more", depth))
}

// Fail moves the queue pair to the error state (ibv_modify_qp to ERR): what was
// posted before comes back as flushed completions, nothing more is sent, and
// nothing more lands.
func (q *QP) Fail() error { return opError("ibv_modify_qp to ERR", sysQPErr(q.h)) }

// Close moves a connected queue pair to the error state, so that the device is done
// with its memory, and destroys it (ibv_destroy_qp). Completions that were not
// polled stay in its completion queues: see Drain.
func (q *QP) Close() error {
	if q.h != nil && q.children.Load() == 0 {
		_ = q.Fail() // one in RESET or of a removed device refuses
	}
	return q.close(sysDestroyQP)
}
