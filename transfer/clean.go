package transfer

import (
	"cmp"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer/ledger"
)

// Stale is what a transfer that was interrupted has left in a [Directory].
type Stale struct {
	Path     string    // of its hidden directory
	Bytes    int64     // that it takes on the disk, its ledger's too
	Modified time.Time // last
	Busy     bool      // a transfer uses it now: it is not stale
	Removed  bool
}

// Clean lists what interrupted transfers have left, the oldest first, and with remove
// removes it, unless a transfer uses it. What another user made, or is no directory, is
// left alone and not listed.
func (d *Directory) Clean(remove bool) ([]Stale, error) {
	ids, err := d.left()
	if err != nil {
		return nil, err
	}
	ledgers, err := ledger.List(d.root)
	if err != nil {
		return nil, ledgerError("cleaning", err)
	}
	logs := make(map[[16]byte]ledger.Stale)
	for _, l := range ledgers {
		logs[l.Transfer] = l
		ids[l.Transfer] = true
	}
	var all []Stale
	for id := range ids {
		log, logged := logs[id]
		s, ok, err := d.cleanOne(stagingPrefix+hex.EncodeToString(id[:]), log, logged, remove)
		if err != nil {
			return all, err
		}
		if ok {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Stale) int {
		return cmp.Or(a.Modified.Compare(b.Modified), strings.Compare(a.Path, b.Path))
	})
	return all, nil
}

// left gives the transfers that a hidden directory has the name of.
func (d *Directory) left() (map[[16]byte]bool, error) {
	ids := make(map[[16]byte]bool)
	top, err := d.root.Open(".")
	if err != nil {
		return nil, errorf(CodeLocalIO, "destination: %w", err)
	}
	defer top.Close()
	for {
		names, err := top.Readdirnames(1024)
		for _, name := range names {
			if id, ok := strings.CutPrefix(name, stagingPrefix); ok {
				if b, err := hex.DecodeString(id); err == nil && len(b) == 16 {
					ids[[16]byte(b)] = true
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return ids, nil
		case err != nil:
			return nil, errorf(CodeLocalIO, "destination: %w", err)
		}
	}
}

// cleanOne looks at one transfer's directory, whose lock it holds meanwhile, and at its
// ledger. It answers false when there is nothing that this user could remove.
func (d *Directory) cleanOne(name string, log ledger.Stale, logged, remove bool) (s Stale, ok bool, err error) {
	s = Stale{Path: d.path(name), Bytes: log.Size, Modified: log.Modified, Busy: log.Busy}
	hidden, err := d.claim(name)
	switch {
	case err == nil:
		defer hidden.release()
		if err := hidden.measure(&s); err != nil {
			return s, false, err
		}
	case errors.Is(err, errBusy):
		s.Busy = true
	case errors.Is(err, fs.ErrNotExist) && logged: // its ledger alone is left
	default:
		return s, false, nil
	}
	if !remove || s.Busy {
		return s, true, nil
	}
	if hidden != nil {
		if err := d.root.RemoveAll(name); err != nil {
			return s, true, errorf(CodeLocalIO, "removing %s: %w", s.Path, err)
		}
	}
	if logged {
		err = ledger.Clean(d.root, log.Name)
	}
	s.Busy = errors.Is(err, ledger.ErrBusy)
	s.Removed = !s.Busy
	if s.Busy {
		err = nil
	}
	return s, true, ledgerError("cleaning", err)
}

// measure adds what lies in the hidden directory, whose entries are parts alone.
func (s *staging) measure(to *Stale) error {
	entries, err := s.dir.ReadDir(-1)
	if err != nil {
		return errorf(CodeLocalIO, "destination: %w", err)
	}
	var st unix.Stat_t
	add := func(err error) {
		if err == nil { // else it is gone
			to.Bytes += st.Blocks * 512
			if at := time.Unix(st.Mtim.Unix()); at.After(to.Modified) {
				to.Modified = at
			}
		}
	}
	fd := int(s.dir.Fd())
	add(unix.Fstat(fd, &st))
	for _, e := range entries {
		add(unix.Fstatat(fd, e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW))
	}
	return nil
}
