package transfer

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// tools is a ToolServer of a test's.
type tools func(ctx context.Context, ready func(*wire.ToolReady) error, done <-chan struct{}) (CPU, error)

func (f tools) Serve(ctx context.Context, _ string, _ *wire.RunTool, ready func(*wire.ToolReady) error, done <-chan struct{}) (CPU, error) {
	return f(ctx, ready, done)
}

// measuring begins a session that measures, with a hostile sender; over gives the
// receiver's end of it.
func measuring(t *testing.T, with ToolServer) (h *hostile, over <-chan error) {
	t.Helper()
	return measuringWith(t, func(r *Receiver) { r.Tools = with })
}

func measuringWith(t *testing.T, with func(*Receiver)) (h *hostile, over <-chan error) {
	t.Helper()
	e := newEngine(t, nil)
	with(&e.Receiver)
	a, b := sessions(t)
	h = newHostile(t, a)
	end := make(chan error, 1)
	go func() {
		_, err := e.Receive(t.Context(), b)
		end <- err
	}()
	greeting := hello(VerifyNone)
	greeting.Measure = true
	h.say(greeting)
	if w := await[*wire.Welcome](h); w.Tools != (e.Tools != nil) {
		t.Errorf("%+v", w)
	}
	return h, end
}

func runTool() *wire.RunTool {
	return &wire.RunTool{Tool: wire.ToolIperf3, Size: 1, Depth: 1, Nanoseconds: 1}
}

func TestToolsAreRefusedUnlessAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, over := measuring(t, nil)
		h.say(runTool())
		if e := await[*wire.ToolEnded](h); e.Code != uint8(CodeUsage) || !strings.Contains(e.Reason, "recv --allow-peers") {
			t.Errorf("%+v", e)
		}
		h.say(&wire.ManifestEnd{}) // the session lives on
		synctest.Wait()            // it has heard that before the end
		h.s.Close()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
}

// A tool runs until the sender says so, or hangs up, or its time is over.
func TestToolsEndWithWhatTheyAreFor(t *testing.T) {
	serve := tools(func(ctx context.Context, ready func(*wire.ToolReady) error, done <-chan struct{}) (CPU, error) {
		if err := ready(&wire.ToolReady{Port: 1}); err != nil {
			return CPU{}, err
		}
		select {
		case <-done:
			return CPU{User: 5}, nil
		case <-ctx.Done():
			return CPU{}, context.Cause(ctx)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h, over := measuring(t, serve)
		for range 2 {
			h.say(runTool())
			await[*wire.ToolReady](h)
			h.say(&wire.ToolDone{})
			if e := await[*wire.ToolEnded](h); e.Code != 0 || e.CPU.User != 5 {
				t.Errorf("%+v", e)
			}
		}
		h.say(runTool())
		await[*wire.ToolReady](h)
		// The time is over by the receiver's clock; the sender's word comes late.
		e := await[*wire.ToolEnded](h)
		if e.Code != uint8(CodeConnect) || !strings.Contains(e.Reason, "not finished") {
			t.Errorf("%+v", e)
		}
		h.say(&wire.ToolDone{}, runTool())
		await[*wire.ToolReady](h)
		synctest.Wait() // the late word has not ended this one
		select {
		case m := <-h.heard:
			t.Errorf("%+v", m)
		default:
		}
		h.s.Close()
		at := time.Now()
		wantCode(t, <-over, CodeConnect)
		if late := time.Since(at); late > time.Second {
			t.Errorf("the program ran on for %v after its session was over", late)
		}
	})
}

func TestToolThatFailsIsNotTheSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, over := measuring(t, tools(func(_ context.Context, ready func(*wire.ToolReady) error, _ <-chan struct{}) (CPU, error) {
			return CPU{}, errors.Join(ready(&wire.ToolReady{Port: 1}), errors.New("exit status 3"))
		}))
		for range 2 {
			h.say(runTool())
			await[*wire.ToolReady](h)
			h.say(&wire.ToolDone{})
			if e := await[*wire.ToolEnded](h); e.Code != uint8(CodeOther) || !strings.Contains(e.Reason, "exit status 3") {
				t.Errorf("%+v", e)
			}
		}
		h.say(&wire.ToolDone{}, &wire.ToolDone{}) // of nothing
		err := <-over
		h.s.Close()
		if !errors.Is(err, wire.ErrMalformed) {
			t.Error(err)
		}
	})
}

// TestMeterBelievesNothingBeforeWelcome: there is nothing to ask until then.
func TestMeterBelievesNothingBeforeWelcome(t *testing.T) {
	l := listen(t)
	said := make(chan error, 1)
	go func() {
		s, err := l.Accept(t.Context())
		if err == nil {
			_, err = s.Receive() // Hello
		}
		if err == nil {
			err = s.Send(&wire.VerbsReady{})
		}
		said <- err
	}()
	m, err := OpenMeter(t.Context(), l.Addr().String(), Key{1}, nil)
	if err == nil {
		m.Close()
	}
	if !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("the receiver spoke before Welcome: %v", err)
	}
	if err := <-said; err != nil {
		t.Error(err)
	}
}
