package transfer

import (
	"cmp"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/internal/calls"
	"github.com/rdmaxfer/rdmaxfer/transfer/digest"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// pack lists the files that have bytes among the entries that r reaches over.
// Entries that have settled are gone from it.
func (s *Source) pack(r wire.Request) (files []*sourceFile, size int64, gone bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := r.File; n-r.File < r.Count; n++ {
		f := s.files[n]
		switch {
		case n >= s.next:
			return nil, 0, false, fmt.Errorf("%w: a pack to entry %d of %d", wire.ErrMalformed, n, s.next)
		case f == nil:
			gone = true
		case f.entry.Kind == wire.File && f.entry.Size > 0:
			files = append(files, f)
			size += f.entry.Size
		}
	}
	return files, size, gone, nil
}

// readPack fills p with the whole files of a pack. One that can't be read, or is not
// what the manifest says, fails, and the pack with it: the receiver asks for the
// others again.
func (s *Source) readPack(r wire.Request, p []byte) (bool, error) {
	files, size, gone, err := s.pack(r)
	if err != nil {
		return false, err
	}
	if size > s.extentSize || size != int64(r.Length) {
		if gone {
			return false, nil
		}
		return false, fmt.Errorf("%w: a request for a pack of %d bytes that has %d", wire.ErrMalformed, r.Length, size)
	}
	for part := range slices.Chunk(files, atOnce) {
		f, err := readAll(part, p)
		if err != nil {
			s.fail(f, err)
			return false, nil
		}
		for _, f := range part {
			p = p[f.entry.Size:]
		}
	}
	return s.pass(r), nil
}

// readAll fills p with whole small files, one after the other, and compares each with the
// manifest after that. It gives the first that can't be read, or has changed, and why.
func readAll(files []*sourceFile, p []byte) (bad *sourceFile, why error) {
	if files[0].store.keep { // which looks into the page cache before
		for _, f := range files {
			if err := f.readWhole(p[:f.entry.Size]); err != nil {
				return f, err
			}
			p = p[f.entry.Size:]
		}
		return nil, nil
	}
	list := newList()
	defer freeList(list)
	type reading struct {
		calls.Chain
		bytes []byte
		st    *unix.Statx_t
	}
	all := make([]reading, len(files))
	for i, f := range files {
		r := &all[i]
		r.Chain = list.Open(unix.AT_FDCWD, f.path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC)
		r.bytes, p = p[:f.entry.Size], p[f.entry.Size:]
		r.Read(r.bytes)
		r.st = r.Stat(unix.STATX_BASIC_STATS)
		r.Close()
	}
	list.Make()
	for i, f := range files {
		r := &all[i]
		open, err := r.Made()
		if err == nil {
			f.store.cached.Add(int64(len(r.bytes)))
			err = cmp.Or(f.failed(), f.unchanged(stampIn(r.st)))
		} else {
			if open >= 0 {
				unix.Close(open)
			}
			err = f.readWhole(r.bytes) // which may have to wait for it, or says what is wrong
		}
		if why == nil && err != nil {
			bad, why = f, err
		}
	}
	return bad, why
}

// readAgain gives those of some small files that can be read, and their bytes one after the other.
func (s *Source) readAgain(files []*sourceFile) (read []*sourceFile, bytes []byte) {
	for _, f := range files {
		p := make([]byte, f.entry.Size)
		if err := f.readWhole(p); err != nil {
			s.fail(f, err)
			continue
		}
		read, bytes = append(read, f), append(bytes, p...)
	}
	return read, bytes
}

// sentPack vouches for the files of a pack: each was compared with the manifest when
// it had been read.
func (s *Source) sentPack(r wire.Request, p []byte) {
	files, size, _, err := s.pack(r)
	if err != nil {
		return
	}
	if size != int64(len(p)) { // some have settled meanwhile: which of the bytes were theirs is not known any more
		files, p = s.readAgain(files)
	}
	if len(files) == 0 {
		return
	}
	m := new(wire.Vouch)
	for _, f := range files {
		m.Files = append(m.Files, f.entry.File)
		if s.verify != digest.None {
			d := s.hashing.whole(s.verify, p[:f.entry.Size])
			m.Digests = append(m.Digests, d[:]...)
		}
		p = p[f.entry.Size:]
	}
	s.vouched(m)
}
