package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// output tells a person, or with --json a program, what happens. Results go to
// standard output: receipts as b3sum prints them, and the summary as the last
// line. Everything else goes to standard error.
type output struct {
	role     string // send or recv
	json     bool
	verbose  bool // tells of paths
	results  *late
	session  int    // of a receiver, whose events these are, from 1 on; 0: nobody's
	peer     string // its sender's address
	progress transfer.Progress
	moved    func() int64

	mu    sync.Mutex
	lines func(string) // writes a line of diagnostics, above a progress bar if there is one
}

// newOutput is for a command that is to end when ctx does.
func newOutput(ctx context.Context, role string, asJSON bool) *output {
	return &output{role: role, json: asJSON, results: &late{ctx: ctx, out: os.Stdout}, moved: func() int64 { return 0 }, lines: func(s string) { fmt.Fprintln(os.Stderr, s) }}
}

// schema is the version of the JSON events.
const schema = 1

// event prints one JSON object.
func (o *output) event(name string, fields map[string]any) {
	if !o.json {
		return
	}
	fields["schema"] = schema
	fields["event"] = name
	fields["role"] = o.role
	if o.session > 0 { // several senders' events may come by turns
		fields["session"], fields["peer"] = o.session, o.peer
	}
	line, err := json.Marshal(fields)
	if err != nil {
		panic(err) // strings, numbers and booleans alone
	}
	if line = append(line, '\n'); name == "file" {
		o.results.later(line)
		return
	}
	o.results.soon(line)
}

func (o *output) say(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines("rdmaxfer: " + fmt.Sprintf(format, args...))
}

// listening says that senders may come.
func (o *output) listening(addr net.Addr, sink transfer.Sink) {
	o.event("listening", map[string]any{"address": addr.String(), "sink": sink.Describe()})
	o.say("listening on %v, %s", addr, sink.Describe())
}

// Planned says what carries the data, and why not something else.
func (o *output) Planned(p transfer.Plan) {
	o.event("plan", map[string]any{"transport": p.Transport, "detail": p.Detail, "lanes": p.Lanes, "reason": p.Reason})
	o.say("%s", describePlan(p))
}

// File prints a receipt, or what went wrong.
func (o *output) File(f transfer.FileResult) {
	if !o.json && f.Err == nil && f.Left == nil && f.Foreseen == nil && f.Skipped == "" {
		o.receipt(f)
		return
	}
	fields := map[string]any{"path": f.Path, "bytes": f.Size, "ok": f.Err == nil}
	if f.Foreseen != nil && f.Skipped == "" {
		o.foreseen(f, fields)
		return
	}
	switch {
	case f.Left != nil:
		o.event("left", map[string]any{"path": f.Path, "error": f.Left.Error()})
		o.say("%v", f.Left)
		return
	case f.Skipped != "":
		o.event("skipped", map[string]any{"path": f.Path, "reason": f.Skipped})
		o.say("left out: %s is %s", transfer.Printable(f.Path), f.Skipped)
		return
	case f.Err != nil:
		fields["error"] = f.Err.Error()
		fields["code"] = transfer.CodeOf(f.Err)
		o.say("%v", f.Err)
	case f.Digest != nil:
		fields[f.Kind.String()] = f.Kind.Hex(*f.Digest)
	}
	o.event("file", fields)
}

// receipt prints a receipt for a person, of thousands in a second, and makes no more of it than the line.
func (o *output) receipt(f transfer.FileResult) {
	if f.Digest == nil {
		return
	}
	line := make([]byte, 0, 256)
	line = f.Kind.AppendHex(line, *f.Digest)
	line = append(line, "  "...)
	line = append(line, transfer.Printable(f.Path)...)
	o.results.later(append(line, '\n'))
}

