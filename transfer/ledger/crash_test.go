package ledger

import (
	"errors"
	"flag"
	"fmt"
	"reflect"
	"slices"
	"testing"
)

var seeds = flag.Uint64("ledger.seeds", 4000, "how many lives of a ledger TestCrash goes through")
var firstSeed = flag.Uint64("ledger.seed", 0, "the first of them")

// TestCrash lets ledgers live on a disk that fails and loses its power. What Open
// reports must be what was appended, in its order, up to some record: at least all
// that a good Sync covered, and nothing else ever.
func TestCrash(t *testing.T) {
	for seed := *firstSeed; seed < *firstSeed+*seeds; seed++ {
		w := &world{simDir: newSim(seed), branches: []branch{{}}}
		for life := range 8 {
			if err := w.live(); err != nil {
				t.Fatalf("-ledger.seed=%d, life %d: %v", seed, life, err)
			}
		}
	}
}

// branch is what may be on the disk: a history, of which at least min are there.
type branch struct {
	records []record
	min     int
}

type world struct {
	*simDir
	branches []branch
}

// live is one process, and how it ends.
func (w *world) live() (err error) {
	w.blown, w.fuse = nil, -1
	if w.rng.IntN(2) == 0 {
		w.fuse, w.blows = w.rng.IntN(16), blows(w.rng.IntN(4))
	}
	defer func() {
		switch r := recover(); {
		case r != nil && r != any(errKilled):
			panic(r)
		case w.blows == blowsForever && len(w.blown) > 0, w.rng.IntN(2) == 0:
			w.crash()
		default:
			w.kill()
		}
	}()
	l, err := open(w.simDir, name, transfer)
	if err != nil {
		return w.failedOpen(err)
	}
	history, err := w.recognise(l)
	if err != nil {
		return err
	}
	return w.work(l, history)
}

// failedOpen: nothing is promised of a ledger that could not be synced.
func (w *world) failedOpen(err error) error {
	if !errors.Is(err, errSim) || len(w.blown) == 0 {
		return fmt.Errorf("open: %w", err)
	}
	if slices.Contains(w.blown, "sync") {
		for i := range w.branches {
			w.branches[i].min = 0
		}
	}
	return nil
}

// recognise finds the history that a ledger knows, which is durable from now on.
func (w *world) recognise(l *Ledger) ([]record, error) {
	state, err := stateOf(l)
	if err != nil {
		return nil, err
	}
	for _, b := range w.branches {
		for n := len(b.records); n >= b.min; n-- {
			if !reflect.DeepEqual(state, modelOf(b.records[:n])) {
				continue
			}
			found := branch{slices.Clone(b.records[:n]), n}
			if l.size > 0 {
				w.branches = []branch{found}
			} else { // a file that was removed may come back
				w.branches = append(w.branches, found)
			}
			return found.records, nil
		}
	}
	return nil, fmt.Errorf("the ledger knows %v, which was never so; %d histories, the last %+v",
		state, len(w.branches), w.branches[len(w.branches)-1])
}

// work appends and syncs, until it or the disk has had enough.
func (w *world) work(l *Ledger, history []record) error {
	now := len(w.branches)
	w.branches = append(w.branches, branch{records: history})
	if now == 1 { // what was there when it was opened stays
		w.branches[now].min = w.branches[0].min
	}
	for range w.rng.IntN(6) {
		for range w.rng.IntN(40) {
			r := draw(w.rng, 3)
			appendTo(l, r)
			history = append(history, r)
			w.branches[now].records = history
		}
		if w.rng.IntN(4) == 0 {
			continue
		}
		before := len(w.blown)
		if err := l.Sync(); err != nil {
			if !errors.Is(err, errSim) || len(w.blown) == before {
				return fmt.Errorf("sync: %w", err)
			}
			break
		}
		if l.size == 0 {
			continue // nothing was said yet, and what was there before may come back
		}
		w.branches = []branch{{slices.Clone(history), len(history)}, {history, len(history)}}
		now = 1
	}
	if w.rng.IntN(3) == 0 {
		if err := l.Close(); err != nil && !errors.Is(err, errSim) {
			return fmt.Errorf("close: %w", err)
		}
	}
	return nil
}
