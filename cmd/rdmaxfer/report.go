package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/compare"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// reportFlags name files for the report, in one form each; - is standard output.
var reportFlags = []string{"json", "csv", "html"}

// reportFile is what a report is written to. It is there before anything is measured, for
// what stands in its way had better be known then; but not by its name, so that an earlier
// report stays until this one is whole. Where nothing can be made beside that, it is the file
// itself.
type reportFile struct {
	*os.File
	name string // that it gets; empty where it has that
}

// openReports opens the files that the flags name. They must be discarded in the end, written
// or not.
func openReports(c *cli.Context) (map[string]*reportFile, error) {
	files := make(map[string]*reportFile)
	named := make(map[string]string)
	for _, flag := range reportFlags {
		path := c.String(flag)
		if other := named[path]; other != "" && path != "" {
			return nil, usagef("--%s and --%s are both %s, which has room for one of them", other, flag, path)
		}
		named[path] = flag
	}
	for _, flag := range reportFlags {
		path := c.String(flag)
		if path == "" || path == "-" {
			continue
		}
		f, err := openReport(path)
		if err != nil {
			discardReports(files)
			return nil, err
		}
		files[flag] = f
	}
	if dir := c.String("hgrm"); dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			discardReports(files)
			return nil, localIO("writing round trips", err)
		}
	}
	return files, nil
}

func discardReports(files map[string]*reportFile) {
	for _, f := range files {
		f.discard()
	}
}

func localIO(what string, err error) error {
	return &transfer.Error{Code: transfer.CodeLocalIO, Err: fmt.Errorf("%s: %w", what, err)}
}

func openReport(path string) (*reportFile, error) {
	f, err := createReport(path)
	if err != nil {
		return nil, localIO("writing the report", err)
	}
	return f, nil
}

// createReport makes a file beside the one that path names, with the mode of that, if it is
// there; but opens what is no regular file, and what can be written where its directory can't.
func createReport(path string) (*reportFile, error) {
	st, err := os.Stat(path)
	switch {
	case err == nil && !st.Mode().IsRegular():
		return openInPlace(path)
	case err == nil:
		if path, err = filepath.EvalSymlinks(path); err != nil { // a link stays one
			return nil, err
		}
	case errors.Is(err, fs.ErrNotExist):
		path = danglingTo(path)
	default:
		return nil, err
	}
	r, err := createBeside(path, st)
	if st != nil && (errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS)) {
		if in, inErr := openInPlace(path); inErr == nil {
			return in, nil
		}
	}
	return r, err
}

func openInPlace(path string) (*reportFile, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return &reportFile{File: f}, nil
}

// danglingTo is what the links that path may be lead to, where nothing is there yet.
func danglingTo(path string) string {
	for range 40 { // as many as the kernel follows
		to, err := os.Readlink(path)
		if err != nil { // no link
			break
		}
		if !filepath.IsAbs(to) {
			to = directory(path) + to
		}
		path = to
	}
	return path
}

// directory is that of a path, with the slash at its end. (To clean it as filepath.Dir does
// would make another of it where .. comes after a link.)
func directory(path string) string { return path[:strings.LastIndexByte(path, '/')+1] }

// createBeside makes a file with the mode of an earlier one, if there is that.
func createBeside(path string, earlier fs.FileInfo) (*reportFile, error) {
	for {
		name := directory(path) + fmt.Sprintf(".rdmaxfer-report-%08x", rand.Uint32())
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		r := &reportFile{f, path}
		if earlier != nil {
			if err := f.Chmod(earlier.Mode().Perm()); err != nil {
				r.discard()
				return nil, err
			}
		}
		return r, nil
	}
}

