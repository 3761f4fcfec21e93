package ibverbs

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

func TestErrors(t *testing.T) {
	err := error(&Error{Op: "ibv_reg_mr", Err: syscall.ENOMEM, Hint: "ulimit -l"})
	if !errors.Is(err, syscall.ENOMEM) || err.Error() != "ibv_reg_mr: cannot allocate memory (ulimit -l)" {
		t.Errorf("%v", err)
	}
	if err := opError("x", -int(syscall.EOPNOTSUPP)); !errors.Is(err, ErrUnsupported) || errors.Is(err, ErrDeviceGone) {
		t.Errorf("%v", err)
	}
	if err := opError("x", -int(syscall.EIO)); !errors.Is(err, ErrDeviceGone) {
		t.Errorf("%v", err)
	}
	if err := opError("x", 0); err != nil {
		t.Errorf("%v", err)
	}
}

func TestEveryStatusHasItsName(t *testing.T) {
	for s := range wcStatusOutOfRange {
		if name := s.String(); strings.HasSuffix(name, "_") || name == "IBV_WC_" {
			t.Errorf("status %d is called %q", s, name)
		}
	}
	for s, want := range map[WCStatus]string{0: "IBV_WC_SUCCESS", 5: "IBV_WC_WR_FLUSH_ERR", 12: "IBV_WC_RETRY_EXC_ERR", 23: "IBV_WC_TM_RNDV_INCOMPLETE", 24: "IBV_WC_STATUS_24"} {
		if s.String() != want {
			t.Errorf("status %d: %s, want %s", s, s, want)
		}
	}
	wc := WC{Status: WCRetryExcErr, VendorErr: 0x81}
	if e := wc.Err().Error(); !strings.Contains(e, "4791") || !strings.Contains(e, "path") || !strings.Contains(e, "0x81") {
		t.Errorf("%s", e)
	}
}

func TestMTU(t *testing.T) {
	for code, bytes := range map[MTU]int{0: 0, 1: 256, 3: 1024, 5: 4096, 6: 0} {
		if code.Bytes() != bytes {
			t.Errorf("MTU(%d) is %d bytes, want %d", code, code.Bytes(), bytes)
		}
	}
}

// TestSendCredits checks the account against a queue that is simulated in full.
func TestRate(t *testing.T) {
	for _, c := range []struct {
		speed, width uint8
		want         int
	}{{32, 2, 100000}, {64, 2, 200000}, {128, 2, 400000}, {4, 1, 10000}, {32, 1, 25000}, {128, 16, 200000}, {0, 2, 0}, {4, 3, 0}} {
		if got := (&PortAttr{Speed: c.speed, Width: c.width}).Mbps(); got != c.want {
			t.Errorf("speed %d width %d: %d Mbit/s, want %d", c.speed, c.width, got, c.want)
		}
	}
}

func TestSendCredits(t *testing.T) {
	for depth := 1; depth <= 9; depth++ {
		for every := 1; every <= depth+1; every++ {
			c := NewSendCredits(depth, every)
			var queue []bool // true where a completion will come
			held := 0
			for step := range 500 {
				if step%7 == 3 && len(queue) > 0 {
					for len(queue) > 0 {
						signalled := queue[0]
						queue = queue[1:]
						if signalled {
							c.Complete()
							break
						}
					}
					continue
				}
				if c.Free() == 0 {
					if len(queue) == 0 {
						t.Fatalf("depth %d, every %d: no credit and nothing to complete", depth, every)
					}
					held++
					for !queue[0] {
						queue = queue[1:]
					}
					queue = queue[1:]
					c.Complete()
					continue
				}
				var wr SendWR
				c.Take(&wr)
				queue = append(queue, wr.Flags&SendSignaled != 0)
				if len(queue) > depth {
					t.Fatalf("depth %d, every %d: %d requests in the queue", depth, every, len(queue))
				}
			}
			if held == 0 {
				t.Errorf("depth %d, every %d: the queue was never full", depth, every)
			}
		}
	}
}
