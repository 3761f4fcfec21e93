package tcpfallback

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// noRDMA is a transport that no host has.
type noRDMA struct{ transfer.PullTransport }

func (noRDMA) Paths(context.Context, transfer.PathQuery) ([]string, *wire.Paths, error) {
	return nil, nil, errors.New("no RDMA device")
}

// meter is a session that measures, with a receiver, whose end comes from the channel.
func (h *hosts) meter(ctx context.Context) (*transfer.Meter, <-chan *transfer.Result, <-chan error) {
	h.t.Helper()
	results, errs := make(chan *transfer.Result, 1), make(chan error, 1)
	go func() {
		s, err := h.l.Accept(ctx)
		if err != nil {
			errs <- err
			return
		}
		r := &transfer.Receiver{Listener: h.l, Sink: h.sink, Transport: transfer.TransportAuto, RDMA: noRDMA{}, TCP: Transport{}, UDP: Datagrams{}, Observer: silent{}}
		result, err := r.Receive(ctx, s)
		results <- result
		errs <- err
	}()
	m, err := transfer.OpenMeter(ctx, h.l.Addr().String(), h.key, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return m, results, errs
}

func load(size, depth int) transfer.Load {
	return transfer.Load{Transport: transfer.TransportTCP, Serve: Transport{Method: "copy"}, Size: size, Depth: depth, Warmup: 10 * time.Millisecond, Duration: 50 * time.Millisecond}
}

func TestLoadsAreMeasured(t *testing.T) {
	h := newHosts(t)
	m, results, errs := h.meter(t.Context())
	n := 0
	for _, size := range []int{1, 3000, 1 << 16, 1 << 20} {
		for _, depth := range []int{1, 2, 3, 16} {
			l := load(size, depth)
			method := Methods[1+n%(len(Methods)-1)] // in turn
			l.Serve = Transport{Method: method}
			r, err := m.Measure(t.Context(), l)
			if err != nil {
				t.Fatalf("%s, %d in flight of %d bytes: %v", method, depth, size, err)
			}
			n++
			if r.Extents < 1 || r.Bytes != r.Extents*int64(size) || r.Elapsed < l.Duration || r.LocalTime <= 0 || r.Local != "method="+method || r.Remote != r.Local {
				t.Errorf("%d in flight of %d bytes: %+v", depth, size, r)
			}
			// By Little's law as many are in flight as times sum up to: never more than asked for.
			count := r.Latency.TotalCount()
			if sum := r.Latency.Mean() * float64(count); count > r.Extents || sum > 1.01*float64(depth)*float64(r.Elapsed) {
				t.Errorf("%d in flight of %d bytes: %d times of %v on average, in %v", depth, size, count, time.Duration(r.Latency.Mean()), r.Elapsed)
			}
		}
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if r, err := <-results, <-errs; err != nil || r.Measured != n || r.Files != 0 {
		t.Errorf("the receiver: %+v, %v; want %d measured", r, err, n)
	}
	h.wantNames()
}

// A comparison of many rounds opens more lanes than a transfer may: each was asked for.
func TestASessionMeasuresAsOftenAsItLikes(t *testing.T) {
	h := newHosts(t)
	m, results, errs := h.meter(t.Context())
	l := load(1, 1)
	l.Warmup, l.Duration = 0, 1
	const times = 1100 // a transfer's bound is 1024
	for i := range times {
		if _, err := m.Measure(t.Context(), l); err != nil {
			t.Fatalf("measurement %d: %v", i+1, err)
		}
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if r, err := <-results, <-errs; err != nil || r.Measured != times {
		t.Errorf("the receiver: %+v, %v", r, err)
	}
}

// What can't be measured says why, and the next can be.
func TestLoadThatCannotBe(t *testing.T) {
	h := newHosts(t)
	m, _, errs := h.meter(t.Context())
	for _, c := range []struct {
		load transfer.Load
		code transfer.Code
	}{
		{transfer.Load{Transport: transfer.TransportRDMA, Op: "write", Size: 4096, Depth: 1, Duration: time.Millisecond}, transfer.CodeNoRDMA},
		{transfer.Load{Transport: "pigeon", Size: 4096, Depth: 1, Duration: time.Millisecond}, transfer.CodeUsage},
		{transfer.Load{Transport: transfer.TransportTCP, Serve: Transport{Method: "none"}, Size: 4096, Depth: 1, Duration: time.Millisecond}, transfer.CodeConnect},
		{load(1<<20, 17), transfer.CodeUsage},
	} {
		if r, err := m.Measure(t.Context(), c.load); transfer.CodeOf(err) != c.code || m.Ended() != nil {
			t.Errorf("%+v: %v, %v; want code %d, and the session to go on", c.load, r, err, c.code)
		}
	}
	if _, err := m.Measure(t.Context(), load(4096, 1)); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := <-errs; err != nil {
		t.Errorf("the receiver: %v", err)
	}
}

// A receiver that goes away in the middle ends the measurement.
func TestMeasureOfAReceiverThatEnds(t *testing.T) {
	h := newHosts(t)
	ctx, cancel := context.WithCancel(t.Context())
	m, _, errs := h.meter(ctx)
	l := load(4096, 4)
	l.Duration = time.Minute
	ended := make(chan error, 1)
	go func() {
		_, err := m.Measure(t.Context(), l)
		ended <- err
	}()
	cancel()
	if err := <-ended; err == nil || m.Ended() == nil {
		t.Errorf("it went on: %v, %v", err, m.Ended())
	}
	if _, err := m.Measure(t.Context(), load(4096, 1)); err == nil {
		t.Error("measured after the end")
	}
	m.Close()
	<-errs
}

// The delay of the way is what is measured: a proxy holds each request back.
func TestDelayIsMeasured(t *testing.T) {
	const delay = 20 * time.Millisecond
	lane := Transport{Method: "copy"}
	h := newHosts(t)
	m, _, errs := h.meter(t.Context())
	l := load(4096, 1)
	l.Duration = 400 * time.Millisecond
	l.Serve = slowTransport{lane, delay}
	r, err := m.Measure(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	if p50 := time.Duration(r.Latency.ValueAtQuantile(50)); p50 < delay || r.Extents > int64(r.Elapsed/delay)+1 {
		t.Errorf("%d extents in %v, each in %v; the way alone takes %v", r.Extents, r.Elapsed, p50, delay)
	}
	m.Close()
	<-errs
}

// slowTransport answers late: a fault, made on purpose.
type slowTransport struct {
	Transport
	delay time.Duration
}

func (s slowTransport) Answer(ctx context.Context, p transfer.LaneParams, open *wire.OpenLane, answer *wire.LaneAnswer) (transfer.Server, error) {
	made, err := s.Transport.Answer(ctx, p, open, answer)
	if err != nil {
		return nil, err
	}
	made.(*server).method = slowMethod{made.(*server).method, s.delay}
	return made, nil
}

type slowMethod struct {
	method
	delay time.Duration
}

func (s slowMethod) answer(conn net.Conn, src *transfer.Source, r wire.Request) (moved bool, err error) {
	time.Sleep(s.delay)
	return s.method.answer(conn, src, r)
}
