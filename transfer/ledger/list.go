package ledger

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// Stale is a ledger that lies in a directory.
type Stale struct {
	Name     string
	Transfer [16]byte
	Size     int64 // bytes
	Modified time.Time
	Busy     bool // a receiver has it now: it is not stale
}

// List gives the ledgers of this user in a directory, in its order. It asks whether
// one is busy by locking it for a moment, in which a receiver that comes would find
// it busy.
func List(root *os.Root) ([]Stale, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("listing ledgers: %w", err)
	}
	defer dir.Close()
	var all []Stale
	for {
		entries, err := dir.ReadDir(1024)
		for _, e := range entries {
			s, ok, err := look(root, e.Name())
			if err != nil {
				return nil, err
			}
			if ok {
				all = append(all, s)
			}
		}
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("listing ledgers: %w", err)
		}
	}
}

// look tells what a name is: nothing, if it is no ledger, not this user's, or gone.
func look(root *os.Root, name string) (s Stale, ok bool, err error) {
	s.Name = name
	s.Transfer, ok = transferOf(name)
	if !ok {
		return s, false, nil
	}
	f, err := rooted{root}.open(name, false)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrForeign), errors.Is(err, fs.ErrPermission):
		return s, false, nil
	case errors.Is(err, ErrBusy):
		s.Busy = true
	case err != nil:
		return s, false, fmt.Errorf("ledger %s: %w", name, err)
	default:
		defer f.Close()
	}
	st, err := root.Lstat(name)
	if err != nil { // its receiver has just ended
		return s, false, nil
	}
	s.Size, s.Modified = st.Size(), st.ModTime()
	return s, true, nil
}

// transferOf is the inverse of Name.
func transferOf(name string) (t [16]byte, ok bool) {
	middle, ok1 := strings.CutPrefix(name, prefix)
	middle, ok2 := strings.CutSuffix(middle, suffix)
	if !ok1 || !ok2 || len(middle) != 2*len(t) {
		return t, false
	}
	_, err := hex.Decode(t[:], []byte(middle))
	return t, err == nil && Name(t) == name
}

// Clean removes a ledger that List gave, unless a receiver has it by now: [ErrBusy].
// One that is gone is no error.
func Clean(root *os.Root, name string) error {
	if _, ok := transferOf(name); !ok {
		return fmt.Errorf("ledger %s: %w", name, ErrForeign)
	}
	d := rooted{root}
	f, err := d.open(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ledger %s: %w", name, err)
	}
	defer f.Close()
	if err := d.remove(name+fresh, nil); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ledger %s: removing: %w", name+fresh, err)
	}
	if err := d.remove(name, f); err != nil {
		return fmt.Errorf("ledger %s: removing: %w", name, err)
	}
	return nil
}
