package transfer

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
)

// TestTreesLand with small files in packs and large ones in ranges.
func TestTreesLand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := filepath.Join(t.TempDir(), "tree")
		for _, dir := range []string{"empty", "a/b", "many"} {
			if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 100 {
			write(t, filepath.Join(root, "many", fmt.Sprint(i)), random(i*100))
		}
		write(t, filepath.Join(root, "a/large"), random(3*mib+5))
		write(t, filepath.Join(root, "a/b/f"), "deep")
		e := treeEngine(t, root, SourceOptions{})
		s, r := e.run(t, t.Context(), t.Context())
		for _, end := range []*end{s, r} {
			if end.err != nil || end.Files != 102 || len(end.files) != 102 {
				t.Errorf("%d files, %d reported, %v", end.Files, len(end.files), end.err)
			}
		}
		for i := range 100 {
			b, err := os.ReadFile(filepath.Join(e.dir, "tree/many", fmt.Sprint(i)))
			if string(b) != random(i*100) {
				t.Errorf("%d: %d bytes, %v", i, len(b), err)
			}
		}
	})
}
