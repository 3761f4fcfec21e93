package compare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// verbsTruth is a meter that knows how fast the verbs are.
type verbsTruth struct {
	asked []transfer.VerbsLoad
	dies  int // at this load; 0: never
	err   error
}

func (m *verbsTruth) Ended() error { return m.err }

func (m *verbsTruth) Verbs(_ context.Context, _ transfer.Verbs, l transfer.VerbsLoad) (*transfer.VerbsMeasurement, error) {
	m.asked = append(m.asked, l)
	if len(m.asked) == m.dies {
		m.err = errGone
	}
	if m.err != nil {
		return nil, m.err
	}
	r := &transfer.VerbsMeasurement{Local: "rxe_b", Remote: "rxe_a", Here: transfer.CPU{User: time.Second}, There: transfer.CPU{System: time.Second}, Lost: 1}
	r.Messages, r.Sent, r.Elapsed, r.MTU = 1000, 1250, time.Second, 4096
	r.Signal = 32 // whatever was asked for
	if l.Both {
		r.Back = 1e6
	}
	if l.Latency {
		r.Trips = transfer.NewLatency()
		return r, r.Trips.RecordValues(int64(time.Millisecond), 1000)
	}
	return r, nil
}

func TestVerbsAreReportedAsUsed(t *testing.T) {
	m := new(verbsTruth)
	r, err := BenchVerbs(t.Context(), m, nil, VerbsOptions{Op: "write", Size: 4096, Duration: time.Second, WarmUp: time.Second / 4, Rounds: 3, Both: true, MTU: 1024, Peers: fakePeers(1e6, time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	// perftest's own values where nothing was said.
	if a := m.asked[0]; a.Depth != 128 || a.Signal != 100 || a.QPs != 1 || a.Chain != 1 || a.Buffers != 1 || a.MTU != 3 || len(m.asked) != 3 {
		t.Errorf("%d times %+v", len(m.asked), a)
	}
	want := 1000*4096.0 + 1e6 // both directions
	if r.Rate.Median != want || r.Messages != 3000 || r.Lost != 3 || r.Rounds != 3 || r.MTU != 4096 || r.Signal != 32 || math.Abs(r.CPU.Here.User-1e9/(1.25*want)) > 1e-6 {
		t.Errorf("%+v", r)
	}
	if len(r.Peers) != 1 || math.Abs(r.Peers[0].RateRatio.Median-want/1e6) > 1e-9 || r.Peers[0].Trip != nil {
		t.Errorf("%+v", r.Peers)
	}

	r, err = BenchVerbs(t.Context(), m, nil, VerbsOptions{Op: "write", Latency: true, Size: 64, Iterations: 1000, Peers: fakePeers(1e6, time.Millisecond/2)})
	if err != nil {
		t.Fatal(err)
	}
	if a := m.asked[3]; a.Depth != 1 || a.Signal != 1 || a.Iterations != 1000 {
		t.Errorf("%+v", a)
	}
	if math.Abs(r.Trip.Median-1e-3) > 1e-6 || len(r.Trips.Percentiles) != 3 || len(r.Peers) != 1 || math.Abs(r.Peers[0].TripRatio.Median-2) > 0.01 {
		t.Errorf("%+v", r)
	}
	var line, text bytes.Buffer
	if err := r.WriteJSON(&line); err != nil || !json.Valid(line.Bytes()) || bytes.Count(line.Bytes(), []byte("\n")) != 1 {
		t.Errorf("%s, %v", line.Bytes(), err)
	}
	if err := r.WriteText(&text); err != nil || !strings.Contains(text.String(), "ours ÷ its: 2.00") {
		t.Errorf("%s, %v", text.Bytes(), err)
	}
}

// A peer that fails is left out with its reason; the session's end is an error.
func TestVerbsPeersThatFail(t *testing.T) {
	gone := errors.New("the session is gone")
	m := new(verbsTruth)
	peers := fakePeers(1, 1)[:1]
	peers[0].Rate = func(context.Context, PeerLoad) (*PeerSample, error) { return nil, errors.New("exit status 1") }
	r, err := BenchVerbs(t.Context(), m, nil, VerbsOptions{Op: "write", Size: 64, Rounds: 2, Peers: peers})
	if err != nil || len(r.Peers) != 0 || len(r.Skipped) != 1 || r.Skipped[0].Reason != "exit status 1" || r.Rounds != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	m.err = gone
	if r, err := BenchVerbs(t.Context(), goesOn{m}, nil, VerbsOptions{Op: "write", Size: 64}); !errors.Is(err, gone) || r != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

// goesOn is a session that outlives what fails in it.
type goesOn struct{ *verbsTruth }

func (goesOn) Ended() error { return nil }

// A session that ends in the first round leaves a report that says so.
func TestVerbsNothingMeasured(t *testing.T) {
	for _, latency := range []bool{false, true} {
		var words bytes.Buffer
		r, err := BenchVerbs(t.Context(), &verbsTruth{dies: 1}, nil, VerbsOptions{Op: "write", Latency: latency, Size: 64, Rounds: 3})
		if !errors.Is(err, errGone) || r == nil || r.Complete || r.Rounds != 0 || r.Reason != errGone.Error() {
			t.Fatalf("%+v, %v", r, err)
		}
		if err := r.WriteText(&words); err != nil || !strings.HasSuffix(words.String(), "\nNot complete, nothing was measured: "+errGone.Error()+"\n") {
			t.Errorf("%q, %v", words.String(), err)
		}
	}
}