// foreseen prints what a dry run says of a file.
func (o *output) foreseen(f transfer.FileResult, fields map[string]any) {
	verb := map[string]string{"send": "send", "recv": "receive"}[o.role]
	name, size := transfer.Printable(f.Path), iec(float64(f.Size))
	if f.Size < 0 {
		size = "of unknown size"
		delete(fields, "bytes")
	}
	action, line := "send", fmt.Sprintf("would %s %s, %s", verb, name, size)
	switch {
	case f.Err != nil:
		action, line = "fail", fmt.Sprintf("would not %s %s: %v", verb, name, f.Err)
		fields["error"], fields["code"] = f.Err.Error(), transfer.CodeOf(f.Err)
	case f.Foreseen.Done:
		action, line = "skip", fmt.Sprintf("would not %s %s, %s: it has landed before", verb, name, size)
	case f.Foreseen.Here > 0:
		action = "resume"
		line = fmt.Sprintf("would %s %s of %s, %s", verb, iec(float64(f.Size-f.Foreseen.Here)), name, size)
	}
	if f.Err == nil && f.Size >= 0 {
		fields["missing_bytes"] = f.Size - f.Foreseen.Here
	}
	if f.Foreseen.Replaces {
		line += ", and replace what is there"
	}
	fields["action"], fields["replaces"] = action, f.Foreseen.Replaces
	o.event("foreseen", fields)
	if !o.json {
		o.results.later([]byte(line + "\n"))
	}
}

// describePlan is the transport as the summary line has it.
func describePlan(p transfer.Plan) string {
	if p.Transport == transfer.TransportRDMA {
		s := fmt.Sprintf("rdma %s lanes=%d", p.Detail, p.Lanes)
		if p.Reason != "" {
			s += " (" + p.Reason + ")"
		}
		return s
	}
	s := fmt.Sprintf("tcp streams=%d %s", p.Lanes, p.Detail)
	if p.Reason != "" {
		s += " (rdma skipped: " + p.Reason + ")"
	}
	return s
}

// summary prints the last line, or the last JSON object, and passes the error on; else that of
// what could not be printed: who goes by the receipts must not miss one.
func (o *output) summary(r *transfer.Result, err error) error {
	if r == nil {
		r = &transfer.Result{}
	}
	o.summarise(r, err)
	if lost := o.results.flush(); err == nil && lost != nil {
		err = &transfer.Error{Code: transfer.CodeLocalIO, Err: fmt.Errorf("all is over, but not all of it was printed: standard output: %w", lost)}
	}
	return err
}

// failed is summary for what ended before there was a transfer. Only what made no sense on the
// command line has none.
func (o *output) failed(err error) error {
	var usage usageError
	if err == nil || errors.As(err, &usage) {
		return err
	}
	return o.summary(nil, causeOr(o.results.ctx, err))
}

func (o *output) summarise(r *transfer.Result, err error) {
	seconds := r.Elapsed.Seconds()
	rate := 0.0
	if seconds > 0 {
		rate = float64(r.Bytes-r.Resumed) / seconds
	}
	each := []map[string]any{}
	for _, l := range r.Lanes {
		each = append(each, map[string]any{"transport": l.Transport, "detail": l.Detail, "bytes": l.Bytes})
	}
	fields := map[string]any{
		"each_lane": each,
		"files":     r.Files, "failed": r.Failed, "bytes": r.Bytes, "resumed_bytes": r.Resumed, "seconds": seconds, "bytes_per_second": rate,
		"transport": r.Plan.Transport, "detail": r.Plan.Detail, "lanes": r.Plan.Lanes, "reason": r.Plan.Reason,
		"dry_run": r.DryRun,
		"verify":  r.Verify, "digest_seconds": r.Hashing.Seconds(), "ok": err == nil, "code": exitCode(err),
	}
	if s := r.Storage; s.Asked != "" {
		fields["direct"], fields["direct_bytes"], fields["cached_bytes"], fields["direct_refused"] = s.Asked, s.Direct, s.Cached, s.Refused
		fields["readback_bytes"], fields["readback_seconds"] = s.Readback, s.Reading.Seconds()
	}
	if err != nil {
		fields["error"] = err.Error()
	}
	if r.Measured > 0 {
		fields["measured"] = r.Measured
	}
	o.event("summary", fields)
	if !o.json && r.Measured > 0 {
		o.results.soon(fmt.Appendf(nil, "measured %d loads, kept nothing\n", r.Measured))
	}
	nothing := r.Files == 0 && r.Failed == 0 && r.Plan.Transport == "" && !r.DryRun // nothing was even planned
	if o.json || r.Measured > 0 || nothing {
		return
	}
	o.results.soon([]byte(summaryLine(o.role, r, seconds, rate) + "\n"))
}

