package transfer

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"

	"github.com/rdmaxfer/rdmaxfer/transfer/ledger"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// outlook is the dry run of a transfer into a Directory.
type outlook struct {
	*staging       // what an earlier try left, locked like that of a transfer
	taken    int64 // bytes that the entries so far would take of the disk
}

// Look opens what an earlier try left, if there is something.
func (d *Directory) Look(id [16]byte) (Outlook, error) {
	name := stagingPrefix + hex.EncodeToString(id[:])
	s, err := d.claim(name)
	if errors.Is(err, fs.ErrNotExist) {
		s = &staging{d: d, name: name}
		if s.dir, err = d.root.Open("."); err != nil {
			err = errorf(CodeLocalIO, "destination: %w", err)
		}
	}
	if err != nil {
		return nil, err
	}
	if s.ledger, err = ledger.Peek(d.root, ledger.Name(id), id); err != nil {
		s.release()
		return nil, ledgerError("ledger", err)
	}
	return &outlook{staging: s}, nil
}

// Foresee asks what [Destination.Check] and Resume ask.
func (o *outlook) Foresee(e *wire.Entry) (f Foreseen, err error) {
	if err := mayBe(e); err != nil {
		return f, err
	}
	done, file, named := o.finished(e)
	if file != nil {
		file.Close()
	}
	if done != nil && named || e.Kind == wire.HardLink && o.linked(e) {
		return Foreseen{Here: e.Size, Done: true}, nil
	}
	if err := o.d.mayLand(e); err != nil {
		return f, err
	}
	_, err = o.d.root.Lstat(e.Path)
	f.Replaces = err == nil && e.Kind != wire.Dir
	if done != nil { // it lacks its name alone
		f.Here = e.Size
		return f, nil
	}
	if err := o.fits(e, o.taken); err != nil {
		return f, err
	}
	if e.Kind == wire.File && e.Size > blockSize {
		if part, _, blocks := o.begun(e, os.O_RDONLY); part != nil {
			part.Close()
			f.Here = int64(len(blocks)) * blockSize
		}
	}
	if !e.Sparse {
		o.taken += e.Size - f.Here
	}
	return f, nil
}

// linked reports whether a name is one of the file that it shall be a name of.
func (o *outlook) linked(e *wire.Entry) bool {
	first, err := o.d.root.Lstat(e.Link)
	if err != nil || !first.Mode().IsRegular() {
		return false
	}
	there, err := o.d.root.Lstat(e.Path)
	return err == nil && os.SameFile(first, there)
}

// Close gives up the locks. Nothing has changed.
func (o *outlook) Close() error {
	defer o.release()
	return o.ledger.Close()
}