// write has f write the whole report, which then gets its name. What can't get that, such as
// a file that is a mount of its own, is overwritten; and where that fails too the report stays
// beside it, for it took long to measure.
func (r *reportFile) write(f func(io.Writer) error) error {
	var err error
	if st, statErr := r.Stat(); statErr == nil && r.name == "" && st.Mode().IsRegular() {
		err = r.Truncate(0)
	}
	err = errors.Join(err, f(r.File), r.Close())
	if err == nil && r.name != "" {
		if renameErr := os.Rename(r.Name(), r.name); renameErr == nil {
			return nil
		} else if err := overwrite(r.name, f); err != nil {
			r.name = "" // so that it is not discarded
			return localIO("the report is in "+r.Name(), errors.Join(renameErr, err))
		}
	}
	r.discard()
	if err != nil {
		return localIO("writing the report", err)
	}
	return nil
}

// overwrite has f write what a file that is there shall have instead of what it has.
func overwrite(path string, f func(io.Writer) error) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	return errors.Join(f(file), file.Close())
}

// discard leaves nothing of it but what has its name.
func (r *reportFile) discard() {
	r.Close()
	if r.name != "" {
		os.Remove(r.Name())
	}
}

// writeReport writes the report to the files that openReports opened, and to standard output.
func writeReport(c *cli.Context, r *compare.Report, files map[string]*reportFile) error {
	var errs []error
	text := true
	for flag, f := range map[string]func(io.Writer) error{"json": r.WriteJSON, "csv": r.WriteCSV, "html": r.WriteHTML} {
		if file := files[flag]; file != nil {
			errs = append(errs, file.write(f))
		} else if c.String(flag) == "-" {
			text = false
			errs = append(errs, toStandardOutput(c, f))
		}
	}
	if dir := c.String("hgrm"); dir != "" {
		errs = append(errs, writeLatencies(dir, r))
	}
	if text {
		errs = append(errs, toStandardOutput(c, r.WriteText))
	}
	return errors.Join(errs...)
}

// toStandardOutput prints what f writes, as a transfer prints its results: a reader who has
// ended wants no more.
func toStandardOutput(c *cli.Context, f func(io.Writer) error) error {
	var b bytes.Buffer
	if err := f(&b); err != nil {
		return err
	}
	out := &late{ctx: c.Context, out: os.Stdout}
	out.soon(b.Bytes())
	if err := out.flush(); err != nil {
		return localIO("all was measured, but not all of it was printed: standard output", err)
	}
	return nil
}

func writeLatencies(dir string, r *compare.Report) error {
	for i := range r.Cells {
		cell := &r.Cells[i]
		for _, kind := range compare.LatencyKinds {
			name := fmt.Sprintf("%s-%s-%s-%s.hgrm", cell.Transport, cell.Method, compare.Size(cell.Size), kind)
			f, err := openReport(filepath.Join(dir, name))
			if err == nil {
				err = f.write(func(w io.Writer) error { return cell.WriteLatency(w, kind) })
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// nothing is an error when nothing could be measured.
func nothing(r *compare.Report) error {
	if len(r.Cells) > 0 || len(r.Skipped) == 0 {
		return nil
	}
	code := transfer.CodeConnect
	if strings.HasPrefix(r.Skipped[0].Method, transfer.TransportRDMA) {
		code = transfer.CodeNoRDMA
	}
	return &transfer.Error{Code: code, Err: fmt.Errorf("nothing was measured; %s: %s", r.Skipped[0].Method, r.Skipped[0].Reason)}
}

func readBaseline(path string) (*compare.Report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, &transfer.Error{Code: transfer.CodeLocalIO, Err: fmt.Errorf("--baseline: %w", err)}
	}
	r, err := compare.ReadJSON(b)
	if err != nil {
		return nil, usagef("--baseline %s: %v", path, err)
	}
	return r, nil
}

func sinceBaseline(c *cli.Context, r, before *compare.Report, sizes []int) error {
	for _, line := range r.Unlike(before) {
		fmt.Fprintln(os.Stderr, "against the baseline:", line)
	}
	changes, lacking := r.Since(before, sizes)
	worse, _ := compare.WriteChanges(os.Stderr, changes, lacking) // the exit status tells it, too
	if worse > 0 {
		return &transfer.Error{Code: transfer.CodeWorse, Err: fmt.Errorf("%d of %d are worse than in %s", worse, len(changes), c.String("baseline"))}
	}
	return nil
}
