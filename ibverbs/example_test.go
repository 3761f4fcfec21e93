//go:build linux && cgo

package ibverbs_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// The smallest whole program: two queue pairs of one device, connected to each
// other, and a message from the one to the other. Between two hosts each makes one
// of them, and they tell each other their Endpoints over, say, a TCP connection.
func Example() {
	if err := hello(); err != nil {
		log.Fatal(err)
	}
}

func hello() (err error) {
	devices, err := ibverbs.Devices()
	if err != nil {
		return err // a missing library is an error; its text says what to install
	}
	if len(devices) == 0 {
		return ibverbs.ErrNoDevice
	}
	dev, err := ibverbs.Open(devices[0].Name)
	if err != nil {
		return err
	}
	// Everything is closed by hand, children before parents, as defer does.
	closing := func(c interface{ Close() error }) { err = errors.Join(err, c.Close()) }
	defer closing(dev)

	gid, err := anyGID(dev)
	if err != nil {
		return err
	}
	pd, err := dev.AllocPD()
	if err != nil {
		return err
	}
	defer closing(pd)
	mr, err := pd.AllocMR(4096, ibverbs.AccessLocalWrite) // the device will write into it
	if err != nil {
		return err
	}
	defer closing(mr)
	cq, err := dev.CreateCQ(8)
	if err != nil {
		return err
	}
	defer closing(cq)

	conf := ibverbs.QPConfig{SendCQ: cq, RecvCQ: cq, MaxSend: 1, MaxRecv: 1, Port: gid.Port, GIDIndex: gid.Index}
	left, err := pd.PrepareQP(conf)
	if err != nil {
		return err
	}
	right, err := pd.PrepareQP(conf)
	if err != nil {
		return errors.Join(err, left.Close())
	}
	leftEnd, rightEnd := left.Endpoint(), right.Endpoint()
	sender, err := left.Connect(rightEnd, ibverbs.ConnectParams{})
	if err != nil {
		return errors.Join(err, right.Close())
	}
	defer closing(sender)
	receiver, err := right.Connect(leftEnd, ibverbs.ConnectParams{})
	if err != nil {
		return err
	}
	defer closing(receiver)

	// The receive is posted first: a message that finds none is sent again and again.
	in := ibverbs.RecvWR{ID: 1, NumSGE: 1, SGE: [ibverbs.MaxSGE]ibverbs.SGE{mr.SGE(2048, 2048)}}
	if _, err := receiver.PostRecv([]ibverbs.RecvWR{in}); err != nil {
		return err
	}
	n := copy(mr.Bytes(), "hello, verbs")
	out := ibverbs.SendWR{ID: 2, Opcode: ibverbs.OpSend, Flags: ibverbs.SendSignaled, NumSGE: 1, SGE: [ibverbs.MaxSGE]ibverbs.SGE{mr.SGE(0, n)}}
	if _, err := sender.PostSend([]ibverbs.SendWR{out}); err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	wcs := make([]ibverbs.WC, 8)
	for done := 0; done < 2; {
		k, err := cq.WaitPoll(ctx, wcs)
		if err != nil {
			return err
		}
		for _, wc := range wcs[:k] {
			if err := wc.Err(); err != nil {
				return err
			}
			if wc.ID == 1 {
				fmt.Printf("received %q\n", mr.Bytes()[2048:][:wc.ByteLen])
			}
			done++
		}
	}
	return nil
}

// anyGID takes the first address that RoCE v2 can route, or else the first at all,
// which on InfiniBand is the port's own.
func anyGID(dev *ibverbs.Context) (ibverbs.GIDEntry, error) {
	table, err := dev.GIDTable()
	if err != nil {
		return ibverbs.GIDEntry{}, err
	}
	for _, g := range table {
		if g.Type == ibverbs.GIDTypeRoCEv2 && g.Netdev != "" && !g.GID.Addr().IsLinkLocalUnicast() {
			return g, nil
		}
	}
	if len(table) == 0 {
		return ibverbs.GIDEntry{}, errors.New("no GID: give the network device an address")
	}
	return table[0], nil
}
