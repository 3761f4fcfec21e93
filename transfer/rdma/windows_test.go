package rdma

import (
	"errors"
	"runtime"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// TestClosingMakesNoWindows: nobody is to have what was asked for and not begun.
func TestClosingMakesNoWindows(t *testing.T) {
	ws := &windows{size: windowSize, jobs: make(chan *window, 2*maxWindows), made: make(chan *window, 2*maxWindows), wake: func() {}}
	for i := range int64(2) {
		ws.start(wire.Request{Offset: i * windowSize}, nil)
	}
	asked := ws.list
	ws.maker.Go(func() {
		for !ws.closing.Load() {
			runtime.Gosched()
		}
		ws.work()
	})
	if err := ws.close(); err != nil {
		t.Fatal(err)
	}
	for _, w := range asked {
		if !errors.Is(w.err, transfer.ErrNoWindow) {
			t.Errorf("the window at %d was tried: %v", w.off, w.err)
		}
	}
}
