package rdma

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// What a lane registers of its source at a time. A file is windowed by stretches of
// windowSize, made ahead by one while those before it move; what is shorter than
// windowLeast is read sooner than registered. maxWindows are the one that is asked
// from, the next, and one that is not given back yet.
const (
	windowSize  = 64 << 20
	windowLeast = 8 << 20
	maxWindows  = 3
)

// windows are the registered stretches of a lane's source files. They are made and
// ended by a goroutine of their own, which is what costs time; everything else is
// done by the one that serves.
type windows struct {
	pd     *ibverbs.PD
	access ibverbs.Access
	memory *Budget
	size   int // windowSize, or less where the budget says so
	least  int // windowLeast
	list   []*window
	jobs   chan *window // to be opened, or closed
	made   chan *window
	wake   func() // the one that serves, to collect what was made
	maker  sync.WaitGroup
	errs   []error // of closing, in the maker
	failed bool    // none are made any more
	had    bool    // some were
	named  atomic.Pointer[string]
	trial  *trial // whether they pay

	closing atomic.Bool // what is asked for is not made: a lane's end would wait for it
}

// window is one of them. It is the maker's until it comes back.
type window struct {
	file    uint32
	off     int64
	most    int // bytes; it has fewer where the file ends
	source  *os.File
	mapping *transfer.Window
	mr      *ibverbs.MR
	price   price // of making it
	err     error // why there is none
	back    bool  // from the maker: err and mr may be looked at
	ready   bool
	ending  bool
	lent    int // loans of it
}

// newWindows finds out whether pages of a file can be registered at all, and how much
// of them the budget allows, when there are to be so many lanes. source is one of Sources.
func newWindows(res *resources, source string, access ibverbs.Access, lanes int) *windows {
	ws := &windows{pd: res.pd, memory: res.memory, access: access, least: windowLeast}
	if ws.failed = source == SourcePool || res.ctx.CanRegisterReadOnly() != nil; ws.failed {
		ws.named.Store(&fromPool)
		return ws
	}
	if ws.size = ws.memory.takeWindows(lanes); ws.size == 0 {
		ws.failed = true
		ws.named.Store(&fromPool)
		return ws
	}
	ws.named.Store(&fromWindow)
	if source != SourceWindow {
		ws.trial = &trial{lanes: lanes}
		ws.named.Store(&fromPool)
	}
	// Room for all that can be under way: nobody waits but the maker.
	ws.jobs = make(chan *window, 2*maxWindows)
	ws.made = make(chan *window, 2*maxWindows)
	ws.wake = res.cq.Wake
	ws.maker.Go(ws.work)
	return ws
}

// work is the maker's.
func (ws *windows) work() {
	for w := range ws.jobs {
		switch {
		case w.ending:
			ws.errs = append(ws.errs, w.close())
			continue
		case ws.closing.Load():
			w.err = transfer.ErrNoWindow
		default:
			w.price.add(func() int64 {
				w.err = ws.open(w)
				return w.bytes()
			})
		}
		ws.made <- w
		ws.wake()
	}
}

// Where the bytes come from, as the summary line names it.
var (
	fromWindow = SourceWindow
	fromPool   = SourcePool
)

// source is fromWindow where they pay, as far as is known: files that can't be windowed, or
// are too short, make it fromPool unless others are.
func (ws *windows) source() string { return *ws.named.Load() }

func (ws *windows) open(w *window) (err error) {
	if w.mapping, err = transfer.OpenWindow(w.source, w.off, ws.least, w.most); err != nil {
		return err
	}
	if w.mr, err = ws.pd.RegisterMR(w.mapping.Mapping(), ws.access); err != nil {
		err = errors.Join(err, w.mapping.Close())
		w.mapping = nil
	}
	return err
}

// bytes is how many there are in it.
func (w *window) bytes() int64 {
	if w.mr == nil {
		return 0
	}
	return int64(len(w.mr.Bytes()))
}

// close deregisters, if there is something, and unmaps.
func (w *window) close() error {
	if w.mr == nil {
		return nil
	}
	return errors.Join(w.mr.Close(), w.mapping.Close())
}