func summaryLine(role string, r *transfer.Result, seconds, rate float64) string {
	verb := map[string]string{"send": "sent", "recv": "received"}[role]
	verified := r.Verify + " verified"
	if r.Verify == transfer.VerifyNone {
		verified = "not verified"
	}
	if r.Hashing >= 50*time.Millisecond { // beside the moving
		verified += fmt.Sprintf(" (%.1f s of hashing)", r.Hashing.Seconds())
	}
	files := "files"
	if r.Files == 1 {
		files = "file"
	}
	if r.DryRun {
		verb = map[string]string{"send": "would send", "recv": "would receive"}[role]
		return fmt.Sprintf("%s %d %s, %s, of which %s have landed before · %d would fail · nothing was moved",
			verb, r.Files, files, iec(float64(r.Bytes)), iec(float64(r.Resumed)), r.Failed)
	}
	line := []string{
		fmt.Sprintf("%s %d %s, %s in %.1f s, %s/s", verb, r.Files, files, iec(float64(r.Bytes)), seconds, iec(rate)),
		describePlan(r.Plan),
	}
	if r.Files > 0 {
		line = append(line, verified)
	}
	line = append(line, storageWords(r.Storage)...)
	if r.Resumed > 0 {
		line = append(line, iec(float64(r.Resumed))+" had landed before")
	}
	if r.Failed > 0 {
		line = append(line, fmt.Sprintf("%d failed", r.Failed))
	}
	return strings.Join(line, " · ")
}

// storageWords say what was asked of this end's storage, and came of it.
func storageWords(s transfer.Storage) (line []string) {
	if s.Asked == transfer.DirectAlways || s.Asked == transfer.DirectAuto {
		direct := fmt.Sprintf("%s of %s direct", iec(float64(s.Direct)), iec(float64(s.Direct+s.Cached)))
		if s.Refused != "" {
			direct += " (" + s.Refused + ")"
		}
		line = append(line, direct)
	}
	if s.Readback > 0 {
		line = append(line, fmt.Sprintf("%s read back in %.1f s", iec(float64(s.Readback)), s.Reading.Seconds()))
	}
	return line
}

// iec prints bytes with one decimal and a binary unit.
func iec(n float64) string {
	if n < 1024 {
		return fmt.Sprintf("%.0f B", n)
	}
	i := 0
	for n >= 1024 && i < 6 {
		n /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %ciB", n, " KMGTPE"[i])
}

// showProgress shows a bar on a terminal, and a line a second elsewhere, until the
// function that it answers is called.
func (o *output) showProgress() (stop func()) {
	if o.json {
		return func() {}
	}
	show, clear := o.progressLine, func() {}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		show, clear = o.progressBar()
	}
	done := make(chan struct{})
	var shown sync.WaitGroup
	shown.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				clear()
				return
			case <-tick.C:
				if o.progress.Total.Load() > 0 {
					show()
				}
			}
		}
	})
	return func() {
		close(done)
		shown.Wait()
	}
}

func (o *output) progressLine() {
	moved, total := o.moved(), o.progress.Total.Load()
	o.say("%s of %s, %.0f %%", iec(float64(moved)), iec(float64(total)), 100*float64(moved)/float64(total))
}

func (o *output) progressBar() (show, clear func()) {
	bar := progressbar.NewOptions64(-1,
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionShowBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionShowCount(),
		progressbar.OptionFullWidth(),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(0),
	)
	o.lines = func(s string) {
		_ = bar.Clear()
		fmt.Fprintln(os.Stderr, s)
	}
	show = func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		bar.ChangeMax64(o.progress.Total.Load())
		_ = bar.Set64(o.moved())
	}
	return show, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		_ = bar.Finish()
	}
}
