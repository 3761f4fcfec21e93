package peertool

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rdmaxfer/rdmaxfer/compare"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// What the programs print, of the versions that said it.
const (
	writeBW606 = `---------------------------------------------------------------------------------------
 #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]
 65536      100              36.67              14.35  		   0.000230
---------------------------------------------------------------------------------------
`
	writeBW = `---------------------------------------------------------------------------------------
 #bytes     #iterations    BW peak[MiB/sec]    BW average[MiB/sec]   MsgRate[Mpps]
 65536      100              36.67              14.35  		   0.000230
---------------------------------------------------------------------------------------
`
	writeLat606 = ` #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]   99% percentile[usec]   99.9% percentile[usec] 
#, usec
1, 4506.73
2, 350.258
3, 68.6025
---------------------------------------------------------------------------------------
 #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]   99% percentile[usec]   99.9% percentile[usec] 
 64      4          68.60          4506.73      350.26    	       328.55      	574.72 		3471.87 		3471.87
`
	qperfRate = "rc_bw:\n    bw  =  14548992 bytes/sec\n"
	qperfTime = "tcp_lat:\n    latency  =  2118644 ns\n"
	iperf3    = `{"start":{"version":"iperf 3.12"},"end":{"streams":[{"receiver":{"bits_per_second":1}}],"sum_sent":{"bits_per_second":9},"sum_received":{"bytes":100,"bits_per_second":8e6}}}`
)

