//go:build rxe

package ibverbs_test

import (
	"io"
	"os"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// TestExample runs the example of the documentation, and that it closes everything.
func TestExample(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	saved := os.Stdout
	os.Stdout = w
	err = hello()
	os.Stdout = saved
	w.Close()
	out, _ := io.ReadAll(r)
	if err != nil || string(out) != "received \"hello, verbs\"\n" {
		t.Errorf("%q, %v", out, err)
	}
	if left := ibverbs.Live(); len(left) > 0 {
		t.Errorf("left open: %v", left)
	}
}
