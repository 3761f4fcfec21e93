package transfer

import (
	"path/filepath"
	"strings"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// Named is a [Directory] in which one file or stream lands under a name that the
// receiver's user chose, whatever the sender calls it.
type Named struct {
	*Directory
	base string
}

// OpenNamed makes a sink of a file's name. Its directory exists and is writable; the
// file may exist if o lets it be replaced.
func OpenNamed(file string, o Overwrite) (*Named, error) {
	base := filepath.Base(file)
	if file == "" || strings.HasSuffix(file, "/") || base == "." || base == ".." {
		return nil, errorf(CodeUsage, "%q names no file: a directory to receive into goes with --into", file)
	}
	d, err := OpenDirectory(filepath.Dir(file), o)
	if err != nil {
		return nil, err
	}
	if st, err := d.root.Lstat(base); err == nil && st.IsDir() {
		d.Close()
		return nil, errorf(CodeUsage, "%s is a directory: receive into it with --into", Printable(file))
	}
	return &Named{d, base}, nil
}

// Describe names the file.
func (n *Named) Describe() string { return "as " + n.path(n.base) }

// Begin is [Directory.Begin].
func (n *Named) Begin(id [16]byte) (Destination, error) {
	d, err := n.Directory.Begin(id)
	if err != nil {
		return nil, err
	}
	return &namedIn{d, n}, nil
}

// Look is [Directory.Look].
func (n *Named) Look(id [16]byte) (Outlook, error) {
	o, err := n.Directory.Look(id)
	if err != nil {
		return nil, err
	}
	return &namedOutlook{o, n}, nil
}

// namedOutlook is namedIn for a dry run.
type namedOutlook struct {
	Outlook
	n *Named
}

// Foresee refuses all but one file or stream, and what the directory does.
func (o *namedOutlook) Foresee(e *wire.Entry) (Foreseen, error) {
	if err := single(e, o.n.path(o.n.base)); err != nil {
		return Foreseen{}, err
	}
	return o.Outlook.Foresee(o.n.renamed(e))
}

// namedIn gives the one entry its name, by which the ledger knows it too.
type namedIn struct {
	Destination
	n *Named
}

func (n *Named) renamed(e *wire.Entry) *wire.Entry {
	r := *e
	r.Path = n.base
	return &r
}

// Check refuses all but one file or stream, and what the directory does.
func (d *namedIn) Check(e *wire.Entry) (*Finished, error) {
	if err := single(e, d.n.path(d.n.base)); err != nil {
		return nil, err
	}
	return d.Destination.Check(d.n.renamed(e))
}

// HardLink is refused: it would be a second entry.
func (d *namedIn) HardLink(e *wire.Entry) error { return single(e, d.n.path(d.n.base)) }

// Resume is the directory's.
func (d *namedIn) Resume(e *wire.Entry) (Landing, []Block, error) {
	return d.Destination.Resume(d.n.renamed(e))
}

// Create is the directory's.
func (d *namedIn) Create(e *wire.Entry) (Landing, error) { return d.Destination.Create(d.n.renamed(e)) }

// Put is the directory's.
func (d *namedIn) Put(e *wire.Entry, b []byte) (Landing, error) {
	return d.Destination.Put(d.n.renamed(e), b)
}

// ends is the directory's.
func (d *namedIn) ends(end func(error)) {
	if m, ok := d.Destination.(mortal); ok {
		m.ends(end)
	}
}

// single refuses what is not the one file or stream that a place has room for: the
// first entry of the manifest.
func single(e *wire.Entry, place string) error {
	switch {
	case e.Kind != wire.File && e.Kind != wire.Stream:
		return errorf(CodeUsage, "%s is no file, and %s takes one file: send a file, or a stream (tar c DIR | rdmaxfer send - HOST)", Printable(e.Path), place)
	case e.File > 0:
		return errorf(CodeUsage, "%s: %s takes one file, and this is another one: send one, or a stream (tar c DIR | rdmaxfer send - HOST)", Printable(e.Path), place)
	}
	return nil
}
