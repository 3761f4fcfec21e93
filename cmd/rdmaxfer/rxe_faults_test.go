//go:build rxe

package main

import (
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// One run of TestFaultsAtRandomMoments is a transfer of which everything is chosen by a
// seed, and one fault (rxe_faults_table_test.go) when so many bytes have landed. What
// was not finished by that is given again and must finish.

var (
	faultRuns = flag.Int("faults.runs", 6, "how many transfers TestFaultsAtRandomMoments breaks")
	faultSeed = flag.Uint64("faults.seed", 0, "the seed of the first of them, the next has the next one; 0: by the clock")
)

// tally is what went wrong in all runs, and how long the slowest fault took to make.
type tally struct {
	corrupt, lost, hung, wrong, left, late int
	slowest                                time.Duration
}

func TestFaultsAtRandomMoments(t *testing.T) {
	seed := *faultSeed
	if seed == 0 {
		seed = uint64(time.Now().Unix())
	}
	sum := tally{slowest: time.Second}
	var resumed int64
	failed, again := 0, 0
	for i := range *faultRuns {
		s := seed + uint64(i)
		if !t.Run(fmt.Sprint(s), func(t *testing.T) {
			x := newFaultRun(t, s, &sum)
			x.run()
			resumed += x.resumed
			if x.again {
				again++
			}
		}) {
			failed++
		}
	}
	fmt.Printf("faults: %d runs: %d corrupt, %d lost, %d hung, %d wrong exit codes, %d left something behind; %d failed; "+
		"%d were given again, for which %s had landed; in %d the fault came too late\n",
		*faultRuns, sum.corrupt, sum.lost, sum.hung, sum.wrong, sum.left, failed, again, iec(float64(resumed)), sum.late)
}

// faultRun is one run.
type faultRun struct {
	*transferTest
	seed  uint64
	rng   *rand.Rand
	sum   *tally
	fault randomFault

	transport, op, what, verify string
	lanes                       int
	recvArgs                    []string
	victim, host                string // an end of the transfer, and of the pair
	src                         string // a file or the top of a tree
	size, total                 int64  // in bytes, and in bytes of whole pages
	moment                      int64  // at which the fault comes, bytes that have landed

	r, s    *proc
	again   bool
	resumed int64
}

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

func newFaultRun(t *testing.T, seed uint64, sum *tally) *faultRun {
	rng := rand.New(rand.NewPCG(seed, 0))
	x := &faultRun{transferTest: newTransfer(t), seed: seed, rng: rng, sum: sum}
	x.transport = pick(rng, "auto", "auto", "rdma", "rdma", "tcp")
	x.op = pick(rng, "send", "write", "read")
	x.lanes = 1 + rng.IntN(3)
	x.verify = pick(rng, "blake3", "blake3", "xxh3", "crc32c", "none")
	x.what = pick(rng, "file", "file", "tree", "stream")
	x.recvArgs = pick(rng, nil, nil, []string{"--overwrite", "always"}, []string{"--overwrite", "always", "--no-sync"})
	x.victim, x.host = pick(rng, "send", "recv"), pick(rng, "a", "b")
	x.fault = pick(rng, randomFaults...)
	for x.fault.files && x.what == "stream" {
		x.what = pick(rng, "file", "tree")
	}
	x.makeSource()
	x.moment = x.size * int64(5+rng.IntN(40)) / 100
	return x
}

// makeSource makes what is sent: no two files of one content.
func (x *faultRun) makeSource() {
	content := rand.NewChaCha8([32]byte{byte(x.seed), byte(x.seed >> 8), byte(x.seed >> 16), byte(x.seed >> 24)})
	write := func(path string, n int) {
		b := make([]byte, n)
		content.Read(b)
		if err := os.WriteFile(path, b, 0o640); err != nil {
			x.t.Fatal(err)
		}
		x.size += int64(n)
		x.total += int64(n+4095) &^ 4095
	}
	large := 2*mib + x.rng.IntN(6*mib)
	if x.rng.IntN(3) == 0 {
		large += 16 * mib // a block of the ledger
	}
	x.src = filepath.Join(x.dir, "src")
	if x.what != "tree" {
		write(x.src, large)
		return
	}
	for _, dir := range []string{"empty", "small", "x/y"} {
		if err := os.MkdirAll(filepath.Join(x.src, dir), 0o755); err != nil {
			x.t.Fatal(err)
		}
	}
	for i := range 40 {
		write(filepath.Join(x.src, "small", fmt.Sprint(i)), x.rng.IntN(9000))
	}
	write(filepath.Join(x.src, "medium"), mib+x.rng.IntN(mib))
	write(x.large(), large)
}

// large is the file that most bytes are in.
func (x *faultRun) large() string {
	if x.what == "tree" {
		return filepath.Join(x.src, "x/y/large")
	}
	return x.src
}

// landsAs is what the source is called in the destination.
func (x *faultRun) landsAs() string {
	if x.what == "stream" {
		return filepath.Join(x.into, "piped")
	}
	return filepath.Join(x.into, "src")
}

func (x *faultRun) String() string {
	args := strings.Join(append([]string{"--op", x.op, "--lanes", fmt.Sprint(x.lanes), "--verify", x.verify}, x.recvArgs...), " ")
	return fmt.Sprintf("seed %d: %s, %s of %s, %s: %s (%s, host %s) at %s", x.seed, x.transport, x.what, iec(float64(x.size)),
		args, x.fault.name, x.victim, x.host, iec(float64(x.moment)))
}

// start begins the transfer. It takes that long if stretch is not 0: making a fault takes
// its time too.
func (x *faultRun) start(stretch time.Duration) {
	args := []string{"--transport", x.transport, "--op", x.op, "--lanes", fmt.Sprint(x.lanes), "--verify", x.verify}
	if stretch > 0 {
		args = append(args, "--limit", fmt.Sprintf("%dB/s", int(float64(x.size)/stretch.Seconds())))
	}
	x.r = x.recv(x.recvArgs...)
	if x.what == "stream" {
		x.s = x.sendWith([]string{"sh", "-c", `exec "$@" <"$0"`, x.src}, append(args, "--name", "piped", "-")...)
	} else {
		x.s = x.send(append(args, x.src)...)
	}
}

func (x *faultRun) run() {
	began := time.Now()
	x.t.Cleanup(func() {
		if x.t.Failed() {
			run(x.t, "../../testbed/faults", "off")
		}
	})
	if x.fault.before != nil {
		x.fault.before(x)
	}
	late := false
	if x.fault.strike == nil {
		x.start(0)
		x.wantPlan()
	} else {
		x.start(3 * x.sum.slowest)
		x.wantPlan()
		late = !x.struck()
	}
	x.ends()
	if x.fault.mend != nil {
		x.fault.mend(x)
	}
	line := fmt.Sprintf("%v: recv %d, send %d", x, x.r.code, x.s.code)
	x.wantCodes(late)
	x.same(x.r.code == 0 && x.s.code == 0)
	if x.r.code != 0 || x.s.code != 0 {
		line += x.giveAgain()
	}
	if late {
		x.sum.late++
		line += "; too late"
	}
	fmt.Printf("%s; %.1f s\n", line, time.Since(began).Seconds())
}

// struck makes the fault when its moment has come, and reports whether there was still
// something to break when it was in force.
func (x *faultRun) struck() bool {
	if !x.awaitMoment() {
		return false
	}
	began := time.Now()
	x.fault.strike(x)
	x.sum.slowest = max(x.sum.slowest, time.Since(began))
	met := !x.complete()
	if x.fault.during != nil {
		x.fault.during(x)
	}
	return met
}

// wantPlan checks that the pair is sound: RDMA is there for who wants it.
func (x *faultRun) wantPlan() {
	want := x.transport
	if want == "auto" {
		want = "rdma"
	}
	if e := x.nextPlan(x.r); e["transport"] != want {
		x.sum.wrong++
		x.t.Errorf("%v: the plan before the fault: %v", x, e)
	}
}

// nextPlan waits for the next plan of an end; nil when it ends before.
func (x *faultRun) nextPlan(p *proc) map[string]any {
	deadline := time.After(patience)
	for {
		select {
		case e, ok := <-p.events:
			if !ok || e["event"] == "plan" {
				return e
			}
		case <-deadline:
			return nil // what hangs is noticed at the end
		}
	}
}

// awaitMoment waits until as many bytes have landed; false when that never happens.
func (x *faultRun) awaitMoment() bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		select {
		case <-tick.C:
			if x.taken() >= x.moment {
				return true
			}
		case <-x.r.ended:
			return false
		case <-x.s.ended:
			return false
		case <-deadline:
			return false
		}
	}
}

