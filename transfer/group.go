package transfer

import (
	"slices"
	"strings"
)

// lanePath is one of the ways on which a group's lanes run.
type lanePath struct {
	name     string
	worth    int // lanes, from the start on
	busy     int // lanes on it, or being opened
	failures int
	gone     bool // it was not found again
}

// group is the lanes of one transport.
type group struct {
	PullTransport
	paths   []*lanePath
	asked   int // lanes that the sender's user wants; 0 for what paths are worth, up to most
	most    int // of those
	more    int // lanes at the most that may be found to pay
	base    int // what paths are worth
	found   int // lanes that were found to pay, or are tried; 0 where that is no more than base
	want    int // lanes
	up      []*laneFeed
	streams streams // what was found of how many pay
	looked  int     // lanes that there were to be when that was looked at last
	opening int
	owed    bool    // the last that was up broke while others were being opened
	errs    []error // of those that could not be opened, this time
}

// update takes the paths that were found now. Those that were found before and carry
// lanes stay, but get no more of them.
func (g *group) update(names []string) {
	known := make(map[string]*lanePath)
	before := 0 // paths that were not gone
	for _, p := range g.paths {
		if !p.gone {
			before++
		}
		known[p.name], p.gone = p, true
	}
	var paths []*lanePath
	for _, name := range names {
		p := known[name]
		switch {
		case p == nil:
			p = &lanePath{name: name}
			known[name] = p
		case !p.gone: // it is worth one more
			p.worth++
			continue
		}
		p.gone, p.failures, p.worth = false, 0, 1 // it answers
		paths = append(paths, p)
	}
	for _, p := range g.paths {
		if p.gone && p.busy > 0 {
			paths = append(paths, p)
		}
	}
	g.paths = paths
	g.base = min(len(names), g.most)
	busy, idle := 0, 0
	for _, p := range paths {
		switch {
		case p.gone: // its lanes live on, beside those of the others
			g.base += p.busy
		case p.busy > 0:
			busy++
		default:
			idle++
		}
	}
	if busy+idle != before { // what was found was another time's
		g.found = 0
	}
	if g.want = g.asked; g.want == 0 {
		g.want = max(g.base, g.found)
		if idle > 0 && busy < g.most { // however many lanes others have
			g.want = max(g.want, len(g.up)+g.opening+min(idle, g.most-busy))
		}
	}
}

// retire lets lane i finish what it has in flight and take no more.
func (g *group) retire(i int) {
	f := g.up[i]
	f.retired.Store(true)
	for _, p := range g.paths {
		if p.name == f.path {
			p.busy--
		}
	}
	g.up = slices.Delete(g.up, i, i+1)
}

func (g *group) retireAll() {
	for len(g.up) > 0 {
		g.retire(0)
	}
}

func (g *group) missing() int { return g.want - len(g.up) - g.opening }

// giveUpTrying forgets lanes that were not shown to pay yet.
func (g *group) giveUpTrying() {
	if g.streams.trying() {
		g.streams.rate = 0
		g.find(g.streams.fewer)
	}
}

// find notes how many lanes pay, or are to be tried. There are no fewer than paths are worth.
func (g *group) find(n int) {
	if g.found = n; n <= g.base {
		g.found = 0
	}
	g.want = max(g.base, n)
}

// spared reports whether every path has a lane, and the others were nobody's wish: what can't
// be had of those is not missed.
func (g *group) spared() bool {
	return g.asked == 0 && !slices.ContainsFunc(g.paths, func(p *lanePath) bool { return p.busy == 0 && !p.gone })
}

// next chooses the path of a new lane: lanes are spread over the paths by what those are worth,
// and one that has failed is the last choice.
func (g *group) next() *lanePath {
	return slices.MinFunc(g.paths, func(a, b *lanePath) int {
		if a.gone != b.gone {
			if a.gone {
				return 1
			}
			return -1
		}
		if a.busy*b.worth != b.busy*a.worth {
			return a.busy*b.worth - b.busy*a.worth
		}
		return a.failures - b.failures
	})
}

// joinDetails says what several lanes run on, each thing once.
func joinDetails(details []string) string {
	slices.Sort(details)
	return strings.Join(slices.Compact(details), ", ")
}

// codeOfLanes is the code of a transfer whose lanes could not be opened: that of one whose
// peer is not who it should be says most.
func codeOfLanes(errs []error) Code {
	for _, err := range errs {
		if CodeOf(err) == CodeAuth {
			return CodeAuth
		}
	}
	return CodeConnect
}

// words joins what several lanes failed of, each thing once.
func words(errs []error) string {
	var list []string
	for _, err := range errs {
		if w := err.Error(); !slices.Contains(list, w) {
			list = append(list, w)
		}
	}
	return strings.Join(list, "; ")
}
