//go:build linux && cgo

package ibverbs

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/rdmaxfer/rdmaxfer/ibverbs/internal/fakeverbs"
)

// fakeLoop is a loop of one queue pair of the fake, with memory of its own: what goes out,
// and from the middle on what comes in.
func fakeLoop(t *testing.T, op Opcode, change func(*LoopConfig)) (*CQ, LoopConfig, []byte) {
	t.Helper()
	qp, cq := fakes()
	fakeverbs.Reset(1<<30, 0, 0)
	memory := make([]byte, 1024)
	pin := new(runtime.Pinner)
	pin.Pin(&memory[0])
	t.Cleanup(pin.Unpin)
	q := LoopQueue{QP: qp, Send: SendWR{Opcode: op, NumSGE: 1}, Recv: RecvWR{ID: LoopRecvID, NumSGE: 1}}
	q.Send.SGE[0] = SGE{Addr: addressOf(memory), Length: 8}
	q.Recv.SGE[0] = SGE{Addr: addressOf(memory[512:]), Length: 8}
	c := LoopConfig{Queues: []LoopQueue{q}, Depth: 4, Chain: 1, Signal: 1, Repost: 1, Places: 1, Stride: 64}
	if change != nil {
		change(&c)
	}
	return cq, c, memory
}

func newPump(t *testing.T, cq *CQ, c LoopConfig) *Pump {
	t.Helper()
	p, err := cq.NewPump(c)
	if err != nil {
		t.Fatalf("%+v: %v", c, err)
	}
	return p
}

func addressOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&b[0]))) }

// A pump posts what it was told to, chained, signalled and placed as it was told, never
// more than its depth, and its last request tells when all are done.
func TestPumpPostsAsItIsTold(t *testing.T) {
	for _, c := range []struct{ depth, chain, signal, places, messages int }{
		{1, 1, 1, 1, 1}, {1, 1, 1, 1, 7}, {4, 1, 1, 1, 9}, {4, 4, 4, 3, 13}, {8, 3, 5, 2, 100}, {128, 64, 100, 1, 1000}, {5, 64, 5, 5, 6}, {3, 2, 2, 1, 64},
	} {
		cq, conf, memory := fakeLoop(t, OpWrite, func(l *LoopConfig) {
			l.Depth, l.Chain, l.Signal, l.Places = c.depth, c.chain, c.signal, c.places
			l.Queues[0].Send.RemoteAddr = 1 << 40
		})
		fakeverbs.Carry(false)
		p := newPump(t, cq, conf)
		done, err := p.Run(t.Context(), 0, 0, int64(c.messages))
		all, most := fakeverbs.Carried()
		if err != nil || done.Sent != int64(c.messages) || len(all) != c.messages || most > c.depth {
			t.Fatalf("%+v: %d sent, %d posted, %d at once, %v", c, done.Sent, len(all), most, err)
		}
		chained, open, doorbells := 0, 0, int64(0)
		for i, s := range all {
			if at := uint64(i % c.places * 64); s.ID != uint64(i) || s.Addr != addressOf(memory)+at || s.Remote != 1<<40+at {
				t.Fatalf("%+v: message %d is %+v", c, i, s)
			}
			if open++; s.Signaled {
				open = 0
			}
			if chained++; !s.Chained {
				chained = 1
				doorbells++
			}
			if open >= c.signal || chained > c.chain {
				t.Fatalf("%+v: message %d: %d without a signal, %d chained", c, i, open, chained)
			}
		}
		if !all[len(all)-1].Signaled || done.Posts != doorbells {
			t.Errorf("%+v: the last is %+v; %d doorbells of %d counted", c, all[len(all)-1], done.Posts, doorbells)
		}
		// It goes on where it was.
		if done, err := p.Run(t.Context(), 0, 0, 3); err != nil || done.Sent != 3 {
			t.Errorf("%+v: again: %+v, %v", c, done, err)
		}
	}
}

