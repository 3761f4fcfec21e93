package ledger

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Object identifies a file system object: a name may come to mean another file, and
// an inode number be given out again, but not with the same time of birth.
type Object struct {
	Dev, Ino uint64
	BornNS   int64 // ns since 1970; 0 where the file system keeps no birth times
}

// ObjectMask is what [ObjectIn] wants of statx(2).
const ObjectMask = unix.STATX_INO | unix.STATX_BTIME

// ObjectOf identifies an open file by statx(2). The kernel numbers some devices anew
// at every boot (btrfs, NFS, overlay): a part there is not known again after it.
func ObjectOf(f *os.File) (Object, error) {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, ObjectMask, &st)
	if err != nil {
		return Object{}, fmt.Errorf("statx %s: %w", f.Name(), err)
	}
	return ObjectIn(&st), nil
}

// ObjectIn identifies a file by what statx(2) said of it.
func ObjectIn(st *unix.Statx_t) Object {
	o := Object{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		o.BornNS = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return o
}
