package compare

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"sync"
)

//go:embed report.html
var page string

// pageTemplate is parsed by who needs it: each start of the program would take a millisecond for it.
var pageTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("report").Funcs(pageFuncs).Parse(page))
})

var pageFuncs = template.FuncMap{
	"size":    Size,
	"mib":     func(v float64) string { return fmt.Sprintf("%.1f", v/(1<<20)) },
	"seconds": seconds,
	"p99":     func(d Distribution) string { return seconds(d.at(99)) },
	"p50":     func(d Distribution) string { return seconds(d.at(50)) },
	"bytes":   func(n int64) string { return fmt.Sprintf("%.0f", float64(n)/(1<<20)) },
	"process": CPU.process,
	"host":    CPU.host,
	"columns": func(c PeerCell) []string { return c.columns() },
}

// WriteHTML writes a page that needs nothing else: plots and tables.
func (r *Report) WriteHTML(w io.Writer) error {
	plots := []func() (template.HTML, error){r.plotRates, r.plotTrips, r.plotDistribution, r.plotCPU}
	data := struct {
		*Report
		Plots []template.HTML
	}{Report: r}
	for _, draw := range plots {
		if len(r.Cells) == 0 {
			break
		}
		svg, err := draw()
		if err != nil {
			return fmt.Errorf("drawing the report: %w", err)
		}
		data.Plots = append(data.Plots, svg)
	}
	return pageTemplate().Execute(w, data)
}

// Card is one figure of RDMA's best method and of TCP's.
type Card struct {
	What, RDMA, TCP string
}

// Cards are what the page begins with: the largest size that both were measured at.
func (r *Report) Cards() (list []Card) {
	sizes := r.sizes()
	slices.Reverse(sizes)
	for _, size := range sizes {
		a, b := r.best("rdma", size), r.best("tcp", size)
		if a == nil || b == nil {
			continue
		}
		cpu := func(c *Cell) string {
			return fmt.Sprintf("%.2f", c.CPU.Here.process()+c.CPU.There.process())
		}
		at := " at " + Size(size)
		list = []Card{
			{"bandwidth" + at, rate(a.Rate.Median), rate(b.Rate.Median)},
			{"round trip" + at, seconds(a.Trip.Median), seconds(b.Trip.Median)},
			{"CPU of both processes" + at + ", s/GB", cpu(a), cpu(b)},
		}
		if a.CPU.measured() && b.CPU.measured() {
			// Not their sum: the two may be one machine.
			hosts := func(c *Cell) string { return fmt.Sprintf("%.2f, %.2f", c.CPU.Here.Host, c.CPU.There.Host) }
			list = append(list, Card{"CPU of each whole host" + at + ", s/GB", hosts(a), hosts(b)})
		}
		return list
	}
	return nil
}

// Best says whether no other method of its size moves more, of those with rounds enough.
func (r *Report) Best(c Cell) bool {
	return !slices.ContainsFunc(r.Cells, func(o Cell) bool { return o.Size == c.Size && r.better(&o, &c) })
}

// First says whether the nth cell is the first of its size.
func (r *Report) First(n int) bool { return n > 0 && r.Cells[n].Size != r.Cells[n-1].Size }

// Hosts are the two, as far as the report has them.
func (r *Report) Hosts() (list []struct {
	Name string
	*Hardware
}) {
	for _, h := range []struct {
		Name string
		*Hardware
	}{{r.Host.Name, r.Hardware}, {r.Peer, r.There}} {
		if h.Hardware != nil {
			list = append(list, h)
		}
	}
	return list
}
