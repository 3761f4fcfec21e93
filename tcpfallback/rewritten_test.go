package tcpfallback

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// rewriter sends an extent, as those methods do that never see its bytes, and the file is
// rewritten before they are read for their digest.
type rewriter struct {
	Transport
	path string
	at   *int64 // when, seconds
}

func (w rewriter) Answer(ctx context.Context, p transfer.LaneParams, open *wire.OpenLane, answer *wire.LaneAnswer) (transfer.Server, error) {
	s, err := w.Transport.Answer(ctx, p, open, answer)
	if err == nil {
		s.(*server).method = rewriterOut{s.(*server).method.(*sendfileOut), w}
	}
	return s, err
}

type rewriterOut struct {
	*sendfileOut
	rewriter
}

func (m rewriterOut) answer(conn net.Conn, src *transfer.Source, r wire.Request) (moved bool, err error) {
	file, err := m.fileOf(conn, src, r)
	if file == nil || err != nil {
		return false, err
	}
	p := m.buf[:r.Length]
	if _, err := file.ReadAt(p, r.Offset); err != nil {
		return false, err
	}
	if err := m.write(conn, r, wire.StatusOK, p); err != nil {
		return false, err
	}
	*m.at++
	for i := range p {
		p[i] = byte(*m.at)
	}
	f, err := os.OpenFile(m.path, os.O_WRONLY, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if _, err := f.WriteAt(p, r.Offset); err != nil {
		return false, err
	}
	if err := os.Chtimes(m.path, time.Time{}, time.Unix(*m.at, 0)); err != nil {
		return false, err
	}
	src.Reread(r, m.buf)
	return true, nil
}

// TestRewrittenSourceIsNoDamage: who rewrote it is this host, and not the path to the other.
func TestRewrittenSourceIsNoDamage(t *testing.T) {
	path, _ := file(t, 17*extent) // the first 16 are compared before the last
	h := newHosts(t)
	h.push, h.pull = rewriter{Transport{Method: "sendfile"}, path, new(int64)}, Transport{}
	sent, received := h.send(h.l.Addr().String(), "", transfer.VerifyBLAKE3, path)
	for _, err := range []error{sent, received} {
		if transfer.CodeOf(err) != transfer.CodeLocalIO || !strings.Contains(err.Error(), "changed while it was read") {
			t.Errorf("%v; want it to say that the source has changed", err)
		}
	}
}
