package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rdmaxfer/rdmaxfer/compare"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

func writeReport(c *cli.Context, r *compare.Report) error {
	var errs []error
	write := func(flag string, f func(io.Writer) error) {
		switch path := c.String(flag); path {
		case "":
		case "-":
			errs = append(errs, f(os.Stdout))
		default:
			errs = append(errs, writeFile(path, f))
		}
	}
	write("json", r.WriteJSON)
	write("csv", r.WriteCSV)
	write("html", r.WriteHTML)
	if dir := c.String("hgrm"); dir != "" {
		errs = append(errs, writeLatencies(dir, r))
	}
	if c.String("json") != "-" && c.String("csv") != "-" && c.String("html") != "-" {
		errs = append(errs, r.WriteText(os.Stdout))
	}
	return errors.Join(errs...)
}

func writeFile(path string, f func(io.Writer) error) error {
	file, err := os.Create(path)
	if err == nil {
		err = errors.Join(f(file), file.Close())
	}
	if err != nil {
		return &transfer.Error{Code: transfer.CodeLocalIO, Err: fmt.Errorf("writing the report: %w", err)}
	}
	return nil
}

func writeLatencies(dir string, r *compare.Report) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return &transfer.Error{Code: transfer.CodeLocalIO, Err: fmt.Errorf("writing round trips: %w", err)}
	}
	for i := range r.Cells {
		cell := &r.Cells[i]
		for _, kind := range compare.LatencyKinds {
			name := fmt.Sprintf("%s-%s-%s-%s.hgrm", cell.Transport, cell.Method, compare.Size(cell.Size), kind)
			err := writeFile(filepath.Join(dir, name), func(w io.Writer) error { return cell.WriteLatency(w, kind) })
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

func sinceBaseline(c *cli.Context, r, before *compare.Report) error {
	changes, lacking := r.Since(before)
	worse, err := compare.WriteChanges(os.Stderr, changes, lacking)
	if worse > 0 {
		return &transfer.Error{Code: transfer.CodeWorse, Err: fmt.Errorf("%d of %d are worse than in %s", worse, len(changes), c.String("baseline"))}
	}
	return err
}