func TestPumpCountsWithinItsTime(t *testing.T) {
	cq, conf, _ := fakeLoop(t, OpSend, nil)
	conf.Queues[0].Send.SGE[0].Addr = 0
	fakeverbs.Carry(false)
	p := newPump(t, cq, conf)
	done, err := p.Run(t.Context(), time.Millisecond, 5*time.Millisecond, 0)
	if err != nil || done.Counted == 0 || done.Counted >= done.Sent || done.Took <= 0 || done.Took > 5*time.Millisecond {
		t.Errorf("%+v, %v", done, err)
	}
}

// Receives that were used are posted again, so many at a time, into the next places.
func TestPumpTakesWhatComes(t *testing.T) {
	cq, conf, _ := fakeLoop(t, OpSend, func(l *LoopConfig) { l.Depth, l.Repost = 0, 4 })
	ctx, cancel := context.WithCancelCause(t.Context())
	fakeverbs.Carry(false)
	for range 10 {
		fakeverbs.Receive(LoopRecvID)
	}
	p := newPump(t, cq, conf)
	enough := errors.New("enough")
	time.AfterFunc(10*time.Millisecond, func() { cancel(enough) })
	done, err := p.Run(ctx, 0, 0, 0)
	if !errors.Is(err, enough) || done.Received != 10 || fakeverbs.Receives() != 8 {
		t.Errorf("%+v, %v, %d posted again", done, err, fakeverbs.Receives())
	}
	if _, err := p.Run(t.Context(), 0, 0, 1); err == nil {
		t.Error("it ran again once it was stopped")
	}
}

// What came before a pump was told to end is taken, whenever it is told.
func TestPumpTakesWhatCameBefore(t *testing.T) {
	cq, conf, _ := fakeLoop(t, OpSend, func(l *LoopConfig) { l.Depth = 0 })
	fakeverbs.Carry(false)
	for range 100 {
		fakeverbs.Receive(LoopRecvID)
	}
	p := newPump(t, cq, conf)
	p.l.stop()
	if n := sysPump(&p.l.state, p.l.each, 0, 0); n != 0 || p.received() != 100 {
		t.Errorf("%d, %d of 100 taken", n, p.received())
	}
}

