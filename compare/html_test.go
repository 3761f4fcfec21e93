package compare

import (
	"bytes"
	"image/color"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

func TestPageNeedsNothingElse(t *testing.T) {
	for name, rates := range map[string]map[string]float64{
		"both":    {"read": 1e9, "write": 2e9, "copy": 1e9, "datagram": 1e9},
		"no RDMA": {"copy": 1e9},
		"nothing": {},
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			o.Peers = fakePeers(1e9, time.Millisecond)
			o.Methods = append(o.Methods, Method{Transport: "udp", Name: "datagram"})
			r, err := Run(t.Context(), &truth{rates: rates, trip: time.Millisecond}, o)
			if err != nil {
				t.Fatal(err)
			}
			r.Peer = `<script>alert("peer")</script>`
			node := 1
			r.There = &Hardware{Kernel: r.Peer, RDMACore: r.Peer, Devices: []Device{{Name: r.Peer, Provider: r.Peer, NUMANode: &node, Ports: []Port{{State: r.Peer, Counters: map[string]uint64{r.Peer: 7}}}}}}
			var page bytes.Buffer
			if err := r.WriteHTML(&page); err != nil {
				t.Fatal(err)
			}
			doc, err := html.Parse(&page)
			if err != nil {
				t.Fatal(err)
			}
			count := make(map[string]int)
			for n := range doc.Descendants() {
				if n.Type != html.ElementNode {
					continue
				}
				count[n.Data]++
				for _, a := range n.Attr {
					if a.Key == "src" || a.Key == "href" || strings.Contains(a.Val, "url(") {
						t.Errorf("%s has %s=%q", n.Data, a.Key, a.Val)
					}
				}
			}
			methods := len(r.Cells) / len(o.Sizes)
			svgs, rows, cards := 4+methods, 3+3*len(r.Cells)+len(r.Peers)+2, 0
			if methods == 0 {
				svgs, rows = 0, 1+len(r.Peers)+2
			}
			if name == "both" {
				cards = 3
			}
			if count["script"] != 0 || count["link"] != 0 || count["svg"] != svgs || count["tr"] != rows || count["dl"] != cards ||
				count["li"] != len(r.Reasons())+len(r.Normalised)+len(r.Losses())+methods {
				t.Errorf("%v, of %d cells", count, len(r.Cells))
			}
		})
	}
}

// What is on an axis of any extent can be read: two ticks with words at the least, and no
// crowd of them.
func TestTicksOfAnyExtent(t *testing.T) {
	for _, c := range []struct{ least, most float64 }{{1, 10}, {3, 45}, {0.02, 0.11}, {1e-6, 1e-3}, {95, 240}, {1, 1e7}} {
		words := make(map[string]bool)
		for _, tick := range logTicks(plain).Ticks(c.least, c.most) {
			if tick.Value < c.least || tick.Value > c.most {
				t.Errorf("a tick at %v, between %v and %v", tick.Value, c.least, c.most)
			}
			if tick.Label != "" {
				words[tick.Label] = true
			}
		}
		if len(words) < 2 || len(words) > 8 {
			t.Errorf("between %v and %v: %v", c.least, c.most, words)
		}
	}
}

// TestCurvesDiffer: whatever is measured unless its user says otherwise has a colour of its own.
func TestCurvesDiffer(t *testing.T) {
	r := new(Report)
	for transport, methods := range map[string][]string{"rdma": {"read", "write", "send"}, "tcp": {"copy", "mmap", "sendfile", "splice"}, "udp": {"datagram"}} {
		for _, m := range methods {
			r.Cells = append(r.Cells, Cell{Transport: transport, Method: m})
		}
	}
	seen := make(map[color.RGBA]string)
	for _, v := range r.curves() {
		if other := seen[v.color]; other != "" {
			t.Errorf("%s and %s are both %v", other, v.name, v.color)
		}
		seen[v.color] = v.name
	}
	if len(seen) != 8 {
		t.Errorf("%d curves", len(seen))
	}
}
