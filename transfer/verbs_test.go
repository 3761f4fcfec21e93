package transfer

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// fakeVerbs has ends that do nothing but what a test says.
type fakeVerbs struct {
	open, connect, run error
	breaks             bool // Run ends by itself
	closed             chan struct{}
}

func (v *fakeVerbs) Passive(string, *wire.Verbs) (VerbsEnd, *wire.VerbsEnd, error) {
	return v, &wire.VerbsEnd{QPs: []wire.QueuePair{{MTU: 1}}}, v.open
}

func (v *fakeVerbs) Active(*wire.Candidate, uint16, VerbsLoad) (VerbsEnd, *wire.VerbsEnd, error) {
	return nil, nil, errors.New("this is the receiver")
}

func (v *fakeVerbs) Connect(*wire.VerbsEnd) error { return v.connect }

func (v *fakeVerbs) Run(ctx context.Context) (*VerbsResult, error) {
	if !v.breaks {
		<-ctx.Done()
	}
	return &VerbsResult{Messages: 3, Elapsed: 7, Received: 4}, v.run
}

func (v *fakeVerbs) Close() error {
	v.closed <- struct{}{}
	return nil
}

func askVerbs() *wire.Verbs {
	return &wire.Verbs{Op: "write", Size: 1, Depth: 1, QPs: 1, Chain: 1, Signal: 1, Buffers: 1, Nanoseconds: 1}
}

// The receiver's end runs until it is told to stop; what goes wrong with it, or takes too
// long, is the measurement's failure and not the session's. Every end that is made is
// closed.
func TestReceiversEndOfVerbs(t *testing.T) {
	broken := errors.New("it broke")
	mine := &wire.VerbsEnd{QPs: []wire.QueuePair{{MTU: 1}}}
	for name, c := range map[string]struct {
		fake  fakeVerbs
		say   []wire.Message // after VerbsEnd
		code  Code
		words string
	}{
		"measured":     {fakeVerbs{}, []wire.Message{mine, &wire.VerbsStop{}}, CodeOK, ""},
		"it gives up":  {fakeVerbs{}, []wire.Message{&wire.VerbsStop{}}, CodeOK, ""},
		"no path":      {fakeVerbs{connect: broken}, []wire.Message{mine, &wire.VerbsStop{}}, CodeOther, "it broke"},
		"a lost one":   {fakeVerbs{run: broken}, []wire.Message{mine, &wire.VerbsStop{}}, CodeNoRDMA, "it broke"},
		"it breaks":    {fakeVerbs{run: broken, breaks: true}, []wire.Message{mine}, CodeNoRDMA, "it broke"},
		"it is over":   {fakeVerbs{breaks: true}, []wire.Message{mine}, CodeOther, "before the sender said so"},
		"never says":   {fakeVerbs{}, nil, CodeConnect, "not finished"},
		"never stops":  {fakeVerbs{}, []wire.Message{mine}, CodeConnect, "not finished"},
		"no such port": {fakeVerbs{open: broken}, nil, CodeNoRDMA, "it broke"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c.fake.closed = make(chan struct{}, 9)
			h, end := measuringVerbs(t, &c.fake)
			for range 2 { // the session lives on
				h.say(askVerbs())
				if c.fake.open == nil {
					await[*wire.VerbsEnd](h)
					for _, m := range c.say {
						synctest.Wait()
						h.say(m)
					}
				}
				over := await[*wire.VerbsOver](h)
				if over.Code != uint8(c.code) || !strings.Contains(over.Reason, c.words) {
					t.Errorf("%s: %+v", name, over)
				}
				if name == "measured" && (over.Messages != 3 || over.Nanoseconds != 7 || over.Received != 4) {
					t.Errorf("%+v", over)
				}
				if c.fake.open == nil {
					<-c.fake.closed
				}
			}
			h.say(&wire.ManifestEnd{})
			synctest.Wait() // it has heard that before the end
			h.s.Close()
			if err := <-end; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

func measuringVerbs(t *testing.T, v Verbs) (*hostile, <-chan error) {
	t.Helper()
	return measuringWith(t, func(r *Receiver) { r.Verbs = v })
}

// What is asked for where there is no RDMA, or twice, has a clear end.
func TestVerbsThatAreNotExpected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, end := measuringVerbs(t, nil)
		h.say(askVerbs())
		if over := await[*wire.VerbsOver](h); over.Code != uint8(CodeNoRDMA) {
			t.Errorf("%+v", over)
		}
		h.say(&wire.VerbsStop{}, &wire.VerbsStop{}) // nobody takes these
		if err := <-end; !errors.Is(err, wire.ErrMalformed) {
			t.Error(err)
		}
		h.s.Close()
	})
}
