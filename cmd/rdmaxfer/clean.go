package main

import (
	"fmt"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// clean removes what interrupted transfers have left in a destination, or with
// --dry-run says what that is.
func clean(c *cli.Context) error {
	for _, flag := range []string{"discard", "as", "stdout"} {
		if c.IsSet(flag) {
			return usagef("--clean and --%s: only one of them", flag)
		}
	}
	d, err := transfer.OpenDirectory(c.String("into"), transfer.OverwriteNever)
	if err != nil {
		return err
	}
	defer d.Close()
	list, err := d.Clean(!c.Bool("dry-run"))
	out := newOutput(c.Context, "recv", c.Bool("json"))
	defer out.results.flush()
	var files int
	var freed int64
	for _, s := range list {
		size := ", " + units.BytesSize(float64(s.Bytes))
		what := "would be removed" + size
		switch {
		case s.Busy:
			what = "in use"
		case s.Removed:
			what = "removed" + size
		}
		if !s.Busy {
			files++
			freed += s.Bytes
		}
		out.event("stale", map[string]any{
			"path": s.Path, "bytes": s.Bytes, "modified": s.Modified.UTC().Format(time.RFC3339), "busy": s.Busy, "removed": s.Removed,
		})
		if !out.json {
			fmt.Printf("%s: %s, last written %s\n", s.Path, what, s.Modified.Format(time.DateTime))
		}
	}
	if err == nil && !out.json {
		done := "removed"
		if c.Bool("dry-run") {
			done = "would remove"
		}
		fmt.Printf("%s what %d interrupted transfers left, %s\n", done, files, units.BytesSize(float64(freed)))
	}
	return err
}
