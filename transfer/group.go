package transfer

import (
	"slices"
	"strings"
)

// lanePath is one of the ways on which a group's lanes run.
type lanePath struct {
	name     string
	busy     int // lanes on it, or being opened
	failures int
}

// group is the lanes of one transport.
type group struct {
	PullTransport
	paths   []*lanePath
	want    int // lanes
	up      []*laneFeed
	opening int
	errs    []error // of those that could not be opened, this time
}

func (g *group) missing() int { return g.want - len(g.up) - g.opening }

// next chooses the path of a new lane: lanes are spread over the paths, and one
// that has failed is the last choice.
func (g *group) next() *lanePath {
	return slices.MinFunc(g.paths, func(a, b *lanePath) int {
		if a.busy != b.busy {
			return a.busy - b.busy
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
