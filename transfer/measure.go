package transfer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Load is what a [Meter] has a lane do.
type Load struct {
	Transport string         // rdma, tcp or udp
	Op        string         // of RDMA: read, write or send
	Serve     ServeTransport // this end of a lane over sockets, which knows its method
	Size      int            // of an extent, bytes
	Depth     int            // requests in flight at the most
	Warmup    time.Duration  // that does not count
	Duration  time.Duration  // that does
	// Interval is how far apart the times are at which requests are due, whether or not
	// the one before was answered (an open loop), and from which round trips count. 0: a
	// request is sent as soon as there is room.
	Interval time.Duration
	Count    bool // Work too, which costs a little
}

// Measurement is what came of a [Load].
type Measurement struct {
	Local, Remote string // what the two ends of the lane ran on: this host's, the receiver's
	Extents       int64  // that landed
	Bytes         int64  // of them
	Elapsed       time.Duration
	// Latency has for each extent the nanoseconds from its request to its last byte, by
	// the receiver's clock: a round trip.
	Latency         *hdrhistogram.Histogram
	LocalCPU, Other CPU           // of this host, and of the receiver's
	LocalTime       time.Duration // by this host's clock, that LocalCPU is of
	LocalMemory     Memory        // when it began
	OtherMemory     Memory        // the receiver's, when it was over
	// LocalWork and OtherWork are what was counted, where it was asked for: of this process
	// from when it began until it heard that it is over.
	LocalWork, OtherWork *Work
	// Datagrams is how many of those the receiver asked for, of UDP; Lost are those of them
	// that did not come in time, and were asked for again.
	Datagrams, Lost int64
}

// MaxInFlight is how many bytes of requests a [Load] may keep in flight.
const MaxInFlight = maxRing / 4

// measured is how much there is to be asked for, bytes: more than a cache.
const measured = 64 << 20

// NewLatency makes a histogram of nanoseconds, up to ten minutes and true to 0.1 %.
func NewLatency() *hdrhistogram.Histogram { return hdrhistogram.New(1, wire.MaxMeasure, 3) }

// Meter is a session in which nothing lands: a receiver pulls over one lane at a time,
// from a file in memory and with no digests, and says how long that took. The lanes are
// those of a transfer.
type Meter struct {
	p      *push
	file   *os.File
	ended  <-chan error
	gone   <-chan struct{}
	events chan wire.Message
	loads  chan Load // for converse: at most one
	cancel context.CancelCauseFunc
	err    error // why the session has ended
}

