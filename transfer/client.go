package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Client is a session that carries many sends: one handshake, one look for paths, and the
// lanes stay up in between. Its methods may be called from any goroutine; sends wait for
// each other.
type Client struct {
	opt     SourceOptions
	cancel  context.CancelFunc
	batches chan *batch   // closed by Close
	ended   chan struct{} // the session is over, and result and err are there
	result  *Result
	err     error

	turn   chan struct{} // has one place, which Send and Close take
	closed bool
}

// batch is what one Send sends.
type batch struct {
	walk   *walker
	done   chan batchResult // sent to once
	landed int              // files of the session, when it began
	failed int              // entries that this end gave up by then
}

type batchResult struct {
	*Result
	err error
}

// ErrClosed says that a [Client] was closed.
var ErrClosed = errors.New("the session was closed")

// Open connects to the receiver for any number of sends. The sender's Source stays nil;
// opt is for all of them. What ctx's end, or Close, does not end lasts.
//
// A session that breaks takes its transfer with it: what landed is kept by the receiver,
// but no later session resumes it. DryRun and DeleteSource are for single transfers.
func (s *Sender) Open(ctx context.Context, opt SourceOptions) (*Client, error) {
	if s.DryRun || s.DeleteSource {
		return nil, errorf(CodeUsage, "neither a dry run nor removing sources goes with a session of many sends: use Send")
	}
	session, err := s.Sockets.dialSession(ctx, s.Addr, s.Key)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	return s.open(ctx, session, opt), nil
}

func (s *Sender) open(ctx context.Context, session *Session, opt SourceOptions) *Client {
	own := *s
	own.Source = newSource(&walker{opt: opt})
	own.Source.store.asked, own.Source.store.keep = opt.Direct, opt.KeepCache
	rand.Read(own.Source.name[:])
	ctx, cancel := context.WithCancel(ctx)
	c := &Client{opt: opt, cancel: cancel, turn: make(chan struct{}, 1), batches: make(chan *batch), ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		defer own.Source.Close()
		c.result, c.err = own.over(ctx, session, c)
	}()
	return c
}

// Send sends paths, as one transfer does, and answers when every file of them is durable
// and has its name, or has failed. Paths that can't be sent at all are an error before
// anything is. A path may come again in a later Send.
//
// When ctx ends while they are sent, so does the session; while another Send has its turn, this
// one alone.
func (c *Client) Send(ctx context.Context, paths ...string) (*Result, error) {
	walk, err := newWalker(paths, c.opt)
	if err != nil {
		return nil, err
	}
	select {
	case c.turn <- struct{}{}:
	default:
		select {
		case c.turn <- struct{}{}:
		case <-ctx.Done(): // nothing of it was sent: the session goes on
			return nil, causeOf(ctx, ctx.Err())
		}
	}
	defer func() { <-c.turn }()
	if c.closed {
		return nil, ErrClosed
	}
	stop := context.AfterFunc(ctx, c.cancel)
	defer stop()
	b := &batch{walk: walk, done: make(chan batchResult, 1)}
	select {
	case c.batches <- b:
	case <-c.ended:
		return nil, c.why(ctx)
	}
	select {
	case r := <-b.done:
		return r.Result, r.err
	case <-c.ended:
		select { // it may have been over before the session was
		case r := <-b.done:
			return r.Result, r.err
		default:
		}
		return nil, c.why(ctx)
	}
}

// why is why the session ended though nobody closed it.
func (c *Client) why(ctx context.Context) error {
	if ctx.Err() != nil {
		return causeOf(ctx, ctx.Err())
	}
	if c.err == nil {
		return ErrClosed
	}
	return c.err
}

// Close ends the session when the present Send has ended. Its result is that of all sends
// together, its error the session's own: what became of files was told by each Send.
func (c *Client) Close() (*Result, error) {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if !c.closed {
		c.closed = true
		close(c.batches)
	}
	<-c.ended
	c.cancel()
	return c.result, c.err
}

// nextBatch waits for more to send, after all that there was; false: there is nothing.
func (p *push) nextBatch(entries uint32, bytes int64) (bool, error) {
	if p.client == nil {
		return false, nil
	}
	p.mu.Lock()
	running := p.batch != nil
	p.complete = running
	p.mu.Unlock()
	if running {
		if err := p.s.Send(&wire.ManifestEnd{Files: entries, Bytes: bytes, More: true}); err != nil {
			return false, err
		}
	}
	select {
	case b, more := <-p.client.batches:
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.closing = !more; p.closing {
			return false, nil
		}
		b.landed, b.failed = p.landed, p.failedHere
		p.batch, p.complete = b, false
		p.Source.walk = b.walk
		return true, nil
	case <-p.ctx.Done():
		return false, context.Cause(p.ctx)
	}
}

// batchDone hears that a batch is over, or that the session is.
func (p *push) batchDone(m *wire.Done) (over bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.batch
	switch {
	case p.closing:
		return true, nil
	case b == nil || !p.complete || p.settled != p.Source.entries() || !plausible(int(m.Files)-(p.landed-b.landed), p.failedHere-b.failed):
		return false, errorf(CodeOther, "%w: done with %d files before all of a send had settled", wire.ErrMalformed, m.Files)
	}
	p.batch = nil
	p.redescribe()
	r := p.result
	r.Files, r.Bytes, r.Resumed, r.Failed = int(m.Files), m.Bytes, m.Resumed, p.failures.n
	r.Elapsed = time.Duration(m.Nanoseconds)
	r.Plan.Detail = p.detail()
	err = p.failures.sum(r.Files)
	p.failures = failures{}
	p.failed += r.Failed
	b.done <- batchResult{&r, err}
	return false, nil
}
