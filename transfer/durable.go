package transfer

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// How what landed, and its names, become durable.

// few is how many files are worth an fsync each; more are synced with their file
// system.
const few = 4

// sync makes a file or a directory durable.
func (s *staging) sync(f *os.File) error {
	if s.d.NoSync {
		return nil
	}
	if err := s.d.fsync(f); err != nil {
		return errorf(CodeLocalIO, "syncing %s: %w", Printable(f.Name()), err)
	}
	return nil
}

// syncParts makes the contents of those parts durable that have not failed. alone says that
// each was by itself, and not with its file system.
func (s *staging) syncParts(parts []*part, errs []error) (alone bool) {
	if s.d.NoSync {
		return false
	}
	doubt := s.doubt.Load()
	many := len(parts) > few && !doubt
	if !s.d.tells && len(parts) > few { // what is synced together need not be one by one, where that is so
		_ = s.d.syncfs(s.dir)
	}
	// What failed of a file that was closed, nobody but its file system remembers for sure.
	if many || !doubt && slices.ContainsFunc(parts, (*part).closed) {
		if err := s.syncAll(); err != nil {
			spread(errs, err)
			return false
		}
	}
	for i, p := range parts {
		switch {
		case errs[i] != nil:
		case many:
			errs[i] = p.lost()
		default:
			errs[i] = p.sync()
		}
	}
	return !many
}

// syncfsTells reports whether syncfs(2) of a file system writes everything, and tells of what
// it could not write: from Linux 5.8 on, and not on FUSE and CIFS, which do nothing, nor on
// overlayfs, which hears nothing of the errors of what it lies on. (That is what their sources
// say; none was made to fail here.)
func syncfsTells(fd int) bool {
	var fs unix.Statfs_t
	var u unix.Utsname
	var major, minor int
	if unix.Fstatfs(fd, &fs) != nil || unix.Uname(&u) != nil {
		return false
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil || major < 5 || major == 5 && minor < 8 {
		return false
	}
	switch uint32(fs.Type) { // which is an int32 where that is short
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.NFS_SUPER_MAGIC:
		return true
	}
	return false
}

// losesNameless reports whether an fsync of a file that has no name yet is lost once it has
// one: by its source btrfs of Linux 6.1, and of others, writes nothing to its log for such a
// file, which would be empty after a power cut.
func losesNameless(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && uint32(fs.Type) == unix.BTRFS_SUPER_MAGIC
}

// syncAll makes everything on the destination's file system durable (syncfs(2), which
// tells of failed writes from Linux 5.8 on). It tells a descriptor once of what failed, be
// it of a part whose group comes later: from then on each part is asked for, by the
// descriptor that it was written with.
func (s *staging) syncAll() error {
	if err := s.d.syncfs(s.dir); err != nil {
		s.doubt.Store(true)
		return errorf(CodeLocalIO, "syncing the file system of %s: %w", s.path("."), err)
	}
	return nil
}

// syncDirs makes the names in directories durable.
func (s *staging) syncDirs(dirs map[string]bool) error {
	if s.d.NoSync {
		return nil
	}
	if len(dirs) > few && !s.doubt.Load() {
		return s.syncAll()
	}
	for name := range dirs {
		dir, err := s.d.root.Open(name)
		if err != nil {
			return errorf(CodeLocalIO, "syncing a directory: %w", err)
		}
		err = s.sync(dir)
		dir.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
