package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// graceToMeasure is how much longer than agreed a measurement may take.
const graceToMeasure = 15 * time.Second

// serveMeasures measures what the sender asks for until it wants no more.
func (p *pull) serveMeasures(ended <-chan error) error {
	for {
		select {
		case m, more := <-p.measures:
			if !more {
				return nil
			}
			if err := p.s.Send(p.answer(m)); err != nil {
				return err
			}
		case err := <-ended:
			return err
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
	}
}

// answer does what the sender asks for.
func (p *pull) answer(m wire.Message) wire.Message {
	switch ask := m.(type) {
	case *wire.RunTool:
		return p.runTool(ask)
	case *wire.Verbs:
		return p.serveVerbs(ask)
	case *wire.AskHardware:
		return p.hardware()
	}
	r := p.measure(m.(*wire.Measure))
	if r.Code == 0 {
		p.result.Measured++
	}
	return r
}

// measureMessage is handle for a session that measures.
func (p *pull) measureMessage(m wire.Message) error {
	if p.measuredAll {
		return fmt.Errorf("%w: %T after the last measurement", wire.ErrMalformed, m)
	}
	switch m := m.(type) {
	case *wire.Measure, *wire.RunTool, *wire.Verbs, *wire.AskHardware:
		select {
		case p.measures <- m:
		default:
			return fmt.Errorf("%w: more than one measurement at a time", wire.ErrMalformed)
		}
	case *wire.ToolDone:
		select {
		case p.toolDone <- struct{}{}:
		default:
			return fmt.Errorf("%w: unexpected %T", wire.ErrMalformed, m)
		}
	case *wire.VerbsEnd, *wire.VerbsStop:
		return p.verbsMessage(m)
	case *wire.ManifestEnd:
		p.measuredAll = true
		close(p.measures)
	case *wire.LaneAnswer:
		p.lanes.answered(m)
	case *wire.LaneDown:
		p.lanes.kill(m.ID, errors.New("the sender's end broke: "+Printable(m.Reason)))
	case *wire.Abort:
		return p.s.fromPeer(m)
	default:
		return fmt.Errorf("%w: unexpected %T", wire.ErrMalformed, m)
	}
	return nil
}

func (p *pull) measure(m *wire.Measure) *wire.Measured {
	f := &measuredFeed{Measure: m, took: NewLatency(), await: awaitTime}
	err := p.drive(m, f)
	if f.work != nil {
		f.work.stop()
	}
	if err != nil {
		return &wire.Measured{Code: uint8(min(CodeOf(err), CodeNoRDMA)), Reason: wire.Clip(err.Error())}
	}
	r := &wire.Measured{Extents: f.landed, Nanoseconds: int64(f.end.Sub(f.start)), CPU: f.cpu.wire(),
		Memory: wire.Memory{Anonymous: f.memory.Anonymous, Pinned: f.memory.Pinned, Peak: f.memory.Peak}, Work: f.worked, Datagrams: f.datagrams, Lost: f.lost}
	for _, bar := range f.took.Distribution() {
		if bar.Count > 0 {
			r.Took = append(r.Took, bar.To)
			r.Times = append(r.Times, bar.Count)
		}
	}
	return r
}

// drive opens a lane as m has it, and pulls over it.
func (p *pull) drive(m *wire.Measure, f *measuredFeed) error {
	t, err := p.measuredTransport(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(p.ctx, time.Duration(m.Warmup+m.Nanoseconds)+graceToMeasure,
		errorf(CodeConnect, "the lane carries nothing any more: not done %v after it should have been", graceToMeasure))
	defer cancel()
	hello := *p.hello
	hello.Op = m.Op
	// One request is in flight when the feed has it so. A lane has room for two.
	ln, err := p.lanes.open(ctx, t, &hello, LaneParams{Path: p.rail, Depth: max(2, int(m.Depth)), ExtentSize: int(m.Size)})
	if err != nil {
		p.rail = "" // to be looked for again
		return laneError(t, err)
	}
	lossy, _ := ln.Puller.(Lossy)
	f.began = func() error {
		if lossy != nil {
			f.datagrams, f.lost = lossy.Datagrams()
		}
		return p.s.Send(&wire.Measuring{Detail: wire.Clip(ln.Describe())})
	}
	stop := context.AfterFunc(ctx, func() { ln.feed.kill(context.Cause(ctx)) })
	defer stop()
	if err = ln.Pull(ln.ctx, f); err != nil {
		err = laneError(t, causeOf(ln.ctx, err))
	} else if f.refused {
		err = errorf(CodeLocalIO, "the sender can't read its memory")
	}
	if lossy != nil {
		asked, lost := lossy.Datagrams()
		f.datagrams, f.lost = asked-f.datagrams, lost-f.lost
	}
	p.lanes.close(ln)
	p.lanes.down(ln.feed.id, errors.New("measured"))
	return err
}

// hardware is what this host tells of itself. It has nothing that is secret in it, and no
// more of the network than what a session offers to whoever has the key: so it needs no
// leave, as programs do.
func (p *pull) hardware() *wire.Hardware {
	if p.Hardware == nil {
		return &wire.Hardware{Devices: []wire.HardwareDevice{}}
	}
	return p.Hardware()
}

// laneError gives an error of a lane its code.
func laneError(t PullTransport, err error) error {
	if t.Name() == TransportRDMA {
		return errorf(CodeNoRDMA, "%w", err)
	}
	return errorf(CodeConnect, "%w", err)
}

func (p *pull) measuredTransport(m *wire.Measure) (PullTransport, error) {
	rdma, tcp, reason := p.lanes.policy()
	switch {
	case int64(m.Size)*int64(m.Depth) > MaxInFlight:
		return nil, errorf(CodeUsage, "%d extents of %d bytes in flight are more than a lane has room for (%d bytes)", m.Depth, m.Size, MaxInFlight)
	case m.Transport == TransportRDMA && rdma:
		_, err := p.measuredRail()
		return p.RDMA, err
	case m.Transport == TransportTCP && tcp:
		return p.TCP, nil
	case m.Transport == TransportUDP && tcp && p.UDP != nil:
		return p.UDP, nil
	case m.Transport == TransportRDMA:
		return nil, errorf(CodeNoRDMA, "%s", reason)
	}
	return nil, errorf(CodeUsage, "no %s lanes: the receiver was told to use %s", Printable(m.Transport), p.Transport)
}

// measuredRail is the path of RDMA's that is measured: the best of those that were tried. It
// is looked for once, and again after a failure.
func (p *pull) measuredRail() (string, error) {
	if p.rail != "" {
		return p.rail, nil
	}
	names, _, err := p.RDMA.Paths(p.ctx, PathQuery{Hello: p.hello, Scout: p.scout, Again: p.looked})
	p.looked = true
	if p.ctx.Err() != nil {
		return "", context.Cause(p.ctx)
	}
	if err != nil {
		return "", errorf(CodeNoRDMA, "%w", err)
	}
	p.rail = names[0]
	return p.rail, nil
}

// measuredFeed asks for the extents of one file in turn, so many at once, and forgets
// them. It is a lane's alone.
type measuredFeed struct {
	*wire.Measure
	began func() error // tells the other end that it counts now

	warm       time.Time // when it is
	start, end time.Time // of what counts
	over       bool
	refused    bool
	next       uint32  // extent
	inFlight   []asked // the oldest first
	landed     int64   // between start and end
	took       *hdrhistogram.Histogram
	cpu        CPU
	memory     Memory
	work       *worker // where it is to be counted
	worked     *wire.Work
	due        time.Time // when the next is, where they are due at times of their own
	await      func(time.Time)
	// datagrams were asked for while it counted, of UDP, and lost did not come in time.
	datagrams, lost int64
}

// asked is an extent that was asked for.
type asked struct {
	off int64
	at  time.Time
}

// Next is [Feed].Next: it is called when nothing is in flight.
func (f *measuredFeed) Next(ctx context.Context) (Extent, error) {
	if e, ok := f.TryNext(); ok {
		return e, nil
	}
	return Extent{}, io.EOF
}

// TryNext is [Feed].TryNext.
func (f *measuredFeed) TryNext() (Extent, bool) {
	if f.over || len(f.inFlight) == int(f.Depth) {
		return Extent{}, false
	}
	now := time.Now()
	if f.warm.IsZero() {
		f.warm, f.due = now.Add(time.Duration(f.Warmup)), now
	}
	if f.Interval > 0 {
		if f.due.After(now) && len(f.inFlight) > 0 {
			return Extent{}, false
		}
		f.await(f.due)
		// An answer counts from when it was due to be asked for, however late that was: what
		// held it up would else hide from the very percentiles that it is to be seen in
		// (coordinated omission).
		now = f.due
		f.due = f.due.Add(time.Duration(f.Interval))
	}
	e := Extent{Off: int64(f.next) * int64(f.Size), Len: int(f.Size)}
	f.next = (f.next + 1) % f.Extents
	f.inFlight = append(f.inFlight, asked{e.Off, now})
	return e, true
}

// wakeLate is about how late a sleeper wakes.
const wakeLate = 100 * time.Microsecond

// awaitTime sleeps until shortly before at, and then looks at the clock until it is.
func awaitTime(at time.Time) {
	time.Sleep(time.Until(at) - wakeLate)
	for time.Now().Before(at) {
		runtime.Gosched()
	}
}

// answered gives when an extent was asked for, which is not in flight any more.
func (f *measuredFeed) answered(e Extent) time.Time {
	i := slices.IndexFunc(f.inFlight, func(a asked) bool { return a.off == e.Off })
	at := f.inFlight[i].at // a lane answers what it was given
	f.inFlight = slices.Delete(f.inFlight, i, i+1)
	return at
}

// Land is [Feed].Land: it counts.
func (f *measuredFeed) Land(e Extent, b []byte) error {
	now, at := time.Now(), f.answered(e)
	switch {
	case len(b) != e.Len:
		return fmt.Errorf("%w: %d bytes for an extent of %d", wire.ErrMalformed, len(b), e.Len)
	case f.over:
	case f.start.IsZero():
		if now.Before(f.warm) {
			return nil
		}
		if err := f.began(); err != nil {
			return err
		}
		if f.Count {
			f.work = startCounting()
		}
		f.cpu = spent()
		f.start = time.Now()
	default:
		f.landed++
		if at.After(f.start) {
			if err := f.took.RecordValue(int64(now.Sub(at))); err != nil {
				return err
			}
		}
		if now.Sub(f.start) >= time.Duration(f.Nanoseconds) {
			f.over = true
			f.end = now
			f.cpu = spent().since(f.cpu)
			if f.work != nil {
				f.worked = f.work.stop().wire()
				f.work = nil
			}
			f.memory = memoryUsed()
		}
	}
	return nil
}

// Refuse is [Feed].Refuse: there is nothing to be measured.
func (f *measuredFeed) Refuse(e Extent) {
	f.answered(e)
	f.over, f.refused = true, true
}
