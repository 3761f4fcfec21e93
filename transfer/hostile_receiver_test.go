package transfer

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// badReceiver is a receiver that a Sender has greeted.
type badReceiver struct {
	*hostile
	*engine
	end  *end
	over chan struct{}
}

// againstSender begins a transfer of two files with a hostile receiver, with the
// sender's Hello heard and not answered.
func againstSender(t *testing.T, ctx context.Context, transport string) *badReceiver {
	t.Helper()
	return against(t, ctx, func(s *Sender) { s.Transport = transport })
}

// againstSenderOver is againstSender with another end of RDMA.
func againstSenderOver(t *testing.T, rdma ServeTransport) *badReceiver {
	t.Helper()
	return against(t, t.Context(), func(s *Sender) { s.RDMA = rdma })
}

func against(t *testing.T, ctx context.Context, change func(*Sender)) *badReceiver {
	t.Helper()
	e := newEngine(t, nil, [2]string{"a", "hello"}, [2]string{"b", ""})
	change(&e.Sender)
	a, b := sessions(t)
	bad := &badReceiver{hostile: newHostile(t, b), engine: e, end: new(end), over: make(chan struct{})}
	e.Sender.Observer = bad.end
	go func() {
		defer close(bad.over)
		bad.end.Result, bad.end.err = e.Sender.over(ctx, a, nil)
	}()
	await[*wire.Hello](bad.hostile)
	return bad
}

func (b *badReceiver) finish() *end {
	b.t.Helper()
	synctest.Wait()
	b.hostile.s.Close()
	<-b.over
	return b.end
}

var welcome = &wire.Welcome{Version: wire.Version, ExtentSize: DefaultExtentSize, Entries: 100}

func repeat(n int, m wire.Message) (list []wire.Message) {
	for range n {
		list = append(list, m)
	}
	return list
}

func TestSenderRefusesWhatNoReceiverSays(t *testing.T) {
	receipts := []wire.Message{receipt(0), receipt(1)}
	lane := &wire.OpenLane{ID: 1, Depth: 1, RDMA: &wire.RDMALane{QP: wire.QueuePair{MTU: 1}}}
	var lanes []wire.Message
	for id := range uint32(maxOpened + 1) {
		lanes = append(lanes, &wire.OpenLane{ID: id, Depth: 1, RDMA: lane.RDMA})
	}
	for name, messages := range map[string][]wire.Message{
		"Welcome again":            {welcome},
		"Hello":                    {hello(VerifyBLAKE3)},
		"Entry":                    {entry(0, "a", 1)},
		"ManifestEnd":              {&wire.ManifestEnd{}},
		"LaneAnswer":               {&wire.LaneAnswer{}},
		"Vouch":                    {vouch(0)},
		"Digests":                  {&wire.Digests{}},
		"a third file landed":      {&wire.Landed{File: 2}},
		"the last file landed":     {&wire.Landed{File: 1<<32 - 1}},
		"a file landed too often":  repeat(maxAttempts+1, &wire.Landed{File: 1}),
		"a receipt of no file":     {receipt(2)},
		"a failure of no file":     {&wire.FileFailed{File: 2}},
		"done before the end":      {receipt(0), &wire.Done{Files: 1}},
		"more landed than said":    append(receipts, &wire.Done{Files: 3}),
		"fewer landed than said":   append(receipts, &wire.Done{Files: 1}),
		"a failed one landed":      {receipt(0), &wire.FileFailed{File: 1, Code: 7}, &wire.Done{Files: 2}},
		"lanes without end":        lanes,
		"a lane that is there":     {lane, lane},
		"done before anything was": {&wire.Done{}},
	} {
		synctest.Test(t, func(t *testing.T) {
			bad := againstSender(t, t.Context(), TransportAuto)
			for id := range uint32(maxOpened + 1) { // the lanes that it will open
				bad.lane.Prepare(t.Context(), nil, LaneParams{ID: id, Depth: 1}, new(wire.OpenLane))
			}
			bad.say(welcome, &wire.Plan{Transport: TransportTCP})
			await[*wire.ManifestEnd](bad.hostile) // else a word about an entry comes too early in any case
			bad.say(messages...)
			if end := bad.finish(); !errors.Is(end.err, wire.ErrMalformed) {
				t.Errorf("%s: %v", name, end.err)
			}
		})
	}
}

