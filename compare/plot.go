package compare

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Colours that tell the methods apart, on white and, turned round, on black: RDMA's are
// cold, TCP's warm, UDP's has none.
var colours = map[string][]color.RGBA{
	"rdma": {{0x1f, 0x5f, 0xbf, 255}, {0x17, 0xa2, 0xb8, 255}, {0x6f, 0x42, 0xc1, 255}},
	"tcp":  {{0xd9, 0x5f, 0x02, 255}, {0x5b, 0x8c, 0x2a, 255}, {0xc0, 0x39, 0x2b, 255}, {0xd6, 0x33, 0x9a, 255}},
	"udp":  {{0x70, 0x70, 0x70, 255}},
}

// dashes are a transport's own, in points, for those who don't see colours.
var dashes = map[string][]vg.Length{"tcp": {5, 3}, "udp": {1.5, 2}}

// curve is a method in the plots: its cells, by size.
type curve struct {
	name  string
	color color.RGBA
	dash  []vg.Length
	cells []*Cell
}

func (r *Report) curves() (list []*curve) {
	by := make(map[string]*curve)
	nth := make(map[string]int)
	for i := range r.Cells {
		c := &r.Cells[i]
		v := by[c.name()]
		if v == nil {
			of := colours[c.Transport]
			v = &curve{name: c.name(), color: of[nth[c.Transport]%len(of)], dash: dashes[c.Transport]}
			nth[c.Transport]++
			by[c.name()] = v
			list = append(list, v)
		}
		v.cells = append(v.cells, c)
	}
	return list
}

func (v *curve) style() draw.LineStyle {
	return draw.LineStyle{Width: vg.Points(1.5), Color: v.color, Dashes: v.dash}
}

// Legend is one method's line, as all plots have it, and its name.
func (r *Report) Legend() (list []template.HTML) {
	for _, v := range r.curves() {
		var dash []string
		for _, d := range v.dash {
			dash = append(dash, fmt.Sprint(float64(d)))
		}
		list = append(list, template.HTML(fmt.Sprintf(`<svg class="key" viewBox="0 0 30 8" aria-hidden="true"><path d="M0 4H30" stroke="#%02x%02x%02x" stroke-width="2.5" stroke-dasharray="%s"/></svg>%s`,
			v.color.R, v.color.G, v.color.B, strings.Join(dash, " "), template.HTMLEscapeString(v.name))))
	}
	return list
}

func (r *Report) plotRates() (template.HTML, error) {
	return r.bySize(fmt.Sprintf("Bandwidth, MiB/s, %d requests in flight", r.Depth), plain, func(c *Cell) Interval {
		return Interval{c.Rate.Median / (1 << 20), c.Rate.Low / (1 << 20), c.Rate.High / (1 << 20)}
	})
}

func (r *Report) plotTrips() (template.HTML, error) {
	return r.bySize("Round trip of one request alone, median", seconds, func(c *Cell) Interval { return c.Trip })
}

func (r *Report) plotCPU() (template.HTML, error) {
	return r.bySize("CPU of both processes, seconds a GB", plain, func(c *Cell) Interval {
		v := c.CPU.Here.process() + c.CPU.There.process()
		return Interval{v, v, v}
	})
}

func plain(v float64) string { return fmt.Sprintf("%g", v) }

// bySize plots a value of each cell, with the bounds that it may have, by size. Methods
// stand a little beside each other, so that their bars can be told apart.
func (r *Report) bySize(title string, label func(float64) string, value func(*Cell) Interval) (template.HTML, error) {
	p := newPlot(title, "size of an extent", label)
	p.X.Tick.Marker = r.sizeTicks()
	curves := r.curves()
	for i, v := range curves {
		beside := math.Pow(1.035, float64(i)-float64(len(curves)-1)/2)
		var xys plotter.XYs
		var bars plotter.YErrors
		for _, c := range v.cells {
			if of := value(c); of.Median > 0 {
				xys = append(xys, plotter.XY{X: float64(c.Size) * beside, Y: of.Median})
				// A bar must stay above 0, where a logarithm ends.
				bars = append(bars, struct{ Low, High float64 }{of.Median - max(of.Low, of.Median/100), of.High - of.Median})
			}
		}
		if len(xys) == 0 {
			continue
		}
		e, err := plotter.NewYErrorBars(struct {
			plotter.XYs
			plotter.YErrors
		}{xys, bars})
		if err != nil {
			return "", err
		}
		e.Color = v.color
		p.Add(e)
		if err := addLine(p, v, xys); err != nil {
			return "", err
		}
	}
	return render(p)
}