func TestFiguresAreNormalised(t *testing.T) {
	for name, c := range map[string]struct {
		got  func() (float64, error)
		want float64 // NaN: an error
	}{
		"MB that are MiB": {func() (float64, error) { return parsePerftestRate(writeBW606, 65536, 100) }, 14.35 * 1048576},
		"MiB":             {func() (float64, error) { return parsePerftestRate(writeBW, 65536, 100) }, 14.35 * 1048576},
		"another size":    {func() (float64, error) { return parsePerftestRate(writeBW, 6553, 100) }, math.NaN()},
		"another count":   {func() (float64, error) { return parsePerftestRate(writeBW, 65536, 10) }, math.NaN()},
		"gigabits": {func() (float64, error) {
			return parsePerftestRate(strings.ReplaceAll(writeBW, "MiB", "Gb"), 65536, 100)
		}, math.NaN()},
		"nothing":           {func() (float64, error) { return parsePerftestRate("", 65536, 100) }, math.NaN()},
		"qperf's rate":      {func() (float64, error) { return parseQperf(qperfRate, "bytes/sec") }, 14548992},
		"qperf's time":      {func() (float64, error) { return parseQperf(qperfTime, "ns") }, 2118644},
		"qperf's other":     {func() (float64, error) { return parseQperf(qperfTime, "bytes/sec") }, math.NaN()},
		"iperf3":            {func() (float64, error) { return parseIperf3(iperf3) }, 1e6},
		"iperf3's error":    {func() (float64, error) { return parseIperf3(`{"error":"unable to connect"}`) }, math.NaN()},
		"iperf3's no words": {func() (float64, error) { return parseIperf3("iperf3: error") }, math.NaN()},
	} {
		got, err := c.got()
		if math.IsNaN(c.want) != (err != nil) || err == nil && math.Abs(got/c.want-1) > 1e-9 {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
	// Half round trips are doubled, whole ones are not.
	for times, want := range map[int]float64{1: 350258, 2: 700516} {
		h, err := parsePerftestTrips(writeLat606, times)
		if err != nil || h.TotalCount() != 3 || math.Abs(float64(h.ValueAtQuantile(50))/want-1) > 1e-3 {
			t.Errorf("%+v, %v", h, err)
		}
	}
	for _, bad := range []string{"", "1, x\n", "1, -5\n", "1, 1e30\n", "#, usec\n"} {
		if h, err := parsePerftestTrips(bad, 2); err == nil {
			t.Errorf("%q: %d times", bad, h.TotalCount())
		}
	}
	for said, want := range map[string]string{"Version: 6.06\n": "6.06", "qperf 0.4.11\n": "0.4.11", "iperf 3.12 (cJSON 1.7.15)\n": "3.12", "what?": ""} {
		if got := parseVersion(said); got != want {
			t.Errorf("%q: %q", said, got)
		}
	}
}

// The receiving end's arguments are numbers, and names of this host's own.
func TestServerArguments(t *testing.T) {
	mine := &wire.Candidate{Device: "mlx5_0", Port: 2, GIDIndex: 3, Ethernet: true}
	ask := wire.RunTool{Size: 4096, Depth: 600, Iterations: 1000}
	for tool, want := range map[wire.Tool]string{
		wire.ToolWriteBW:   "ib_write_bw -F -p 99 -d mlx5_0 -i 2 -s 4096 -n 1000 -x 3 -t 600",
		wire.ToolReadBW:    "ib_read_bw -F -p 99 -d mlx5_0 -i 2 -s 4096 -n 1000 -x 3 -t 600",
		wire.ToolSendBW:    "ib_send_bw -F -p 99 -d mlx5_0 -i 2 -s 4096 -n 1000 -x 3 -t 600 -r 1200",
		wire.ToolWriteLat:  "ib_write_lat -F -p 99 -d mlx5_0 -i 2 -s 4096 -n 1000 -x 3 -I 0 -U",
		wire.ToolReadLat:   "ib_read_lat -F -p 99 -d mlx5_0 -i 2 -s 4096 -n 1000 -x 3 -U",
		wire.ToolSendLat:   "ib_send_lat -F -p 99 -d mlx5_0 -i 2 -s 4096 -n 1000 -x 3 -I 0 -U",
		wire.ToolQperf:     "qperf -lp 99",
		wire.ToolQperfRDMA: "qperf -lp 99",
		wire.ToolIperf3:    "iperf3 -s -1 -p 99",
	} {
		ask.Tool = tool
		name, args, ends := serverCommand(&ask, mine, &wire.Fabric{}, 99)
		if got := strings.Join(append([]string{name}, args...), " "); got != want || ends == (name == "qperf") {
			t.Errorf("%q, ends by itself: %v; want %q", got, ends, want)
		}
	}
	ask = wire.RunTool{Tool: wire.ToolSendBW, Size: 1024, Depth: 64, Iterations: 5, QPs: 2, Chain: 3, Signal: 4, Inline: 5, MTU: 5, UD: true}
	want := "-F -p 99 -d mlx5_0 -i 2 -s 1024 -n 5 -x 3 -q 2 -l 3 -Q 4 -I 5 -m 4096 -c UD -t 64 -r 512"
	if _, args, _ := serverCommand(&ask, mine, &wire.Fabric{}, 99); strings.Join(args, " ") != want {
		t.Errorf("%q, want %q", args, want)
	}
	sl, class, timeout, mtu := uint8(3), uint8(106), uint8(18), uint8(3)
	ask = wire.RunTool{Tool: wire.ToolReadBW, Size: 1024, Depth: 64, Iterations: 5}
	want = "-F -p 99 -d mlx5_0 -i 2 -s 1024 -n 5 -x 3 -S 3 --tclass 106 -u 18 -m 1024 -t 64"
	if _, args, _ := serverCommand(&ask, mine, &wire.Fabric{ServiceLevel: &sl, TrafficClass: &class, Timeout: &timeout, MTU: &mtu}, 99); strings.Join(args, " ") != want {
		t.Errorf("%q, want %q", args, want)
	}
	infiniband := *mine
	infiniband.Ethernet = false
	ask.Tool = wire.ToolWriteBW
	if _, args, _ := serverCommand(&ask, &infiniband, &wire.Fabric{}, 99); slices.Contains(args, "-x") {
		t.Errorf("%v", args)
	}
}

func TestPerftestPostsWholeLists(t *testing.T) {
	for n, want := range map[float64]int{1000: 1008, 1008: 1008, 1: 32, 1e12: wire.MaxToolIterations} {
		l := compare.PeerLoad{Depth: 16, Duration: time.Second, Expect: n, As: &compare.VerbsOptions{Chain: 16}}
		if got := iterations(l, 0); got != want {
			t.Errorf("%v messages in lists of 16: %d, want %d", n, got, want)
		}
	}
	// perftest's -n is of each queue pair, and what it prints of all.
	l := compare.PeerLoad{Depth: 16, Duration: time.Second, Expect: 1000, As: &compare.VerbsOptions{QPs: 3}}
	if got := iterations(l, 0); got != 334 {
		t.Errorf("1000 messages by three queue pairs: %d each", got)
	}
}

// What perftest is told takes no longer than the limit where it is half as fast as ours was.
func TestPerftestEndsInTime(t *testing.T) {
	for d, want := range map[time.Duration]int{time.Second: 1000, 75 * time.Second: 75_000, 80 * time.Second: 75_000, MaxDuration: 75_000} {
		n := iterations(compare.PeerLoad{Depth: 16, Duration: d, Expect: 1000}, 0)
		if slow := time.Duration(n) * time.Second / 500; n != want || aside+slow > limit(d) {
			t.Errorf("of %v: %d messages, which take %v, want %d", d, n, slow, want)
		}
	}
}

// serve runs qperf's listening end until the test wants no more.
func serve(t *testing.T, ctx context.Context, done <-chan struct{}) (port uint16, ended <-chan error) {
	t.Helper()
	ready, end := make(chan uint16, 1), make(chan error, 1)
	go func() {
		_, err := Server{}.Serve(ctx, "", &wire.RunTool{Tool: wire.ToolQperf, Size: 1, Depth: 1, Nanoseconds: 1e9}, func(r *wire.ToolReady) error {
			ready <- r.Port
			return nil
		}, done)
		end <- err
	}()
	select {
	case port = <-ready:
	case err := <-end:
		t.Fatal(err)
	}
	return port, end
}

func TestServerEndsWithItsSession(t *testing.T) {
	done := make(chan struct{})
	port, ended := serve(t, t.Context(), done)
	if found, err := listening(port); !found || err != nil {
		t.Errorf("ready, and nothing listens: %v", err)
	}
	close(done)
	if err := <-ended; err != nil {
		t.Errorf("done: %v", err)
	}
	if found, err := listening(port); found || err != nil {
		t.Errorf("done, and it listens: %v", err)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the session is gone")
	port, ended = serve(t, ctx, nil)
	cancel(gone)
	if err := <-ended; !errors.Is(err, gone) {
		t.Error(err)
	}
	if found, err := listening(port); found || err != nil {
		t.Errorf("the session is gone, and it listens: %v", err)
	}
}

// A program that is not there, that ends before it listens, or that is late is an error.
func TestWhatDoesNotRun(t *testing.T) {
	path := t.TempDir()
	t.Setenv("PATH", path)
	if _, err := start(t.Context(), "ib_write_bw", nil); err == nil || !strings.Contains(err.Error(), "apt install perftest") {
		t.Error(err)
	}
	script := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(path+"/"+name, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script("qperf", "echo no such device >&2; exit 3")
	_, err := Server{}.Serve(t.Context(), "", &wire.RunTool{Tool: wire.ToolQperf}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "no such device") || !strings.Contains(err.Error(), "exit status 3") {
		t.Error(err)
	}
	script("iperf3", "echo $$; exec /bin/sleep 1000")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("too late"))
	defer cancel()
	p, err := start(ctx, "iperf3", nil)
	if err != nil {
		t.Fatal(err)
	}
	<-p.ended
	if p.err == nil || syscall.Kill(p.cmd.Process.Pid, 0) == nil {
		t.Errorf("%v", p.err)
	}
}

func TestOutputIsBounded(t *testing.T) {
	var o output
	if _, err := o.Write(make([]byte, mostOutput)); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Write([]byte{1}); err == nil || o.Len() != mostOutput {
		t.Errorf("%d bytes, %v", o.Len(), err)
	}
}

// A directory may have any name: fio would take a colon for the end of a file's.
func TestDiskOfAnyName(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, ` a:b;c#d\:e "$f",g `)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	peers, remove := Disk(dir)
	if _, err := peers[1].Rate(t.Context(), compare.PeerLoad{Size: 65536, Depth: 4, Duration: 50 * time.Millisecond}); err != nil {
		t.Error(err)
	}
	here, err := os.ReadDir(dir)
	beside, perr := os.ReadDir(parent)
	if err != nil || perr != nil || len(here) != 1 || len(beside) != 1 {
		t.Errorf("in it %v, %v; beside it %v, %v", here, err, beside, perr)
	}
	remove()
	if here, err := os.ReadDir(dir); err != nil || len(here) > 0 {
		t.Errorf("%v, %v", here, err)
	}
}

// fio reads and writes a file of its own, which is gone when it is told to remove it, also where
// the directory has a relative name.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	peers, remove := Disk(".")
	for _, p := range peers {
		s, err := p.Rate(t.Context(), compare.PeerLoad{Size: 65536, Depth: 4, Duration: 50 * time.Millisecond})
		if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
			t.Errorf("%s left %v, %v", p.Name, list, err)
		}
		if err != nil || s.Rate <= 0 || s.Bytes <= 0 || !strings.HasPrefix(s.Version, "fio-") || s.Here.System <= 0 {
			t.Errorf("%s: %+v, %v", p.Name, s, err)
		}
		_, err = p.Rate(t.Context(), compare.PeerLoad{Size: 100, Depth: 4, Duration: time.Millisecond})
		if ofSize := new(compare.SizeError); !errors.As(err, &ofSize) || !strings.Contains(err.Error(), "multiples of 4096") {
			t.Errorf("%s of 100 bytes: %v", p.Name, err)
		}
	}
	remove()
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
	for _, bad := range []string{"", "{}", `{"jobs":[{}]}`} {
		if _, rate, _, err := parseFio(bad); err == nil {
			t.Errorf("%q: %v", bad, rate)
		}
	}
}