// taken is how much room the destination's files take, the ledger left out.
func (x *faultRun) taken() (n int64) {
	_ = filepath.WalkDir(x.into, func(path string, d fs.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil && d.Type().IsRegular() && !strings.HasSuffix(path, ".ledger") && path != x.filler() && syscall.Lstat(path, &st) == nil {
			n += st.Blocks * 512
		}
		return nil // files come and go meanwhile
	})
	return n
}

// complete reports whether there was nothing left to break: everything has landed, or
// an end is content.
func (x *faultRun) complete() bool {
	content := func(p *proc) bool {
		select {
		case <-p.ended:
			return p.code == 0
		default:
			return false
		}
	}
	return content(x.r) || content(x.s) || x.taken() >= x.total
}

// ends waits for both ends. Who hangs is made to say where.
func (x *faultRun) ends() {
	deadline := time.After(patience)
	for _, p := range []*proc{x.r, x.s} {
		select {
		case <-p.ended:
			continue
		case <-deadline:
		}
		x.sum.hung++
		x.t.Errorf("%v: %s hangs", x, p.name)
		for _, sig := range []syscall.Signal{syscall.SIGCONT, syscall.SIGQUIT} {
			p.signal(sig)
		}
		select {
		case <-p.ended:
		case <-time.After(patience):
			p.signal(syscall.SIGKILL)
			<-p.ended
		}
		closed := make(chan time.Time)
		close(closed)
		deadline = closed
	}
}
