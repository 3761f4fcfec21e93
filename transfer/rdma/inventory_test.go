package rdma

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
)

// TestDeviceThatHangs keeps nobody from the others, and is asked once for all who want to know.
func TestDeviceThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked singleflight.Group
		var asks atomic.Int32
		hang := make(chan struct{})
		of := func(d ibverbs.Device) []Port {
			if d.Name == "mlx5_0" {
				asks.Add(1)
				<-hang
			}
			return []Port{{Device: d.Name, Port: 1}, {Device: d.Name, Port: 2}}
		}
		words := func() (all string) {
			for _, p := range ask(&asked, []ibverbs.Device{{Name: "mlx5_0"}, {Name: "mlx5_1"}}, of) {
				all += p.Device + " " + p.Problem + ";"
			}
			return all
		}
		for range 2 {
			began := time.Now()
			if got := words(); !strings.HasPrefix(got, "mlx5_0 has not answered") || !strings.HasSuffix(got, "mlx5_1 ;mlx5_1 ;") || time.Since(began) != inquiryLimit {
				t.Errorf("%s in %v", got, time.Since(began))
			}
		}
		if n := asks.Load(); n != 1 {
			t.Errorf("it was asked %d times", n)
		}
		close(hang)
		synctest.Wait()
		if got := words(); got != "mlx5_0 ;mlx5_0 ;mlx5_1 ;mlx5_1 ;" {
			t.Error(got)
		}
	})
}
