package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

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
	case *wire.Measure, *wire.RunTool, *wire.Verbs:
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
	f := &measuredFeed{Measure: m, took: NewLatency()}
	if err := p.drive(m, f); err != nil {
		return &wire.Measured{Code: uint8(min(CodeOf(err), CodeNoRDMA)), Reason: wire.Clip(err.Error())}
	}
	r := &wire.Measured{Extents: f.landed, Nanoseconds: int64(f.end.Sub(f.start)), CPU: wire.CPU{User: int64(f.cpu.User), System: int64(f.cpu.System), Host: int64(f.cpu.Host)}}
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
	ln, err := p.lanes.open(ctx, t, &hello, LaneParams{Depth: max(2, int(m.Depth)), ExtentSize: int(m.Size)})
	if err != nil {
		return laneError(t, err)
	}
	f.began = func() error { return p.s.Send(&wire.Measuring{Detail: wire.Clip(ln.Describe())}) }
	stop := context.AfterFunc(ctx, func() { ln.feed.kill(context.Cause(ctx)) })
	defer stop()
	if err = ln.Pull(ln.ctx, f); err != nil {
		err = laneError(t, causeOf(ln.ctx, err))
	} else if f.refused {
		err = errorf(CodeLocalIO, "the sender can't read its memory")
	}
	p.lanes.close(ln)
	p.lanes.down(ln.feed.id, errors.New("measured"))
	return err
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
		if _, err := p.RDMA.Paths(p.hello); err != nil {
			return nil, errorf(CodeNoRDMA, "%w", err)
		}
		return p.RDMA, nil
	case m.Transport == TransportTCP && tcp:
		return p.TCP, nil
	case m.Transport == TransportRDMA:
		return nil, errorf(CodeNoRDMA, "%s", reason)
	}
	return nil, errorf(CodeUsage, "no %s lanes: the receiver was told to use %s", Printable(m.Transport), p.Transport)
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
	e := Extent{Off: int64(f.next) * int64(f.Size), Len: int(f.Size)}
	now := time.Now()
	if f.warm.IsZero() {
		f.warm = now.Add(time.Duration(f.Warmup))
	}
	f.next = (f.next + 1) % f.Extents
	f.inFlight = append(f.inFlight, asked{e.Off, now})
	return e, true
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
		}
	}
	return nil
}

// Refuse is [Feed].Refuse: there is nothing to be measured.
func (f *measuredFeed) Refuse(e Extent) {
	f.answered(e)
	f.over, f.refused = true, true
}

// spent is what processors have spent so far.
func spent() CPU {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // EFAULT and EINVAL are all there is
	}
	return CPU{time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano()), hostBusy()}
}

func (c CPU) since(before CPU) CPU {
	return CPU{c.User - before.User, c.System - before.System, max(0, c.Host-before.Host)}
}

// hostBusy adds up what the host's processors did but idle and wait (proc_stat(5):
// user, nice, system, idle, iowait, irq, softirq, steal; in ticks, which are 10 ms for
// every program). 0 where there is no such file.
func hostBusy() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	var ticks int64
	for i, word := range bytes.Fields(line) {
		if n, err := strconv.ParseInt(string(word), 10, 64); err == nil && (i >= 1 && i <= 3 || i == 6 || i == 7) {
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
