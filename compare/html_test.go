package compare

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

func TestPageNeedsNothingElse(t *testing.T) {
	for name, rates := range map[string]map[string]float64{
		"both":    {"read": 1e9, "write": 2e9, "copy": 1e9},
		"no RDMA": {"copy": 1e9},
		"nothing": {},
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			o.Peers = fakePeers(1e9, time.Millisecond)
			r, err := Run(t.Context(), &truth{rates: rates, trip: time.Millisecond}, o)
			if err != nil {
				t.Fatal(err)
			}
			r.Peer = `<script>alert("peer")</script>`
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
			plots, rows := 4, 2+2*len(r.Cells)+len(r.Peers)
			if len(r.Cells) == 0 {
				plots, rows = 0, 1+len(r.Peers)
			}
			if count["script"] != 0 || count["link"] != 0 || count["svg"] != plots || count["tr"] != rows || count["li"] != len(r.Skipped)+len(r.Normalised) {
				t.Errorf("%v, of %d cells", count, len(r.Cells))
			}
		})
	}
}
