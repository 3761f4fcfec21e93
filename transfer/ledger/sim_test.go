package ledger

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
)

// simDir is a directory on a disk that may lose its power, or fail: what was not
// synced is lost, kept or reordered sector by sector. It breaks none of the promises
// of sync, rename and truncate, and keeps no other.
type simDir struct {
	rng     *rand.Rand
	names   map[string]*simInode
	durable map[string]*simInode
	pending []map[string]*simInode // the names after each change since the last sync
	fuse    int                    // operations until they fail; below 0: never
	blows   blows
	blown   []string // the operations that failed
}

// blows is what happens when the fuse has burnt down.
type blows int

const (
	blowsOnce    blows = iota // one operation fails
	blowsTwice                // two do; truncations, which need no disk, go through
	blowsForever              // and nothing works any more until the next boot
	blowsKill                 // the process is killed before the operation
)

// errKilled is what a killed process panics with.
var errKilled = errors.New("killed")

const sector = 512

var errSim = errors.New("simulated input/output error")

type simInode struct {
	cache   []byte
	disk    []byte
	pending []simWrite
	ghost   []byte // what lay at each offset last: a new block may show it
	locked  bool
}

// simWrite is at most a sector, or a truncation (data is nil).
type simWrite struct {
	off  int64
	data []byte
}

type simFile struct {
	dir *simDir
	*simInode
}

func newSim(seed uint64) *simDir {
	return &simDir{
		rng: rand.New(rand.NewPCG(seed, 0)), names: map[string]*simInode{},
		durable: map[string]*simInode{}, fuse: -1,
	}
}

// burn uses the fuse up by one; when it has burnt down the operation fails.
func (d *simDir) burn(op string) error {
	if d.fuse != 0 {
		d.fuse--
		return nil
	}
	if op == "truncate" && d.blows < blowsForever {
		return nil
	}
	d.blown = append(d.blown, op)
	switch d.blows {
	case blowsOnce:
		d.fuse = -1
	case blowsTwice:
		d.blows = blowsOnce
	case blowsKill:
		d.fuse = -1
		panic(errKilled)
	}
	return errSim
}

func (d *simDir) changed() { d.pending = append(d.pending, maps.Clone(d.names)) }

func (d *simDir) open(name string, make bool) (file, error) {
	n := d.names[name]
	switch {
	case n == nil && !make:
		return nil, fs.ErrNotExist
	case n != nil && n.locked:
		return nil, ErrBusy
	case n == nil:
		if err := d.burn("open"); err != nil {
			return nil, err
		}
		n = &simInode{}
		d.names[name] = n
		d.changed()
	}
	n.locked = true
	return simFile{d, n}, nil
}