// sge is where r's bytes are.
func (w *window) sge(r wire.Request) ibverbs.SGE { return w.mr.SGE(int(r.Offset-w.off), int(r.Length)) }

// covers reports whether r begins in the window.
func (w *window) covers(file uint32, off int64) bool {
	return w.file == file && off >= w.off && off-w.off < int64(w.most)
}

// collect takes what the maker has made.
func (ws *windows) collect() {
	for {
		select {
		case w := <-ws.made:
			w.back, w.ready = true, w.err == nil
			ws.trial.made(w)
			if w.err != nil && !errors.Is(w.err, transfer.ErrNoWindow) && !errors.Is(w.err, os.ErrClosed) {
				// Registered memory has come to its limit: the pool does it alone.
				ws.failed = true
			}
			ws.had = ws.had || w.ready
			ws.name()
		default:
			return
		}
	}
}

// find gives the window that r can be served from, nil if there is none yet.
func (ws *windows) find(r wire.Request) *window {
	ws.collect()
	if r.Count > 0 {
		return nil
	}
	if w := ws.at(r.File, r.Offset); w != nil && w.ready && r.Offset+int64(r.Length) <= w.off+w.bytes() {
		return w
	}
	return nil
}

func (ws *windows) at(file uint32, off int64) *window {
	for _, w := range ws.list {
		if w.covers(file, off) {
			return w
		}
	}
	return nil
}

// wanted reports whether a window should be made for r and what follows it.
func (ws *windows) wanted(src *transfer.Source, r wire.Request) bool {
	if ws.failed || ws.at(r.File, r.Offset) != nil {
		return false
	}
	if !src.Plain(r) {
		ws.name()
		return false
	}
	ws.evict(src, &r)
	return len(ws.list) < maxWindows && ws.trial.allows(src.Verifying())
}

// name says where bytes come from by now.
func (ws *windows) name() {
	if ws.had && ws.trial.pays() {
		ws.named.Store(&fromWindow)
	} else {
		ws.named.Store(&fromPool)
	}
}

// start has the window made that r lies in.
func (ws *windows) start(r wire.Request, file *os.File) {
	size := ws.trial.begin(ws.size, ws.least)
	w := &window{file: r.File, off: r.Offset - r.Offset%int64(size), most: size, source: file}
	ws.list = append(ws.list, w)
	ws.jobs <- w
}

// ahead has the window made that comes after w, which r lies in.
func (ws *windows) ahead(src *transfer.Source, w *window, r wire.Request, file *os.File) {
	r.Offset = w.off + int64(w.most)
	if ws.wanted(src, r) {
		ws.start(r, file)
	}
}

// evict ends the windows of which nothing is lent, but for the one that keep lies in
// and the one before it. A file that changed meanwhile has failed.
func (ws *windows) evict(src *transfer.Source, keep *wire.Request) {
	ws.collect()
	left := ws.list[:0]
	for _, w := range ws.list {
		if w.lent > 0 || !w.back || keep != nil && w.near(keep) {
			left = append(left, w)
			continue
		}
		if w.ready {
			if err := w.mapping.Unchanged(); err != nil {
				src.Fail(wire.Request{File: w.file, Offset: w.off}, err)
			}
			w.ending = true
			ws.jobs <- w
		}
	}
	clear(ws.list[len(left):])
	ws.list = left
}

// near reports whether a request lies in the window, or in the one after it.
func (w *window) near(r *wire.Request) bool {
	return w.covers(r.File, r.Offset) || w.covers(r.File, r.Offset-int64(w.most))
}

// close ends all windows. The queue pair is gone: nothing reads them any more.
func (ws *windows) close() error {
	ws.closing.Store(true)
	if ws.jobs != nil {
		close(ws.jobs)
	}
	ws.maker.Wait()
	errs := ws.errs
	for _, w := range ws.list {
		errs = append(errs, w.close())
	}
	ws.list = nil
	ws.memory.giveWindows(ws.size)
	ws.size = 0 // once
	return errors.Join(errs...)
}
