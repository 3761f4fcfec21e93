package filter

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var tree = []string{
	"p/", "p/a.o", "p/a.c", "p/build/", "p/build/x", "p/build/keep.o", "p/sub/", "p/sub/a.o", "p/sub/build/",
	"p/sub/build/y", "p/sub/deep/", "p/sub/deep/b.o", "p/sub/deep/tmp", "p/build.txt", "p/[x]",
}

// TestRulesAsRsyncHasThem asks rsync what it would send.
func TestRulesAsRsyncHasThem(t *testing.T) {
	dir := t.TempDir()
	for _, name := range tree {
		err := error(nil)
		if path := filepath.Join(dir, name); strings.HasSuffix(name, "/") {
			err = os.Mkdir(path, 0o755)
		} else {
			err = os.WriteFile(path, nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, rules := range []string{
		"",
		"-*.o",
		"-build/",
		"-build",
		"+keep.o -*.o",
		"-*.o +keep.o",
		"-/p/build",
		"-/build",
		"-sub/build",
		"-sub/*.o",
		"-/p/*.o",
		"-/p/**/tmp",
		"-[ab].?",
		`-\[x\]`,
		"+*/ +*.c -*",
		"+/p/ -/p/*",
		"-deep/tmp",
		"-tmp/",
	} {
		t.Run(rules, func(t *testing.T) {
			var r Rules
			args := []string{"--recursive", "--dry-run", "--out-format=%n"}
			for rule := range strings.FieldsSeq(rules) {
				if err := r.Add(rule[1:], rule[0] == '+'); err != nil {
					t.Fatal(err)
				}
				args = append(args, map[byte]string{'+': "--include=", '-': "--exclude="}[rule[0]]+rule[1:])
			}
			out, err := exec.Command("rsync", append(args, filepath.Join(dir, "p"), filepath.Join(dir, "to"))...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			want := strings.Fields(string(out))
			slices.Sort(want)
			var got, skipped []string
			for _, name := range tree {
				path, isDir := strings.CutSuffix(name, "/")
				within := func(dir string) bool { return strings.HasPrefix(name, dir) }
				switch {
				case slices.ContainsFunc(skipped, within):
				case !r.Skip(path, isDir):
					got = append(got, name)
				case isDir:
					skipped = append(skipped, name)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("sent %v, want %v", got, want)
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	for _, pattern := range []string{"", "/", "//", "[", "a[", "{a", `a\`} {
		var r Rules
		if err := r.Add(pattern, false); err == nil || len(r.list) > 0 {
			t.Errorf("%q: %v, %v", pattern, err, r.list)
		}
	}
}