func (d *simDir) rename(from, to string) error {
	if err := d.burn("rename"); err != nil {
		return err
	}
	if d.names[from] == nil {
		return fs.ErrNotExist
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	d.changed()
	return nil
}

func (d *simDir) remove(name string, mine file) error {
	n := d.names[name]
	if n == nil || mine != nil && mine.(simFile).simInode != n {
		return fs.ErrNotExist
	}
	if err := d.burn("remove"); err != nil {
		return err
	}
	delete(d.names, name)
	d.changed()
	return nil
}

func (d *simDir) sync() error {
	if err := d.burn("directory sync"); err != nil {
		return err
	}
	d.durable, d.pending = maps.Clone(d.names), nil
	return nil
}

// kill ends the process: its locks go, the caches stay.
func (d *simDir) kill() {
	for _, n := range d.names {
		n.locked = false
	}
	d.fuse = -1
}

// crash is a power cut: of the directory's changes the first few are kept, of each
// file's writes any, in any order.
func (d *simDir) crash() {
	if k := d.rng.IntN(len(d.pending) + 1); k > 0 {
		d.durable = d.pending[k-1]
	}
	d.names, d.pending, d.fuse = maps.Clone(d.durable), nil, -1
	seen := map[*simInode]bool{}
	for _, name := range slices.Sorted(maps.Keys(d.names)) { // in order: a seed is a run
		if n := d.names[name]; !seen[n] {
			seen[n] = true
			n.writeBack(d.rng, false)
			n.cache, n.locked = slices.Clone(n.disk), false
		}
	}
}

// writeBack brings a random choice of what is pending to the disk. A failed sync
// loses pages, but no truncation: file systems stop at once when they can't keep
// their own records.
func (n *simInode) writeBack(rng *rand.Rand, failedSync bool) {
	all := n.pending
	n.pending = nil
	if !failedSync && rng.IntN(2) == 0 {
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	keep := rng.Float64()
	for _, w := range all {
		switch {
		case w.data == nil:
			if failedSync || rng.Float64() < keep {
				n.disk = n.resize(n.disk, w.off, rng)
			}
		case rng.Float64() < keep:
			if end := w.off + int64(len(w.data)); end > int64(len(n.disk)) {
				n.disk = n.resize(n.disk, end, rng)
			}
			copy(n.disk[w.off:], w.data)
		case rng.IntN(3) == 0: // the size got there, the data did not
			if end := w.off + int64(len(w.data)); end > int64(len(n.disk)) {
				n.disk = n.resize(n.disk, end, rng)
			}
		}
	}
}

// resize cuts b or makes it longer: by zeros, or by what lay there last.
func (n *simInode) resize(b []byte, size int64, rng *rand.Rand) []byte {
	if size <= int64(len(b)) {
		return b[:size]
	}
	from := len(b)
	b = append(slices.Clone(b), make([]byte, size-int64(from))...)
	if rng.IntN(2) == 0 && from < len(n.ghost) {
		copy(b[from:], n.ghost[from:])
	}
	return b
}

func (f simFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.cache)) {
		return 0, io.EOF
	}
	n := copy(p, f.cache[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f simFile) write(p []byte, off int64) {
	if end := off + int64(len(p)); end > int64(len(f.cache)) {
		f.cache = append(f.cache, make([]byte, end-int64(len(f.cache)))...)
	}
	copy(f.cache[off:], p)
	if grow := len(f.cache) - len(f.ghost); grow > 0 {
		f.ghost = append(f.ghost, make([]byte, grow)...)
	}
	copy(f.ghost[off:], p)
	for len(p) > 0 {
		n := min(int64(len(p)), sector-off%sector)
		f.pending = append(f.pending, simWrite{off, slices.Clone(p[:n])})
		p, off = p[n:], off+n
	}
}

// WriteAt writes all, or when the fuse has burnt down a part.
func (f simFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.dir.burn("write")
	if err != nil {
		p = p[:f.dir.rng.IntN(len(p)+1)]
	}
	f.write(p, off)
	return len(p), err
}

func (f simFile) Truncate(size int64) error {
	if err := f.dir.burn("truncate"); err != nil {
		return err
	}
	if size < int64(len(f.cache)) {
		f.cache = f.cache[:size]
		f.pending = append(f.pending, simWrite{off: size})
	}
	return nil
}

// Sync, when it fails, takes what it could not write for clean, as Linux does: it
// stays in the cache, and the next sync says that all is well.
func (f simFile) Sync() error {
	if err := f.dir.burn("sync"); err != nil {
		f.writeBack(f.dir.rng, true)
		return err
	}
	for _, w := range f.pending { // what was taken for clean is not written again
		end := w.off + int64(len(w.data))
		if w.data == nil {
			f.disk = f.disk[:min(end, int64(len(f.disk)))]
			continue
		}
		if grow := end - int64(len(f.disk)); grow > 0 {
			f.disk = append(slices.Clone(f.disk), make([]byte, grow)...)
		}
		copy(f.disk[w.off:], w.data)
	}
	f.pending = nil
	return nil
}

func (f simFile) Datasync() error { return f.Sync() }

func (f simFile) Size() (int64, error) { return int64(len(f.cache)), nil }

func (f simFile) Close() error {
	f.locked = false
	return nil
}
