package transfer

import (
	"os"
	"unicode"

	"golang.org/x/sys/unix"
)

// File systems that take names for the same that differ: in case, in what is not seen.

// reserved reports whether a path begins as the names of what is rdmaxfer's own do, by the
// eyes of any file system: some take letters of both cases for the same and pass over what is
// not seen (ext4's casefold, in Unicode). No letter beyond ASCII is one of the prefix's to them.
func reserved(path string) bool {
	rest := stagingPrefix
	for _, r := range path {
		switch {
		case r > unicode.MaxASCII:
		case byte(unicode.ToLower(r)) != rest[0]:
			return false
		default:
			rest = rest[1:]
		}
		if rest == "" {
			return true
		}
	}
	return false
}

// begins begins a batch. It notes the time where the file system takes names for one that differ ("Makefile",
// "makefile"): one file of a tree would replace another, so what came into being since is not
// there to be replaced.
func (s *staging) begins() {
	s.at.close() // there may be another directory of that name by now
	s.mu.Lock()
	s.began, s.mine = 0, nil
	s.mu.Unlock()
	if s.d.overwrite == OverwriteNever {
		return
	}
	const name = "began"
	_ = s.root.Remove(name) // of an interrupted transfer
	f, err := s.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil { // what needs room, or rights, says so itself
		return
	}
	if _, err := s.root.Lstat("BEGAN"); err == nil {
		s.began = bornAt(int(f.Fd()), "")
	}
	f.Close()
	_ = s.root.Remove(name)
}

// note keeps in mind which file has landed, where names are folded: it may be older than this
// batch, for an earlier try made it.
func (s *staging) note(ino uint64) {
	if s.began == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mine == nil {
		s.mine = make(map[uint64]struct{})
	}
	s.mine[ino] = struct{}{}
}

// isMine reports whether that file is what has a name in a directory.
func (s *staging) isMine(dir int, name string) bool {
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, mine := s.mine[st.Ino]
	return mine
}

// bornAt is when a file of a directory, or an open one, came into being (statx(2)); 0 where
// nobody knows.
func bornAt(fd int, name string) int64 {
	var st unix.Statx_t
	err := unix.Statx(fd, name, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &st)
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
}
