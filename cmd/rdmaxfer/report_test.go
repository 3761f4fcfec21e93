//go:build !rxe

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/compare"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// names lists a directory.
func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// TestReportFilesComeFirst: what stands in a report's way is found out before anybody is asked
// for anything, and an earlier report outlives what fails.
func TestReportFilesComeFirst(t *testing.T) {
	tt := newTransfer(t)
	old := filepath.Join(tt.into, "old")
	if err := os.WriteFile(old, []byte("precious"), 0o640); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]struct {
		code transfer.Code
		word string
	}{
		"--json /no/such/dir/r.json":                    {transfer.CodeLocalIO, "/no/such/dir"},
		"--csv " + tt.into:                              {transfer.CodeLocalIO, "is a directory"},
		"--json " + old + " --html /no/such/dir/r.html": {transfer.CodeLocalIO, "/no/such/dir"},
		"--hgrm " + old:                                 {transfer.CodeLocalIO, "round trips"},
		"--json - --html -":                             {transfer.CodeUsage, "--json and --html are both -"},
		"--csv r --html r":                              {transfer.CodeUsage, "--csv and --html are both r"},
		"--json " + old + " --csv -":                    {transfer.CodeConnect, ""},
	} {
		argv := append([]string{"compare", "--key-file", tt.key, "--methods", "tcp"}, strings.Fields(args)...)
		host{}.start(t, append(argv, "127.0.0.1:1")...).want(want.code, want.word)
		if b, err := os.ReadFile(old); err != nil || string(b) != "precious" || !slices.Equal(names(t, tt.into), []string{"old"}) {
			t.Errorf("%s: %q, %v; %v", args, b, err, names(t, tt.into))
		}
	}
}