// TestFileThatFailsHereAndLandsThere was in the receiver's hands already: both are right.
func TestFileThatFailsHereAndLandsThere(t *testing.T) {
	for files, want := range map[uint32]Code{1: CodePartial, 2: CodePartial, 3: CodeOther} {
		synctest.Test(t, func(t *testing.T) {
			bad := againstSender(t, t.Context(), TransportAuto)
			bad.say(welcome, &wire.Plan{Transport: TransportTCP})
			await[*wire.ManifestEnd](bad.hostile)
			bad.engine.Sender.Source.failed(1, errorf(CodeLocalIO, "it changed"))
			bad.say(receipt(0), receipt(1), &wire.Done{Files: files})
			if end := bad.finish(); CodeOf(end.err) != want {
				t.Errorf("%d landed: %v", files, end.err)
			}
		})
	}
}

func TestSenderRefusesStrangeGreetings(t *testing.T) {
	for name, c := range map[string]struct {
		m     wire.Message
		code  Code
		words string
	}{
		"version":         {&wire.Welcome{Version: 99, ExtentSize: mib}, CodeOther, "version 99"},
		"not Welcome":     {&wire.Ping{}, CodeConnect, "is gone"},
		"something else":  {&wire.Plan{}, CodeOther, "instead of Welcome"},
		"no reason given": {&wire.Abort{}, CodeOther, "peer"},
		"integrity":       {&wire.Abort{Code: uint8(CodeIntegrity), Reason: "bits"}, CodeIntegrity, "bits"},
	} {
		synctest.Test(t, func(t *testing.T) {
			bad := againstSender(t, t.Context(), TransportAuto)
			bad.say(c.m)
			t.Log(name)
			wantCode(t, bad.finish().err, c.code, c.words)
		})
	}
}

// TestSenderKeepsToWhatItsUserSaid, whatever lane the receiver asks for: nothing
// falls back silently, and nothing pins more than its share.
func TestSenderKeepsToWhatItsUserSaid(t *testing.T) {
	rdma := func(depth uint16) *wire.OpenLane {
		return &wire.OpenLane{ID: 1, Depth: depth, RDMA: &wire.RDMALane{QP: wire.QueuePair{MTU: 1}}}
	}
	tcp := &wire.OpenLane{ID: 1, Depth: 16, TCP: &wire.TCPLane{}}
	for _, c := range []struct {
		transport string
		open      *wire.OpenLane
		extent    uint32
		reason    string
	}{
		{TransportAuto, rdma(16), mib, ""},
		{TransportAuto, tcp, mib, ""},
		{TransportRDMA, rdma(16), mib, ""},
		{TransportTCP, tcp, mib, ""},
		{TransportRDMA, tcp, mib, "told to use rdma"},
		{TransportTCP, rdma(16), mib, "told to use tcp"},
		{TransportAuto, rdma(64), mib, ""},
		{TransportAuto, rdma(65), mib, "in flight"},
		{TransportAuto, rdma(1024), wire.MaxExtent, "in flight"},
	} {
		synctest.Test(t, func(t *testing.T) {
			bad := againstSender(t, t.Context(), c.transport)
			for _, m := range []ServeTransport{bad.Sender.RDMA, bad.Sender.TCP} {
				m.(*memory).Prepare(t.Context(), nil, LaneParams{ID: 1, Depth: 1}, new(wire.OpenLane))
			}
			bad.say(&wire.Welcome{Version: wire.Version, ExtentSize: c.extent}, c.open)
			if answer := await[*wire.LaneAnswer](bad.hostile); (answer.Reason == "") != (c.reason == "") {
				t.Errorf("--transport %s, %+v: answered %q", c.transport, c.open, answer.Reason)
			} else if c.reason != "" {
				wantCode(t, errors.New(answer.Reason), CodeOther, c.reason)
			}
			bad.finish()
		})
	}
}