func TestLoopsSayWhatFailed(t *testing.T) {
	var wce *WCError
	for name, c := range map[string]struct {
		op       Opcode
		room     int
		status   WCStatus
		receives int
		is       func(error) bool
	}{
		"a completion": {OpWrite, 100, WCRemAccessErr, 0, func(err error) bool { return errors.As(err, &wce) && wce.Status == WCRemAccessErr }},
		"no room to send": {OpWrite, 2, WCSuccess, 0, func(err error) bool {
			return errors.Is(err, syscall.ENOMEM) && strings.Contains(err.Error(), "ibv_post_send") && strings.Contains(err.Error(), "holds 8")
		}},
		"no room to receive": {OpSend, 1, WCSuccess, 2, func(err error) bool {
			return errors.Is(err, syscall.ENOMEM) && strings.Contains(err.Error(), "ibv_post_recv")
		}},
	} {
		cq, conf, _ := fakeLoop(t, c.op, func(l *LoopConfig) {
			if c.receives > 0 {
				l.Depth = 0
			}
		})
		fakeverbs.Reset(c.room, 0, int(c.status))
		fakeverbs.Carry(false)
		for range c.receives {
			fakeverbs.Receive(LoopRecvID)
		}
		p := newPump(t, cq, conf)
		if _, err := p.Run(t.Context(), 0, 0, 50); !c.is(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Each message waits for the one before it: of reads for its completion, of sends for a
// receive, of writes for the byte.
func TestPingPongPlays(t *testing.T) {
	for name, c := range map[string]struct {
		op     Opcode
		signal int
	}{"read": {OpRead, 1}, "send": {OpSend, 3}, "write": {OpWrite, 3}} {
		cq, conf, memory := fakeLoop(t, c.op, func(l *LoopConfig) {
			l.Signal, l.Places, l.GiveWay = c.signal, 2, 1
			if c.op == OpWrite { // the peer's answer is a copy of the message
				l.Queues[0].Send.RemoteAddr = l.Queues[0].Recv.SGE[0].Addr
			}
		})
		fakeverbs.Carry(true)
		g, err := cq.NewPingPong(conf)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		trips := make([]int64, 300)
		n, err := g.Play(t.Context(), trips, 0)
		all, most := fakeverbs.Carried()
		if n != 300 || err != nil || len(all) != 300 || g.Posts() != 300 || most > conf.Depth {
			t.Errorf("%s: %d trips, %d posts, %d at once, %v", name, n, len(all), most, err)
		}
		// The 150th round of both places.
		if c.op == OpWrite && (memory[512+7] != 150 || memory[512+64+7] != 150) {
			t.Errorf("the last two writes are %d and %d", memory[512+7], memory[512+64+7])
		}
		if n, err := g.Play(t.Context(), trips, time.Nanosecond); n != 1 || err != nil {
			t.Errorf("%s: no time left: %d, %v", name, n, err)
		}
	}
}

// Who waits for a message that does not come is told to end.
func TestPingPongEnds(t *testing.T) {
	for name, op := range map[string]Opcode{"send": OpSend, "write": OpWrite, "read": OpRead} {
		cq, conf, _ := fakeLoop(t, op, func(l *LoopConfig) { l.Depth = 64 })
		conf.Queues[0].Send.Flags = 0
		g, err := cq.NewPingPong(conf)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Millisecond, cancel)
		if n, err := g.Play(ctx, make([]int64, 4), 0); n != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %d trips, %v", name, n, err)
		}
	}
}

// What a place has from the round before is not taken for the next message, however many
// places there are.
func TestPingPongOfWritesWaits(t *testing.T) {
	for _, places := range []int{1, 2, 255, 256, 512} {
		cq, conf, _ := fakeLoop(t, OpWrite, func(l *LoopConfig) { l.Places, l.Stride, l.Depth = places, 8, 64 })
		memory := make([]byte, 2*8*places)
		pin := new(runtime.Pinner)
		pin.Pin(&memory[0])
		t.Cleanup(pin.Unpin)
		q := &conf.Queues[0]
		q.Send.SGE[0].Addr, q.Recv.SGE[0].Addr = addressOf(memory), addressOf(memory[8*places:])
		q.Send.RemoteAddr = q.Recv.SGE[0].Addr
		fakeverbs.Carry(true)
		g, err := cq.NewPingPong(conf)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := g.Play(t.Context(), make([]int64, 3*places), 0); n != 3*places || err != nil {
			t.Errorf("%d places: %d trips, %v", places, n, err)
		}
		fakeverbs.Carry(false) // the peer answers no more
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if n, err := g.Play(ctx, make([]int64, 4), 0); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d places: %d trips without an answer, %v", places, n, err)
		}
		cancel()
	}
}

// A write that failed is why none comes back: who waits for that hears of it.
func TestPingPongOfWritesFails(t *testing.T) {
	cq, conf, _ := fakeLoop(t, OpWrite, nil)
	fakeverbs.Reset(1<<30, 0, int(WCRemAccessErr))
	fakeverbs.Carry(false)
	g, err := cq.NewPingPong(conf)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var wce *WCError
	if _, err := g.Play(ctx, make([]int64, 4), 0); !errors.As(err, &wce) || wce.Status != WCRemAccessErr {
		t.Errorf("%v", err)
	}
	if _, err := g.Play(ctx, make([]int64, 4), 0); err == nil || errors.As(err, &wce) {
		t.Errorf("a game that failed goes on: %v", err)
	}
}