// TestReportIsReplacedWhole: the one before is there until then; its mode, and a link to it,
// stay.
func TestReportIsReplacedWhole(t *testing.T) {
	tt := newTransfer(t)
	path, link := filepath.Join(tt.into, "report.json"), filepath.Join(tt.into, "link")
	if err := os.WriteFile(path, []byte("precious"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("report.json", link); err != nil {
		t.Fatal(err)
	}
	tt.recv("--discard")
	c := tt.compare("--methods", "copy", "--sizes", "4K", "--rounds", "1000", "--json", link, "--csv", "/dev/stdout", "--html", filepath.Join(tt.into, "page"))
	c.awaitText("round 2 of 1000")
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("while it measures: %q, %v", b, err)
	}
	c.signal(syscall.SIGINT)
	c.want(130)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := compare.ReadJSON(b); err != nil || len(r.Cells) != 1 || r.Cells[0].Rounds < 1 {
		t.Errorf("%+v, %v", r, err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode() != 0o640 {
		t.Errorf("%v, %v", st, err)
	}
	if got := names(t, tt.into); !slices.Equal(got, []string{"link", "page", "report.json"}) {
		t.Errorf("%v", got)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%v, %v", st, err)
	}
	if !strings.Contains(c.plain.String(), "transport,method,size_bytes") {
		t.Errorf("no CSV: %s", c.plain.String())
	}
}

// TestReportWhereNothingIsRenamed: a file that is a mount of its own, and one in a directory
// where nothing can be made, have the report all the same; nothing else is left there.
func TestReportWhereNothingIsRenamed(t *testing.T) {
	mounts, powerless := []string{"unshare", "--mount"}, []string(nil)
	if os.Geteuid() != 0 {
		mounts = append(mounts, "--map-root-user")
	} else {
		powerless = []string{"setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"}
	}
	mounts = append(mounts, "sh", "-ec")
	for name, wrap := range map[string][]string{
		"a mount":                append(slices.Clone(mounts), `mount --bind old old; exec "$0" "$@"`),
		"in one of no writing":   append(slices.Clone(mounts), `mount --bind . .; cd "$PWD"; mount --bind old old; mount -o remount,bind,ro .; exec "$0" "$@"`),
		"in one of someone else": append(slices.Clone(powerless), "sh", "-ec", `chmod 555 .; exec "$0" "$@"`),
	} {
		tt := newTransfer(t)
		old := filepath.Join(tt.into, "old")
		if err := os.WriteFile(old, []byte(strings.Repeat("precious", 10_000)), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(tt.into, 0o755) }) // or nobody but root can remove what is in it
		r := tt.recv("--discard")
		wrap = append([]string{"env", "-C", tt.into}, wrap...)
		twoHosts[1].startWith(t, wrap, "compare", "--key-file", tt.key, "--methods", "copy", "--sizes", "4K", "--rounds", "1", "--duration", "50ms", "--json", old, tt.addr).want(transfer.CodeOK)
		r.want(transfer.CodeOK)
		b, err := os.ReadFile(old)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := compare.ReadJSON(b); err != nil || len(r.Cells) != 1 || !slices.Equal(names(t, tt.into), []string{"old"}) {
			t.Errorf("%s: %+v, %v; %v", name, r, err, names(t, tt.into))
		}
	}
}

// TestReportThatCantGetItsName stays beside it, and the error says where.
func TestReportThatCantGetItsName(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "report")
	r, err := createReport(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil { // while it is measured
		t.Fatal(err)
	}
	err = r.write(func(w io.Writer) error { _, err := io.WriteString(w, "long measured"); return err })
	r.discard()
	if err == nil || !strings.Contains(err.Error(), "the report is in "+r.Name()+": ") {
		t.Error(err)
	}
	if b, err := os.ReadFile(r.Name()); err != nil || string(b) != "long measured" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestReportByALink that leads to nothing yet makes what it leads to, as it does where that is
// there: through other links, and from the directory that they are in.
func TestReportByALink(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"first": "dir/../second", "a/second": "third", "a/third": filepath.Join(dir, "report"), "dir": "a/b", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"first time", "again"} {
		r, err := createReport(filepath.Join(dir, "first"))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.write(func(w io.Writer) error { _, err := io.WriteString(w, text); return err }); err != nil {
			t.Error(err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "report")); err != nil || string(b) != text {
			t.Errorf("%q, %v", b, err)
		}
	}
	if r, err := createReport(filepath.Join(dir, "loop")); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("%v, %v", r, err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"a", "dir", "first", "loop", "report"}) {
		t.Errorf("%v", got)
	}
}

// TestStandardOutputThatFails is an error of local I/O; a reader who has ended is none.
func TestStandardOutputThatFails(t *testing.T) {
	for _, args := range []string{
		"compare --methods copy --sizes 4K --rounds 1",
		"compare --methods copy --sizes 4K --rounds 1 --json -",
		"bench lat --op copy --size 100",
		"bench lat --op copy --size 100 --json",
	} {
		for how, code := range map[string]transfer.Code{
			`exec 3> >(true); wait $!; exec "$0" "$@" >&3`: transfer.CodeOK,
			`exec "$0" "$@" >/dev/full`:                    transfer.CodeLocalIO,
		} {
			tt := newTransfer(t)
			r := tt.recv("--discard")
			argv := append(strings.Fields(args), "--key-file", tt.key, "--duration", "50ms", tt.addr)
			p := twoHosts[1].startWith(t, []string{"bash", "-c", how}, argv...)
			if code == transfer.CodeOK {
				p.want(code)
			} else {
				p.want(code, "not all of it was printed: standard output")
			}
			r.want(transfer.CodeOK)
		}
	}
}

// TestBaselineGate: the gate shuts when a method that was there is not any more, whatever
// becomes of the text, and is no gate when there is nothing to compare.
func TestBaselineGate(t *testing.T) {
	tt := newTransfer(t)
	r := tt.recv("--discard")
	tt.compare("--methods", "copy", "--sizes", "4K", "--rounds", "4").want(transfer.CodeOK)
	r.want(transfer.CodeOK)
	baseline := filepath.Join(tt.dir, "baseline.json")
	save := func(change func(*compare.Report)) {
		t.Helper()
		report := tt.report()
		// Nothing is worse than this.
		report.Cells[0].Rate, report.Cells[0].Trip = compare.Interval{Median: 1, Low: 1, High: 1}, compare.Interval{Median: 1e6, Low: 1e6, High: 1e6}
		change(report)
		b, err := json.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(baseline, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	against := func(wrap []string, args ...string) *proc {
		t.Helper()
		argv := append([]string{"compare", "--key-file", tt.key, "--sizes", "4K", "--duration", "50ms", "--rounds", "4", "--baseline", baseline}, args...)
		return twoHosts[1].startWith(t, wrap, append(argv, tt.addr)...)
	}

	save(func(r *compare.Report) { r.Duration = 9 })
	r = tt.recv("--discard")
	against(nil, "--methods", "copy").want(transfer.CodeOK, "2 better, 0 same, 0 worse", "a measurement took 9 s then, and 0.05 s now")
	r.want(transfer.CodeOK)
	against(nil, "--methods", "copy", "--rounds", "3").want(transfer.CodeUsage, "fewer than 4 rounds")
	against(nil, "--methods", "splice").want(transfer.CodeUsage, "none of the methods and sizes")

	save(func(r *compare.Report) { // with an RDMA that this host has not
		lost := r.Cells[0]
		lost.Transport, lost.Method = transfer.TransportRDMA, "write"
		r.Cells = append(r.Cells, lost)
	})
	r = tt.recv("--discard")
	against(nil, "--methods", "write,copy").want(transfer.CodeWorse, "worse: rdma write at 4K, 1.0 B/s then, not measured: ")
	r.want(transfer.CodeOK)

	save(func(r *compare.Report) { r.Cells[0].Rate = compare.Interval{Median: 1e18, Low: 1e18, High: 1e18} })
	r = tt.recv("--discard")
	against([]string{"bash", "-c", `exec "$0" "$@" >/dev/full`}, "--methods", "copy").want(transfer.CodeWorse, "worse: tcp copy at 4K, bandwidth", "not all of it was printed")
	r.want(transfer.CodeOK)
}

// TestLongPeers: others' programs would be ended in the middle of a measurement, which is
// known before it begins.
func TestLongPeers(t *testing.T) {
	tt := newTransfer(t)
	for args, flag := range map[string]string{
		"compare --peers":                  "peers",
		"compare --fio " + tt.into:         "fio",
		"bench bw --op copy --peers":       "peers",
		"bench lat --op send --peers":      "peers",
		"compare --peers --fio " + tt.into: "peers",
	} {
		argv := append(strings.Fields(args), "--key-file", tt.key, "--duration", "151s", "127.0.0.1:1")
		host{}.start(t, argv...).want(transfer.CodeUsage, fmt.Sprintf("--duration 2m31s with --%s: up to 2m30s, for others' programs are ended 3m0s after they began", flag))
	}
	argv := []string{"compare", "--key-file", tt.key, "--fio", tt.into, "--duration", "150s", "--methods", "tcp", "127.0.0.1:1"}
	host{}.start(t, argv...).want(transfer.CodeConnect)
}
