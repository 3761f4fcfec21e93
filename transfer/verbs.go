package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Verbs makes the ends of a measurement of the verbs alone.
type Verbs interface {
	// Passive makes the receiver's end on a path of RDMA's, by its name; told is for the sender.
	Passive(rail string, ask *wire.Verbs) (end VerbsEnd, told *wire.VerbsEnd, err error)
	// Active makes the sender's, at the address of its own and in the partition that the
	// receiver chose; pkey 0 is the port's first.
	Active(at *wire.Candidate, pkey uint16, load VerbsLoad) (end VerbsEnd, told *wire.VerbsEnd, err error)
}

// VerbsEnd is one end. The passive one runs until ctx ends.
type VerbsEnd interface {
	Connect(peer *wire.VerbsEnd) error
	Run(ctx context.Context) (*VerbsResult, error)
	Close() error
}

// VerbsLoad is what is measured: what the receiver is asked for, and what it need not know.
type VerbsLoad struct {
	wire.Verbs
	Iterations       int // messages; 0: those that complete within Duration
	WarmUp, Duration time.Duration
}

// VerbsResult is what an end measured.
type VerbsResult struct {
	Messages int64 // of its own
	Sent     int64 // the same with the warm-up's
	Received int64 // of the other end's, where they take a receive
	Elapsed  time.Duration
	Posts    int64                   // doorbells
	Trips    *hdrhistogram.Histogram // nanoseconds, of whole round trips; nil of bandwidth
	Inlined  bool
	Signal   int // messages a completion, at the most
	MTU      int // bytes
}

// VerbsMeasurement is what both ends measured.
type VerbsMeasurement struct {
	VerbsResult
	Local, Remote string
	// Back is what the receiver sent meanwhile when both ends do, bytes a second.
	Back float64
	// Lost are the messages that were sent and that no receive took: of datagrams.
	Lost      int64
	Here      CPU // while this end ran
	There     CPU // while the receiver's did, which is a little longer
	ThereTime time.Duration
}

// Verbs measures the verbs alone.
func (m *Meter) Verbs(ctx context.Context, v Verbs, l VerbsLoad) (*VerbsMeasurement, error) {
	if m.err != nil {
		return nil, m.err
	}
	limit := time.Duration(l.Nanoseconds)
	ctx, cancel := context.WithTimeoutCause(ctx, limit+2*graceToMeasure, errorf(CodeConnect, "the receiver lives, and has not said for too long what it has measured"))
	defer cancel()
	if err := m.say(&l.Verbs); err != nil {
		return nil, err
	}
	msg, err := m.event(ctx)
	if err != nil {
		return nil, err
	}
	theirs, ok := msg.(*wire.VerbsEnd)
	if !ok {
		return nil, m.verbsOver(msg)
	}
	r := &VerbsMeasurement{Remote: Printable(theirs.Detail)}
	end, early, ran := m.runVerbs(ctx, limit, v, l, theirs, r)
	if end != nil {
		// Not before the receiver's has ended: what that still sends would be lost, or counted.
		defer end.Close()
	}
	if m.err != nil {
		return nil, ran
	}
	if early != nil { // the receiver's end broke, and no more will come
		return nil, m.verbsOver(early)
	}
	if err := m.say(&wire.VerbsStop{}); err != nil {
		return nil, err
	}
	if msg, err = m.event(ctx); err != nil {
		return nil, err
	}
	over, ok := msg.(*wire.VerbsOver)
	if !ok || over.Code != 0 {
		return nil, errors.Join(ran, m.verbsOver(msg))
	}
	if ran != nil {
		return nil, ran
	}
	r.There, r.ThereTime = cpuOf(over.CPU), time.Duration(over.Nanoseconds)
	if over.Messages > 0 && over.Nanoseconds > 0 {
		r.Back = float64(over.Messages) * float64(l.Size) / r.ThereTime.Seconds()
	}
	if l.Op == "ud" && !l.Latency {
		r.Lost = max(0, r.Sent-over.Received)
	}
	return r, nil
}

// verbsOver is the error that a message is: the receiver's, or that it is not expected.
func (m *Meter) verbsOver(msg wire.Message) error {
	if over, ok := msg.(*wire.VerbsOver); ok && over.Code != 0 {
		return errorf(peerCode(over.Code), "the receiver: %s", Printable(over.Reason))
	}
	return m.wrong(msg)
}