// What completes there and is not the loop's ends it: it would be counted for what it is not.
func TestLoopsMeetStrangers(t *testing.T) {
	for name, id := range map[string]uint64{"a request of before": 7, "another queue's": 9 << 40, "another's receive": LoopRecvID | 3, "a receive, of a loop without": LoopRecvID} {
		cq, conf, _ := fakeLoop(t, OpWrite, func(l *LoopConfig) {
			if l.Depth = 0; name == "a receive, of a loop without" {
				l.Queues[0].Recv.NumSGE = 0
			}
		})
		fakeverbs.Carry(false)
		fakeverbs.Receive(id)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if _, err := newPump(t, cq, conf).Run(ctx, 0, 0, 0); err == nil || !strings.Contains(err.Error(), "not this loop's") {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

// Receives are posted again by as many as there are, where those are fewer than was asked for.
func TestPumpWithFewReceives(t *testing.T) {
	cq, conf, _ := fakeLoop(t, OpSend, func(l *LoopConfig) { l.Depth, l.Repost, l.Queues[0].Posted = 0, 16, 2 })
	fakeverbs.Carry(false)
	for range 4 {
		fakeverbs.Receive(LoopRecvID)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(5*time.Millisecond, cancel)
	if done, err := newPump(t, cq, conf).Run(ctx, 0, 0, 0); done.Received != 4 || fakeverbs.Receives() != 4 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d came, %d were posted again, %v", done.Received, fakeverbs.Receives(), err)
	}
}

func TestLoopsRefuseNegativeTimes(t *testing.T) {
	cq, conf, _ := fakeLoop(t, OpRead, nil)
	p := newPump(t, cq, conf)
	g, err := cq.NewPingPong(conf)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"time":     func() error { _, err := p.Run(t.Context(), 0, -1, 0); return err },
		"warm-up":  func() error { _, err := p.Run(t.Context(), -1, 0, 0); return err },
		"messages": func() error { _, err := p.Run(t.Context(), 0, 0, -1); return err },
		"game":     func() error { _, err := g.Play(t.Context(), make([]int64, 1), -1); return err },
		"reads":    func() error { return g.Answer(t.Context()) },
	} {
		if f() == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}

func TestLoopsRefuseWhatTheyCannotDo(t *testing.T) {
	for name, c := range map[string]struct {
		op     Opcode
		change func(*LoopConfig)
		game   bool
	}{
		"no queue":          {OpSend, func(l *LoopConfig) { l.Queues = nil }, false},
		"no place":          {OpSend, func(l *LoopConfig) { l.Places = 0 }, false},
		"a long chain":      {OpSend, func(l *LoopConfig) { l.Chain = MaxLoopChain + 1 }, false},
		"no chain":          {OpSend, func(l *LoopConfig) { l.Chain = 0 }, false},
		"many receives":     {OpSend, func(l *LoopConfig) { l.Repost = MaxLoopChain + 1 }, false},
		"never signalled":   {OpSend, func(l *LoopConfig) { l.Signal = 0 }, false},
		"two SGEs":          {OpSend, func(l *LoopConfig) { l.Queues[0].Send.NumSGE = 2 }, false},
		"another's receive": {OpSend, func(l *LoopConfig) { l.Queues[0].Recv.ID = 3 }, false},
		"an atomic":         {OpFetchAdd, nil, false},
		"not held":          {OpSend, func(l *LoopConfig) { l.Events = true }, false},
		"two to a game":     {OpSend, func(l *LoopConfig) { l.Queues = append(l.Queues, l.Queues[0]); l.Queues[1].Recv.NumSGE = 0 }, true},
		"reads unsignalled": {OpRead, func(l *LoopConfig) { l.Signal = 2 }, true},
		"no queue pair":     {OpSend, func(l *LoopConfig) { l.Queues[0].QP = nil }, false},
		"closed":            {OpSend, func(l *LoopConfig) { l.Queues[0].QP.h = nil }, false},
		"elsewhere":         {OpSend, func(l *LoopConfig) { l.Queues[0].QP, _ = fakes() }, false},
		"nothing written":   {OpWrite, func(l *LoopConfig) { l.Queues[0].Send.SGE[0].Length, l.Queues[0].Recv.SGE[0].Length = 0, 0 }, true},
		"two lengths":       {OpWrite, func(l *LoopConfig) { l.Queues[0].Recv.SGE[0].Length = 4 }, true},
		"writes to nowhere": {OpWrite, func(l *LoopConfig) { l.Queues[0].Recv.NumSGE = 0 }, true},
	} {
		cq, conf, _ := fakeLoop(t, c.op, c.change)
		_, err := cq.NewPump(conf)
		if c.game {
			_, err = cq.NewPingPong(conf)
		}
		if err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}
