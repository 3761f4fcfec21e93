package ledger

import "fmt"

// compact writes the living records into a new file, which takes the ledger's name
// when it is durable. Whichever of the two a crash leaves says the same.
func (l *Ledger) compact() error {
	f, err := l.dir.open(l.name+fresh, true)
	if err != nil {
		return nil // the old one is as good, only longer
	}
	if err := l.copyLiving(f); err != nil {
		_ = l.dir.remove(l.name+fresh, f) // else the next Open removes it
		f.Close()
		return nil
	}
	if err := l.dir.rename(l.name+fresh, l.name); err != nil {
		f.Close()
		return fmt.Errorf("compacting: %w", err)
	}
	// Until then a crash may bring the old file back, so nothing may be added.
	if err := l.dir.sync(); err != nil {
		f.Close()
		return fmt.Errorf("syncing its directory: %w", err)
	}
	l.file.Close()
	l.file = f
	_, err = l.read()
	return err
}

// copyLiving copies in the order of the file, so a part comes before its blocks.
func (l *Ledger) copyLiving(to file) error {
	b, sum := newHeader(l.transfer)
	var at int64
	flush := func() error {
		n, err := to.WriteAt(b, at)
		at += int64(n)
		b = b[:0]
		return err
	}
	_, _, err := scan(l.file, l.size, l.transfer, func(off int64, r *record) error {
		if !l.index.lives(off, r) {
			return nil
		}
		b, sum = appendRecord(b, sum, r)
		if len(b) < maxSpare {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	return to.Sync()
}
