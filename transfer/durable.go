package transfer

import (
	"os"
	"slices"
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

// syncParts makes the contents of those parts durable that have not failed.
func (s *staging) syncParts(parts []*part, errs []error) {
	if s.d.NoSync {
		return
	}
	doubt := s.doubt.Load()
	many := len(parts) > few && !doubt
	// What failed of a file that was closed, nobody but its file system remembers for sure.
	if many || !doubt && slices.ContainsFunc(parts, (*part).closed) {
		if err := s.syncAll(); err != nil {
			spread(errs, err)
			return
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
