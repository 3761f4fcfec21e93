//go:build linux

// Command perf measures the wrapper as perftest measures the C library: the same
// depth, size, signalling and buffer reuse, the same points of the clock. testbed's
// bench-verbs runs both in turn.
//
//	perf -device rxe_b -local 10.0.0.2 -listen :18600
//	perf -device rxe_a -local 10.0.0.1 -test bw -op write -size 4096 10.0.0.2:18600
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// run is what is measured: both ends know it.
type run struct {
	Test   string // bw or lat
	Op     string // write, send or read
	Size   int    // bytes a message
	Iters  int
	Depth  int  // messages in flight
	Chain  int  // messages a doorbell at the most
	Events bool // wait on events instead of polling
	Spin   int  // microseconds of polling before a wait on events
}

// hello is what each end tells the other.
type hello struct {
	Run  run
	QP   ibverbs.Endpoint
	Addr uint64
	RKey uint32
}

// recvDepth is how many receives the passive end keeps posted, as perftest does.
const recvDepth = 512

func main() {
	var r run
	device := flag.String("device", "rxe_a", "RDMA device")
	local := flag.String("local", "10.0.0.1", "address of its GID")
	listen := flag.String("listen", "", "be the passive end, and listen here")
	flag.StringVar(&r.Test, "test", "bw", "bw or lat")
	flag.StringVar(&r.Op, "op", "write", "write, send or read")
	flag.IntVar(&r.Size, "size", 65536, "bytes a message")
	flag.IntVar(&r.Iters, "n", 1000, "messages")
	flag.IntVar(&r.Depth, "depth", 128, "messages in flight")
	flag.IntVar(&r.Chain, "chain", 16, "messages a doorbell at the most")
	flag.BoolVar(&r.Events, "events", false, "wait on events")
	flag.IntVar(&r.Spin, "spin", 0, "microseconds of polling before a wait on events")
	flag.Parse()
	err := error(nil)
	if *listen != "" {
		err = passive(*device, *local, *listen)
	} else {
		err = active(*device, *local, flag.Arg(0), r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "perf:", err)
		os.Exit(1)
	}
}

// end is one side of the connection.
type end struct {
	run
	dev  *ibverbs.Context
	pd   *ibverbs.PD
	mr   *ibverbs.MR
	cq   *ibverbs.CQ
	prep *ibverbs.PreparedQP
	qp   *ibverbs.QP
	peer hello
	wcs  []ibverbs.WC
	recv []ibverbs.RecvWR

	posts int // calls of PostSend: doorbells
}

func newEnd(device, local string, r run) (e *end, err error) {
	e = &end{run: r, wcs: make([]ibverbs.WC, 64)}
	if e.dev, err = ibverbs.Open(device); err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(local)
	if err != nil {
		return nil, err
	}
	gid, err := e.dev.FindGID(1, addr, ibverbs.GIDTypeRoCEv2)
	if err != nil {
		return nil, err
	}
	if e.pd, err = e.dev.AllocPD(); err != nil {
		return nil, err
	}
	const all = ibverbs.AccessLocalWrite | ibverbs.AccessRemoteWrite | ibverbs.AccessRemoteRead
	if e.mr, err = e.pd.AllocMR(2*r.Size, all); err != nil { // what goes out, then what comes in
		return nil, err
	}
	if e.cq, err = e.dev.CreateCQ(r.Depth + recvDepth); err != nil {
		return nil, err
	}
	e.cq.SetSpin(time.Duration(r.Spin) * time.Microsecond)
	e.prep, err = e.pd.PrepareQP(ibverbs.QPConfig{SendCQ: e.cq, RecvCQ: e.cq, MaxSend: r.Depth, MaxRecv: recvDepth, GIDIndex: gid.Index, Access: all})
	return e, err
}

func (e *end) hello() hello {
	return hello{Run: e.run, QP: e.prep.Endpoint(), Addr: e.mr.Addr(0), RKey: e.mr.RKey()}
}

// connect posts what must be there first, and brings the queue pair up.
func (e *end) connect() (err error) {
	if e.Op == "send" {
		wr := ibverbs.RecvWR{NumSGE: 1}
		wr.SGE[0] = e.mr.SGE(e.Size, e.Size)
		for range recvDepth {
			e.recv = append(e.recv, wr)
		}
		if _, err := e.prep.PostRecv(e.recv); err != nil {
			return err
		}
	}
	reads := uint8(16) // what rxe, and perftest on it, allow
	e.qp, err = e.prep.Connect(e.peer.QP, ibverbs.ConnectParams{MaxReads: reads, MaxReadsServed: reads})
	return err
}

// close ends everything, children first.
func (e *end) close() error {
	return errors.Join(e.qp.Close(), e.cq.Close(), e.mr.Close(), e.pd.Close(), e.dev.Close())
}

func passive(device, local, listen string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	defer l.Close()
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	in, out := json.NewDecoder(conn), json.NewEncoder(conn)
	var theirs hello
	if err := in.Decode(&theirs); err != nil {
		return err
	}
	e, err := newEnd(device, local, theirs.Run)
	if err != nil {
		return err
	}
	mine := e.hello()
	e.peer = theirs
	if err := e.connect(); err != nil {
		return err
	}
	if err := out.Encode(mine); err != nil {
		return err
	}
	switch {
	case e.Test == "lat" && e.Op != "read":
		_, err = e.pingPong(false)
	case e.Test == "bw" && e.Op == "send":
		err = e.sink()
	}
	if err != nil {
		return err
	}
	_ = in.Decode(&struct{}{}) // until the other end hangs up
	return e.close()
}

func active(device, local, to string, r run) error {
	if r.Test != "bw" && r.Test != "lat" {
		return fmt.Errorf("-test %s: not bw or lat", r.Test)
	}
	e, err := newEnd(device, local, r)
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(e.hello()); err != nil {
		return err
	}
	if err := json.NewDecoder(conn).Decode(&e.peer); err != nil {
		return err
	}
	if err := e.connect(); err != nil {
		return err
	}
	crossings := runtime.NumCgoCall()
	result := map[string]any{"test": r.Test, "op": r.Op, "size": r.Size, "iterations": r.Iters, "events": r.Events}
	if r.Test == "bw" {
		d, err := e.bandwidth()
		if err != nil {
			return err
		}
		gib := float64(r.Size) * float64(r.Iters) / (1 << 30)
		result["crossings_per_gib"] = int64(float64(runtime.NumCgoCall()-crossings) / gib)
		result["posts_per_gib"] = int64(float64(e.posts) / gib)
		result["depth"], result["chain"] = r.Depth, r.Chain
		result["bytes_per_second"] = int64(float64(r.Size) * float64(r.Iters) / d.Seconds())
	} else {
		samples, err := e.latency()
		if err != nil {
			return err
		}
		for name, d := range quantiles(samples) {
			result["microseconds_"+name] = float64(d.Nanoseconds()) / 1000
		}
	}
	var u syscall.Rusage // of the whole process, start and connecting included
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return err
	}
	result["seconds_user"] = time.Duration(u.Utime.Nano()).Seconds()
	result["seconds_kernel"] = time.Duration(u.Stime.Nano()).Seconds()
	result["switches_voluntary"], result["switches_involuntary"] = u.Nvcsw, u.Nivcsw
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		return err
	}
	return e.close()
}
