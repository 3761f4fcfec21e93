//go:build rxe

package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// wantCodes checks the exit status of both ends.
func (x *faultRun) wantCodes(late bool) {
	recv, send := x.fault.want(x)
	if late {
		recv, send = append(recv, 0), append(send, 0)
	}
	if !slices.Contains(recv, x.r.code) || !slices.Contains(send, x.s.code) {
		x.sum.wrong++
		x.t.Errorf("%v: recv ended with %d, want %v; send with %d, want %v", x, x.r.code, recv, x.s.code, send)
	}
}

// giveAgain gives the same command again, now that nothing is broken: it ends well, goes
// on from what has its name, and what landed is what was sent.
func (x *faultRun) giveAgain() string {
	x.again = true
	whole := x.r.code == 0 // and the sender does not know
	named := x.named()
	x.start(0)
	x.ends()
	want := []int{0}
	if whole {
		want = append(want, 8)
	}
	if x.r.code != x.s.code || !slices.Contains(want, x.r.code) {
		x.sum.wrong++
		x.t.Errorf("%v: given again, recv ended with %d and send with %d, want %v", x, x.r.code, x.s.code, want)
	}
	if n, ok := x.r.last["resumed_bytes"].(float64); ok {
		x.resumed = int64(n)
	}
	if !slices.Contains(x.recvArgs, "--no-sync") && !whole && x.what != "stream" && x.resumed < named {
		x.sum.lost++
		x.t.Errorf("%v: %d bytes had their names, and only %d were not sent again", x, named, x.resumed)
	}
	x.same(true)
	return fmt.Sprintf("; again: recv %d, send %d, %s had landed", x.r.code, x.s.code, iec(float64(x.resumed)))
}

// named is how many bytes of the source, as it is now, have their names.
func (x *faultRun) named() (n int64) {
	_ = filepath.WalkDir(x.landsAs(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		rel, _ := filepath.Rel(x.landsAs(), path)
		got, _ := os.Stat(path)
		want, _ := os.Stat(filepath.Join(x.src, rel))
		if got != nil && want != nil && got.ModTime().Equal(want.ModTime()) {
			n += got.Size()
		}
		return nil
	})
	return n
}

// same compares the destination with the source. What is not there is an error when the
// transfer said that it is; what is there is never another.
func (x *faultRun) same(whole bool) {
	for _, name := range x.landed() {
		if name == filepath.Base(x.landsAs()) || !whole && strings.HasPrefix(name, ".rdmaxfer-") {
			continue
		}
		x.sum.left++
		x.t.Errorf("%v: left behind: %s", x, name)
	}
	if !whole && x.fault.name == "source changed" {
		return // what landed before is of the old one
	}
	err := filepath.WalkDir(x.src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(x.src, path)
		if err != nil {
			return err
		}
		to := filepath.Join(x.landsAs(), rel)
		want, err := os.Stat(path)
		if err != nil {
			return err
		}
		got, err := os.Lstat(to)
		switch {
		case os.IsNotExist(err) && !whole:
			return nil
		case os.IsNotExist(err):
			x.sum.lost++
			x.t.Errorf("%v: %s is not there", x, rel)
			return nil
		case err != nil:
			return err
		case d.IsDir() && !whole:
			return nil
		}
		differs := x.what != "stream" && (got.Mode() != want.Mode() || !got.ModTime().Equal(want.ModTime()))
		if !d.IsDir() && !differs {
			a, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b, err := os.ReadFile(to)
			if err != nil {
				return err
			}
			differs = !bytes.Equal(a, b)
		}
		if differs {
			x.sum.corrupt++
			x.t.Errorf("%v: %s is not what was sent: %v %v %d bytes, want %v %v %d", x, rel,
				got.Mode(), got.ModTime(), got.Size(), want.Mode(), want.ModTime(), want.Size())
		}
		return nil
	})
	if err != nil {
		x.t.Error(err)
	}
}
