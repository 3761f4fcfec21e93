package ledger

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

func TestLockedTwice(t *testing.T) {
	root := into(t)
	l := openIn(t, root)
	l.AppendPart(Key{1}, Object{Ino: 1})
	must(t, l.Sync())
	if _, err := Open(root, name, transfer); !errors.Is(err, ErrBusy) {
		t.Errorf("opened twice: %v", err)
	}
	if err := Clean(root, name); !errors.Is(err, ErrBusy) {
		t.Errorf("cleaned while in use: %v", err)
	}
	l.AppendPart(Key{2}, Object{Ino: 2}) // and the first was not disturbed
	must(t, l.Sync())
	must(t, l.Close())
	l = openIn(t, root)
	if parts, _ := l.Len(); parts != 2 {
		t.Errorf("%d parts, want 2", parts)
	}
	must(t, l.Close())
}

// TestKilledReceiver: the lock goes with the process, the records stay.
func TestKilledReceiver(t *testing.T) {
	if dir := os.Getenv("LEDGER_TEST_RECEIVER"); dir != "" {
		receiveUntilKilled(t, dir)
	}
	root := into(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledReceiver$")
	cmd.Env = append(os.Environ(), "LEDGER_TEST_RECEIVER="+root.Name())
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Errorf("the receiver said nothing: %v", err)
	}
	if _, err := Open(root, name, transfer); !errors.Is(err, ErrBusy) {
		t.Errorf("another process has it, and Open says %v", err)
	}
	must(t, cmd.Process.Signal(syscall.SIGKILL))
	if err := cmd.Wait(); err == nil {
		t.Error("it ended well")
	}
	l := openIn(t, root)
	wantState(t, l, []record{{kind: kindPart, key: Key{1}, object: Object{Ino: 1}}})
	must(t, l.Remove())
}

func receiveUntilKilled(t *testing.T, dir string) {
	root, err := os.OpenRoot(dir)
	must(t, err)
	l := openIn(t, root)
	l.AppendPart(Key{1}, Object{Ino: 1})
	must(t, l.Sync())
	l.AppendPart(Key{2}, Object{Ino: 2})
	fmt.Print("\n")
	select {}
}

// TestOneAtATime lets receivers open, compact, close and remove one ledger as fast as
// they can: never do two have it, and none finds it gone.
func TestOneAtATime(t *testing.T) {
	root := into(t)
	var holders, turns atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for turns.Load() < 80 {
				l, err := Open(root, name, transfer)
				if errors.Is(err, ErrBusy) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d have it", n)
				}
				k := Key{byte(turns.Add(1))}
				for range 4 { // three of four are dead: the next one compacts
					l.AppendPart(k, Object{})
				}
				err = l.Sync()
				holders.Add(-1)
				if k[0]%4 == 0 {
					err = errors.Join(err, l.Remove())
				} else {
					err = errors.Join(err, l.Close())
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestList(t *testing.T) {
	root := into(t)
	var other [16]byte
	other[15] = 1
	for _, n := range []string{
		"file", ".rdmaxfer-00.ledger", ".rdmaxfer-0123456789ABCDEF0123456789abcdef.ledger",
		Name(other) + ".part", name + fresh,
	} {
		must(t, os.WriteFile(filepath.Join(root.Name(), n), nil, 0o600))
	}
	left := openFor(t, root, other)
	left.AppendPart(Key{1}, Object{})
	must(t, left.Sync())
	must(t, left.Close())
	l := openIn(t, root)
	defer l.Close()

	all, err := List(root)
	must(t, err)
	slices.SortFunc(all, func(a, b Stale) int { return int(a.Size - b.Size) })
	if len(all) != 2 {
		t.Fatalf("listed %v, want two", all)
	}
	if s := all[0]; s.Name != name || s.Transfer != transfer || !s.Busy || s.Size != 0 {
		t.Errorf("the busy one: %+v", s)
	}
	if s := all[1]; s.Name != Name(other) || s.Transfer != other || s.Busy || s.Size != headerSize+int64(sizes[kindPart]) || s.Modified.IsZero() {
		t.Errorf("the stale one: %+v", s)
	}

	must(t, Clean(root, Name(other)))
	must(t, Clean(root, Name(other))) // gone already
	if err := Clean(root, "file"); !errors.Is(err, ErrForeign) {
		t.Errorf("cleaned what is no ledger: %v", err)
	}
	if all, err := List(root); len(all) != 1 || err != nil {
		t.Errorf("%v, %v are left, want the busy one", all, err)
	}
}

func openFor(t *testing.T, root *os.Root, transfer [16]byte) *Ledger {
	t.Helper()
	l, err := Open(root, Name(transfer), transfer)
	must(t, err)
	return l
}

func TestCleanRemovesAnUnfinishedCompaction(t *testing.T) {
	root := into(t)
	for _, n := range []string{name, name + fresh} {
		must(t, os.WriteFile(filepath.Join(root.Name(), n), nil, 0o600))
	}
	must(t, Clean(root, name))
	wantNames(t, root)
}