// OpenMeter connects to a receiver. rdma may be nil when no load is of RDMA.
func OpenMeter(ctx context.Context, addr string, key Key, rdma ServeTransport) (*Meter, error) {
	file, source, err := memorySource()
	if err != nil {
		return nil, err
	}
	session, err := Sockets{}.dialSession(ctx, addr, key)
	if err != nil {
		file.Close()
		return nil, causeOf(ctx, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	context.AfterFunc(ctx, session.hurry)
	m := &Meter{
		p: &push{
			Sender:  &Sender{Addr: addr, Source: source, Transport: TransportAuto, Op: TransportAuto, Verify: VerifyNone, RDMA: rdma},
			s:       session,
			ctx:     ctx,
			cancel:  cancel,
			lane:    make(map[uint32]LaneResult),
			servers: make(map[uint32]Server),
			serving: make(map[uint32]context.CancelFunc),
			guide:   new(guide),
		},
		file:   file,
		events: make(chan wire.Message, 2), // Measuring and Measured may come in one breath
		loads:  make(chan Load, 1),
		cancel: cancel,
	}
	if rdma == nil {
		m.p.Transport = TransportTCP
	}
	source.failed = func(_ uint32, err error) { cancel(err) }
	m.ended, m.gone = session.attend(m.converse)
	if _, err := m.event(ctx); err != nil { // Welcome
		m.Close()
		return nil, err
	}
	return m, nil
}

// memorySource makes a file that is in memory alone, and the source of it.
func memorySource() (*os.File, *Source, error) {
	fd, err := unix.MemfdCreate("rdmaxfer", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, errorf(CodeLocalIO, "memory to measure with: %w", err)
	}
	file := os.NewFile(uintptr(fd), fmt.Sprintf("/proc/self/fd/%d", fd))
	// What compresses well would flatter.
	content := rand.NewChaCha8([32]byte{})
	b := make([]byte, 1<<20)
	for range measured / len(b) {
		content.Read(b)
		if _, err := file.Write(b); err != nil {
			file.Close()
			return nil, nil, errorf(CodeLocalIO, "memory to measure with: %w", err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		file.Close()
		return nil, nil, errorf(CodeLocalIO, "memory to measure with: %w", err)
	}
	source := newSource(nil)
	source.add(&found{path: file.Name(), entry: wire.Entry{Kind: wire.File, Size: measured}, stamp: stampOf(&st)}, nil)
	return file, source, nil
}

// Close ends the session.
func (m *Meter) Close() error {
	_ = m.p.s.Send(&wire.ManifestEnd{})
	m.cancel(nil)
	m.p.Source.giveUp()
	linger(m.gone)
	err := m.p.s.Close()
	<-m.gone
	m.p.lanes.Wait()
	m.p.guide.end()
	m.p.Source.Close()
	return errors.Join(err, m.file.Close())
}

// converse greets the receiver and answers it.
func (m *Meter) converse() error {
	p := m.p
	hello := &wire.Hello{Version: wire.Version, Transport: p.Transport, Op: p.Op, Verify: p.Verify, Lanes: 1, Measure: true}
	if err := p.greet(hello); err != nil {
		return err
	}
	for {
		msg, err := p.s.Receive()
		if err == nil {
			err = m.handle(msg)
		}
		if err != nil {
			return err
		}
	}
}

func (m *Meter) handle(msg wire.Message) error {
	p := m.p
	if mine, err := p.guide.hear(msg); mine {
		return err
	}
	switch msg.(type) {
	case *wire.Welcome, *wire.Abort:
	default:
		if p.welcome == nil {
			return fmt.Errorf("%w: %T before Welcome", wire.ErrMalformed, msg)
		}
	}
	switch msg := msg.(type) {
	case *wire.Welcome:
		if msg.Version != wire.Version {
			return errorf(CodeOther, "the receiver speaks version %d of the protocol, this host %d: install the same rdmaxfer on both", msg.Version, wire.Version)
		}
		if p.welcome != nil {
			return fmt.Errorf("%w: Welcome again", wire.ErrMalformed)
		}
		p.welcome = msg
		m.events <- msg
	case *wire.OpenLane:
		select {
		case l := <-m.loads: // nothing serves that could look at these
			p.opened = 0            // each was asked for: a session may measure as often as it likes
			p.TCP, p.udp = nil, nil // the receiver opens no other lane than this
			switch l.Transport {
			case TransportTCP:
				p.TCP = l.Serve
			case TransportUDP:
				p.udp = l.Serve
			}
			p.welcome.ExtentSize = uint32(l.Size)
			p.Source.extentSize = int64(l.Size)
		default:
			return fmt.Errorf("%w: a lane that was not asked for", wire.ErrMalformed)
		}
		return p.beginLane(msg)
	case *wire.LaneDown:
		p.laneDown(msg.ID)
	case *wire.Measuring, *wire.Measured, *wire.ToolReady, *wire.ToolEnded, *wire.VerbsEnd, *wire.VerbsReady, *wire.VerbsOver, *wire.Hardware:
		if _, over := msg.(*wire.Measured); over {
			p.endLanes()
		}
		select {
		case m.events <- msg:
		default:
			return fmt.Errorf("%w: unexpected %T", wire.ErrMalformed, msg)
		}
	case *wire.Abort:
		return p.s.fromPeer(msg)
	default:
		return fmt.Errorf("%w: unexpected %T", wire.ErrMalformed, msg)
	}
	return nil
}

// Ended is why the session is over; nil while it is good for another load.
func (m *Meter) Ended() error { return m.err }

// Measure has the receiver pull. An error may be the load's, or the session's end.
func (m *Meter) Measure(ctx context.Context, l Load) (*Measurement, error) {
	if m.err != nil {
		return nil, m.err
	}
	ask := &wire.Measure{
		Transport: l.Transport, Op: l.Op, Size: uint32(l.Size), Depth: uint16(l.Depth), Extents: uint32(measured / l.Size),
		Warmup: int64(l.Warmup), Nanoseconds: int64(l.Duration), Interval: int64(l.Interval), Count: l.Count,
	}
	select { // one that the receiver never came for
	case <-m.loads:
	default:
	}
	ctx, cancel := context.WithTimeoutCause(ctx, openLimit+l.Warmup+l.Duration+2*graceToMeasure,
		errorf(CodeConnect, "the receiver lives, and has not said for too long what it has measured"))
	defer cancel()
	m.loads <- l
	if err := m.say(ask); err != nil {
		return nil, err
	}
	var r Measurement
	var began CPU
	var at time.Time
	var work *worker
	defer func() {
		if work != nil {
			work.stop()
		}
	}()
	for {
		msg, err := m.event(ctx)
		if err != nil {
			return nil, err
		}
		now, cpu := time.Now(), spent()
		switch msg := msg.(type) {
		case *wire.Measuring:
			r.Remote = Printable(msg.Detail)
			began, at = cpu, now
			r.LocalMemory = memoryUsed()
			if l.Count && work == nil {
				work = startCounting()
			}
		case *wire.Measured:
			if msg.Code != 0 {
				return nil, errorf(peerCode(msg.Code), "%s", Printable(msg.Reason))
			}
			if at.IsZero() || msg.Nanoseconds == 0 || msg.Extents == 0 {
				return nil, errorf(CodeOther, "%w: measured nothing, or before it began", wire.ErrMalformed)
			}
			if work != nil && msg.Work != nil {
				done := work.stop()
				work = nil
				r.LocalWork, r.OtherWork = &done, &Work{msg.Work.Crossings, msg.Work.Allocations, msg.Work.SystemCalls}
			}
			r.LocalCPU, r.LocalTime = cpu.since(began), now.Sub(at)
			r.Local = m.local()
			return &r, r.fill(msg, l.Size)
		}
	}
}

// Hardware asks the receiver what its host is.
func (m *Meter) Hardware(ctx context.Context) (*wire.Hardware, error) {
	if m.err != nil {
		return nil, m.err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, openLimit, errorf(CodeConnect, "the receiver lives, and has not said for too long what its host is"))
	defer cancel()
	if err := m.say(&wire.AskHardware{}); err != nil {
		return nil, err
	}
	msg, err := m.event(ctx)
	if err != nil {
		return nil, err
	}
	h, ok := msg.(*wire.Hardware)
	if !ok {
		return nil, m.wrong(msg)
	}
	return h, nil
}

// endLanes ends what still serves, and waits for it.
func (p *push) endLanes() {
	p.mu.Lock()
	for _, cancel := range p.serving {
		cancel()
	}
	p.mu.Unlock()
	p.lanes.Wait()
}

// say tells the receiver something. What can't be told ends the session, as all that asks
// [Meter.Ended] afterwards must know.
func (m *Meter) say(msg wire.Message) error {
	err := m.p.s.Send(msg)
	if m.err == nil {
		m.err = err
	}
	return err
}

func (m *Meter) event(ctx context.Context) (wire.Message, error) {
	select {
	case msg := <-m.events:
		return msg, nil
	case m.err = <-m.ended:
		return nil, m.err
	case <-ctx.Done():
	case <-m.p.ctx.Done():
		ctx = m.p.ctx
	}
	m.err = causeOf(ctx, ctx.Err()) // an answer would be taken for that to the next load
	return nil, m.err
}

// local is what the newest lane ran on.
func (m *Meter) local() (detail string) {
	m.p.mu.Lock()
	defer m.p.mu.Unlock()
	for id, lane := range m.p.lane {
		detail = lane.Detail
		delete(m.p.lane, id)
	}
	return detail
}

func (r *Measurement) fill(msg *wire.Measured, size int) error {
	r.Extents = msg.Extents
	r.Bytes = msg.Extents * int64(size)
	r.Datagrams, r.Lost = msg.Datagrams, msg.Lost
	r.Elapsed = time.Duration(msg.Nanoseconds)
	r.Other = cpuOf(msg.CPU)
	r.OtherMemory = Memory{msg.Memory.Anonymous, msg.Memory.Pinned, msg.Memory.Peak}
	r.Latency = NewLatency()
	for i, took := range msg.Took {
		if err := r.Latency.RecordValues(took, msg.Times[i]); err != nil {
			return errorf(CodeOther, "%w: a time of %d ns", wire.ErrMalformed, took)
		}
	}
	return nil
}