// plotDistribution draws how long one request alone takes, at the least size: as far to
// the right as there were times for.
func (r *Report) plotDistribution() (template.HTML, error) {
	least := r.Cells[0].Size
	p := newPlot(fmt.Sprintf("Round trips of %s alone, by percentile", Size(least)), "percentile", seconds)
	var ticks []plot.Tick
	for _, percent := range percents {
		ticks = append(ticks, plot.Tick{Value: beyond(percent), Label: fmt.Sprintf("%g", percent)})
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	for _, v := range r.curves() {
		if v.cells[0].Size != least {
			continue
		}
		var xys plotter.XYs
		for _, q := range v.cells[0].Alone.Percentiles {
			xys = append(xys, plotter.XY{X: beyond(q.Percent), Y: q.Seconds})
		}
		if len(xys) == 0 {
			continue
		}
		if err := addLine(p, v, xys); err != nil {
			return "", err
		}
	}
	return render(p)
}

// beyond is the place of a percentile on a logarithmic axis: one in how many is longer.
func beyond(percent float64) float64 { return 100 / (100 - percent) }

func addLine(p *plot.Plot, v *curve, xys plotter.XYs) error {
	line, points, err := plotter.NewLinePoints(xys)
	if err != nil {
		return err
	}
	line.LineStyle = v.style()
	points.GlyphStyle = draw.GlyphStyle{Color: v.color, Radius: vg.Points(2), Shape: draw.CircleGlyph{}}
	p.Add(line, points)
	return nil
}

func newPlot(title, x string, label func(float64) string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.Padding = vg.Points(6)
	p.X.Label.Text = x
	p.BackgroundColor = color.Transparent
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.Y.Tick.Marker = logTicks(label)
	p.Add(plotter.NewGrid())
	return p
}

// logTicks are ticks of a logarithmic axis: as many of 1, 2 and 5 of each decade as are
// not too many.
type logTicks func(float64) string

// Ticks is [plot.Ticker].
func (label logTicks) Ticks(least, most float64) (ticks []plot.Tick) {
	decades := math.Log10(most / least)
	for e := math.Floor(math.Log10(least)); e <= math.Log10(most); e++ {
		for _, m := range []float64{1, 2, 5} {
			// 10^-3 is not a thousandth, to a computer; a decade's digits are.
			v := m * math.Pow(10, e)
			if e < 0 {
				v = m / math.Pow(10, -e)
			}
			if v < least || v > most {
				continue
			}
			t := plot.Tick{Value: v}
			if m == 1 || decades < 2 || m == 5 && decades < 1 {
				t.Label = label(v) + " " // apart from the tick
			}
			ticks = append(ticks, t)
		}
	}
	return ticks
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
	p.Y.Min, p.Y.Max = p.Y.Min/1.2, p.Y.Max*1.2 // so that no point lies on the axis
	if decade := math.Pow(10, math.Ceil(math.Log10(p.Y.Min))); decade > p.Y.Max && p.Y.Max/p.Y.Min < 2 {
		p.Y.Min, p.Y.Max = p.Y.Min/1.5, p.Y.Max*1.5 // so that there is a tick or two
	}
	// Small, with letters of the usual size: a phone shows it smaller still.
	c := vgsvg.New(13*vg.Centimeter, 8*vg.Centimeter)
	p.Draw(draw.Crop(draw.New(c), 0, -vg.Centimeter/2, 0, 0)) // the last label reaches beyond the axis
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return "", err
	}
	_, svg, _ := strings.Cut(b.String(), "<svg ")
	return template.HTML(`<svg role="img" aria-label="` + template.HTMLEscapeString(p.Title.Text) + `" ` + svg), nil
}
