package compare

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"image/color"
	"io"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"size":    Size,
	"mib":     func(v float64) string { return fmt.Sprintf("%.1f", v/(1<<20)) },
	"seconds": seconds,
	"p99":     func(d Distribution) string { return seconds(d.at(99)) },
	"p50":     func(d Distribution) string { return seconds(d.at(50)) },
	"bytes":   func(n int64) string { return fmt.Sprintf("%.0f", float64(n)/(1<<20)) },
	"process": CPU.process,
	"columns": func(c PeerCell) []string { return c.columns() },
}).Parse(page))

// WriteHTML writes a page that needs nothing else: plots and the table.
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
	return pageTemplate.Execute(w, data)
}

// Colours that tell the methods apart, on white and, turned round, on black: RDMA's are
// cold, TCP's warm, UDP's has none.
var colours = map[string][]color.Color{
	"rdma": {color.RGBA{0x1f, 0x5f, 0xbf, 255}, color.RGBA{0x17, 0xa2, 0xb8, 255}, color.RGBA{0x6f, 0x42, 0xc1, 255}},
	"tcp":  {color.RGBA{0xd9, 0x5f, 0x02, 255}, color.RGBA{0x5b, 0x8c, 0x2a, 255}, color.RGBA{0xc0, 0x39, 0x2b, 255}},
	"udp":  {color.RGBA{0x70, 0x70, 0x70, 255}},
}

// lineStyle is a method's own: the nth of its transport.
func lineStyle(transport string, n int) draw.LineStyle {
	list := colours[transport]
	s := draw.LineStyle{Width: vg.Points(1.5), Color: list[n%len(list)]}
	switch transport {
	case "tcp":
		s.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
	case "udp":
		s.Dashes = []vg.Length{vg.Points(1.5), vg.Points(2)}
	}
	return s
}

// curves calls f for each method with its cells, by size.
func (r *Report) curves(f func(name string, style draw.LineStyle, cells []*Cell) error) error {
	var names []string
	cells := make(map[string][]*Cell)
	for i := range r.Cells {
		c := &r.Cells[i]
		if cells[c.name()] == nil {
			names = append(names, c.name())
		}
		cells[c.name()] = append(cells[c.name()], c)
	}
	nth := make(map[string]int)
	for _, name := range names {
		transport := cells[name][0].Transport
		if err := f(name, lineStyle(transport, nth[transport]), cells[name]); err != nil {
			return err
		}
		nth[transport]++
	}
	return nil
}

// bySize plots a value of each cell, with the bounds that it may have, by size.
func (r *Report) bySize(title, unit string, value func(*Cell) Interval) (template.HTML, error) {
	p := newPlot(title, "size of an extent", unit)
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, r.sizeTicks()
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	err := r.curves(func(name string, style draw.LineStyle, cells []*Cell) error {
		var xys plotter.XYs
		var bars plotter.YErrors
		for _, c := range cells {
			if v := value(c); v.Median > 0 {
				xys = append(xys, plotter.XY{X: float64(c.Size), Y: v.Median})
				// A bar must stay above 0, where a logarithm ends.
				bars = append(bars, struct{ Low, High float64 }{v.Median - max(v.Low, v.Median/100), v.High - v.Median})
			}
		}
		if len(xys) == 0 {
			return nil
		}
		e, err := plotter.NewYErrorBars(struct {
			plotter.XYs
			plotter.YErrors
		}{xys, bars})
		if err != nil {
			return err
		}
		e.Color = style.Color
		p.Add(e)
		return addLine(p, name, style, xys)
	})
	if err != nil {
		return "", err
	}
	return render(p)
}

func addLine(p *plot.Plot, name string, style draw.LineStyle, xys plotter.XYs) error {
	line, points, err := plotter.NewLinePoints(xys)
	if err != nil {
		return err
	}
	line.LineStyle = style
	points.GlyphStyle = draw.GlyphStyle{Color: style.Color, Radius: vg.Points(2), Shape: draw.CircleGlyph{}}
	p.Add(line, points)
	p.Legend.Add(name, line)
	return nil
}

func (r *Report) plotRates() (template.HTML, error) {
	return r.bySize(fmt.Sprintf("Bandwidth, %d requests in flight", r.Depth), "MiB/s", func(c *Cell) Interval {
		return Interval{c.Rate.Median / (1 << 20), c.Rate.Low / (1 << 20), c.Rate.High / (1 << 20)}
	})
}

func (r *Report) plotTrips() (template.HTML, error) {
	return r.bySize("Round trip of one request alone, median", "µs", func(c *Cell) Interval {
		return Interval{c.Trip.Median * 1e6, c.Trip.Low * 1e6, c.Trip.High * 1e6}
	})
}

func (r *Report) plotCPU() (template.HTML, error) {
	return r.bySize("CPU of both processes", "seconds a GB", func(c *Cell) Interval {
		v := c.CPU.Here.process() + c.CPU.There.process()
		return Interval{v, v, v}
	})
}

// plotDistribution draws how long one request alone takes, at the least size: as far to
// the right as there were times for.
func (r *Report) plotDistribution() (template.HTML, error) {
	least := r.Cells[0].Size
	p := newPlot(fmt.Sprintf("Round trips of %s alone, by percentile", Size(least)), "percentile", "µs")
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.Y.Tick.Marker = plot.LogTicks{Prec: -1}
	var ticks []plot.Tick
	for _, percent := range percents {
		ticks = append(ticks, plot.Tick{Value: beyond(percent), Label: fmt.Sprintf("%g", percent)})
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	err := r.curves(func(name string, style draw.LineStyle, cells []*Cell) error {
		if cells[0].Size != least {
			return nil
		}
		var xys plotter.XYs
		for _, q := range cells[0].Alone.Percentiles {
			xys = append(xys, plotter.XY{X: beyond(q.Percent), Y: q.Seconds * 1e6})
		}
		if len(xys) == 0 {
			return nil
		}
		return addLine(p, name, style, xys)
	})
	if err != nil {
		return "", err
	}
	return render(p)
}

// beyond is the place of a percentile on a logarithmic axis: one in how many is longer.
func beyond(percent float64) float64 { return 100 / (100 - percent) }

func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.Padding = vg.Points(6)
	p.X.Label.Text, p.Y.Label.Text = x, y
	p.BackgroundColor = color.Transparent
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.Padding = vg.Points(2)
	p.Add(plotter.NewGrid())
	return p
}

func (r *Report) sizeTicks() plot.Ticker {
	var ticks []plot.Tick
	for _, size := range r.sizes() {
		ticks = append(ticks, plot.Tick{Value: float64(size), Label: Size(size)})
	}
	return plot.ConstantTicks(ticks)
}

// render makes an SVG that fits any width. An axis needs an extent, also where there is
// one value alone.
func render(p *plot.Plot) (template.HTML, error) {
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		if math.IsInf(axis.Min, 0) || math.IsInf(axis.Max, 0) {
			axis.Min, axis.Max = 1, 10 // nothing was drawn
		}
		if axis.Min == axis.Max {
			axis.Min, axis.Max = axis.Min/2, axis.Max*2
		}
	}
	p.Y.Max *= 4 // for the legend
	c := vgsvg.New(17*vg.Centimeter, 10*vg.Centimeter)
	p.Draw(draw.Crop(draw.New(c), 0, -vg.Centimeter/2, 0, 0)) // the last label reaches beyond the axis
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return "", err
	}
	_, svg, _ := strings.Cut(b.String(), "<svg ")
	return template.HTML(`<svg role="img" aria-label="` + template.HTMLEscapeString(p.Title.Text) + `" ` + svg), nil
}