// TestFailuresWithoutACodeAreFailures: the sender must not end with 0.
func TestFailuresWithoutACodeAreFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := againstSender(t, t.Context(), TransportAuto)
		bad.say(welcome, &wire.Plan{})
		await[*wire.ManifestEnd](bad.hostile)
		bad.say(&wire.FileFailed{File: 0, Reason: "because"}, &wire.FileFailed{File: 1}, receipt(1), &wire.Done{})
		wantCode(t, bad.finish().err, CodeOther, "none of 2", "because")
	})
}

// TestSenderInTheQueueWaits, as long as the receiver lives, and stops when it is
// told to.
func TestSenderInTheQueueWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancelCause(t.Context())
		bad := againstSender(t, ctx, TransportAuto)
		time.Sleep(time.Hour)
		select {
		case <-bad.over:
			t.Fatal(bad.end.err)
		default:
		}
		go func() {
			await[*wire.Abort](bad.hostile)
			bad.hostile.s.Close()
		}()
		stop(os.ErrProcessDone)
		<-bad.over
		if !errors.Is(bad.end.err, os.ErrProcessDone) {
			t.Error(bad.end.err)
		}
	})
}

// TestReasonOfAnyBytesArrives: a path on the sender may be anything.
func TestReasonOfAnyBytesArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := againstSender(t, t.Context(), TransportAuto)
		bad.say(welcome, &wire.Plan{})
		await[*wire.ManifestEnd](bad.hostile)
		bad.Source.files[0].path = "/data/\xff\x1b/a"
		bad.Source.Fail(wire.Request{}, errors.New("it broke"))
		failed := await[*wire.FileFailed](bad.hostile)
		wantCode(t, errors.New(failed.Reason), CodeOther, "/data/", "it broke")
		bad.finish()
	})
}

// TestSenderFreesALaneThatTheReceiverGaveUp: its own end may not have noticed.
func TestSenderFreesALaneThatTheReceiverGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := againstSender(t, t.Context(), TransportAuto)
		bad.lane.Prepare(t.Context(), nil, LaneParams{ID: 1, Depth: 1}, new(wire.OpenLane))
		bad.say(welcome, &wire.OpenLane{ID: 1, Depth: 1, RDMA: &wire.RDMALane{QP: wire.QueuePair{MTU: 1}}})
		await[*wire.LaneAnswer](bad.hostile)
		synctest.Wait()
		freed := func() bool {
			select {
			case <-bad.lane.lanes[1].broken:
				return true
			default:
				return false
			}
		}
		if freed() {
			t.Error("the lane ended by itself")
		}
		bad.say(&wire.LaneDown{ID: 2, Reason: "none of yours"}, &wire.LaneDown{ID: 1, Reason: "no answer"})
		synctest.Wait()
		if !freed() {
			t.Error("the lane's end is still held")
		}
		bad.finish()
	})
}

// TestSenderHoldsNoMoreLanesThanAgreed: they cost memory; the next one is refused,
// and there is room again when one has ended.
func TestSenderHoldsNoMoreLanesThanAgreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := againstSender(t, t.Context(), TransportAuto)
		most := uint32(maxAlive(bad.Sender.Lanes))
		open := func(id uint32) string {
			bad.lane.Prepare(t.Context(), nil, LaneParams{ID: id, Depth: 1}, new(wire.OpenLane))
			bad.say(&wire.OpenLane{ID: id, Depth: 1, RDMA: &wire.RDMALane{QP: wire.QueuePair{MTU: 1}}})
			return await[*wire.LaneAnswer](bad.hostile).Reason
		}
		bad.say(welcome)
		for id := range most {
			if reason := open(id); reason != "" {
				t.Errorf("lane %d: %s", id, reason)
			}
		}
		wantCode(t, errors.New(open(most)), CodeOther, "at once")
		bad.say(&wire.LaneDown{ID: 0, Reason: "no use"})
		synctest.Wait()
		if reason := open(most + 1); reason != "" {
			t.Error(reason)
		}
		bad.finish()
	})
}