// runVerbs runs this end, which is the caller's to close. What the receiver says of its own
// meanwhile ends it: early.
func (m *Meter) runVerbs(ctx context.Context, limit time.Duration, v Verbs, l VerbsLoad, theirs *wire.VerbsEnd, r *VerbsMeasurement) (end VerbsEnd, early wire.Message, err error) {
	at, _, err := m.p.guide.candidate(theirs.Candidate)
	if err != nil {
		return nil, nil, err
	}
	var pkey uint16
	if theirs.Fabric != nil && theirs.Fabric.PKey != nil {
		pkey = *theirs.Fabric.PKey
	}
	end, mine, err := v.Active(at, pkey, l)
	if err != nil {
		return nil, nil, errorf(CodeNoRDMA, "%w", err)
	}
	r.Local = mine.Detail
	if err := end.Connect(theirs); err != nil {
		return end, nil, errorf(CodeNoRDMA, "%w", err)
	}
	if err := m.say(mine); err != nil {
		return end, nil, err
	}
	msg, err := m.event(ctx)
	if err != nil {
		return end, nil, err
	}
	if _, ok := msg.(*wire.VerbsReady); !ok {
		return end, msg, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errorf(CodeConnect, "not finished after %v: a message was lost, or the path is dead", limit))
	defer cancel()
	stop := context.AfterFunc(m.p.ctx, cancel)
	defer stop()
	began := spent()
	type outcome struct {
		got *VerbsResult
		err error
	}
	result := make(chan outcome, 1)
	go func() {
		got, err := end.Run(ctx)
		result <- outcome{got, err}
	}()
	var out outcome
	select {
	case out = <-result:
	case early = <-m.events:
		cancel()
		<-result
		return end, early, nil
	case m.err = <-m.ended:
		cancel()
		<-result
		return end, nil, m.err
	}
	if out.err != nil {
		return end, nil, errorf(CodeNoRDMA, "%w", causeOf(ctx, out.err))
	}
	r.Here, r.VerbsResult = spent().since(began), *out.got
	return end, nil, nil
}

// serveVerbs is the receiver's end. It answers with VerbsOver, whatever happens: once the
// sender has said VerbsStop, or when there is no end, or that breaks.
func (p *pull) serveVerbs(ask *wire.Verbs) *wire.VerbsOver {
	over := new(wire.VerbsOver)
	if err := p.runVerbs(ask, over); err != nil {
		over.Code, over.Reason = uint8(min(CodeOf(err), CodeNoRDMA)), wire.Clip(err.Error())
	}
	return over
}

func (p *pull) runVerbs(ask *wire.Verbs, over *wire.VerbsOver) error {
	if rdma, _, reason := p.lanes.policy(); !rdma || p.Verbs == nil {
		return errorf(CodeNoRDMA, "no RDMA here: %s", reason)
	}
	for { // what was said about one that was given up before
		select {
		case <-p.verbsSaid:
			continue
		default:
		}
		break
	}
	rail, err := p.measuredRail()
	if err != nil {
		return err
	}
	end, mine, err := p.Verbs.Passive(rail, ask)
	if err != nil {
		p.rail = "" // to be looked for again
		return errorf(CodeNoRDMA, "%w", err)
	}
	defer end.Close()
	ctx, cancel := context.WithTimeoutCause(p.ctx, time.Duration(ask.Nanoseconds)+graceToMeasure, errorf(CodeConnect, "not finished %v after it should have been", graceToMeasure))
	defer cancel()
	if err := p.s.Send(mine); err != nil {
		return err
	}
	var failed error
	select {
	case msg := <-p.verbsSaid:
		theirs, ok := msg.(*wire.VerbsEnd)
		if !ok {
			return nil // it gave up
		}
		if failed = end.Connect(theirs); failed == nil {
			failed = p.s.Send(&wire.VerbsReady{})
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	began, at := spent(), time.Now()
	result := make(chan error, 1)
	if failed == nil {
		go func() {
			got, err := end.Run(serving)
			if err != nil {
				err = errorf(CodeNoRDMA, "%w", err)
			}
			if err == nil && got != nil {
				over.Messages, over.Received, over.Nanoseconds = got.Messages, got.Received, int64(got.Elapsed)
			}
			result <- err
		}()
	} else {
		result <- failed
	}
	// The sender's end may never notice that this one broke: it hears of it at once.
	select {
	case <-p.verbsSaid:
	case err := <-result:
		result <- cmp.Or(err, errors.New("its end of the measurement is over before the sender said so"))
	case <-ctx.Done():
	}
	over.CPU = spent().since(began).wire()
	stop()
	err = <-result
	if over.Nanoseconds == 0 {
		over.Nanoseconds = int64(time.Since(at))
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// verbsMessage takes what the sender says while its verbs are measured.
func (p *pull) verbsMessage(msg wire.Message) error {
	select {
	case p.verbsSaid <- msg:
		return nil
	default:
		return fmt.Errorf("%w: unexpected %T", wire.ErrMalformed, msg)
	}
}
