package compare

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rdmaxfer/rdmaxfer/internal/median"
)

// match is how the transports' best methods compare at a size.
type match struct {
	at, size  int // the size, and which of all
	rdma, tcp *Cell
	ratio     Interval // of their rates, rdma ÷ tcp
	rounds    int      // that this is of
}

// winner is the transport whose rate is higher, as the interval of the ratio tells; empty
// when that has 1 in it, or is none, of too few rounds.
func (m match) winner() string {
	switch {
	case m.few():
		return ""
	case m.ratio.Low > 1:
		return "rdma"
	case m.ratio.High < 1:
		return "tcp"
	}
	return ""
}

// few says whether it is of too few rounds to tell anything.
func (m match) few() bool { return m.rounds < median.Rounds }

// verdict says in a sentence or two what was found.
func (r *Report) verdict() string {
	var matches []match
	sizes := r.sizes()
	for at, size := range sizes {
		if rdma, tcp := r.best("rdma", size), r.best("tcp", size); rdma != nil && tcp != nil {
			matches = append(matches, match{at, size, rdma, tcp, ratioOf(rdma.Rates, tcp.Rates), min(len(rdma.Rates), len(tcp.Rates))})
		}
	}
	var words []string
	if !r.Complete {
		words = append(words, "Not complete.")
	}
	switch {
	case len(r.Cells) == 0:
		words = append(words, "Nothing was measured.")
	case len(matches) == 0 && r.has("rdma") && r.has("tcp"):
		words = append(words, "RDMA and TCP were not measured at one size.")
	case len(matches) == 0:
		words = append(words, r.alone())
	default:
		words = append(words, spans(matches, len(sizes))+".", costs(matches[len(matches)-1]))
	}
	words = append(words, r.besidePeers()...)
	if r.Soft {
		words = append(words, softWords)
	}
	return strings.Join(words, " ")
}

// has says whether something of a transport was measured.
func (r *Report) has(transport string) bool {
	return slices.ContainsFunc(r.Cells, func(c Cell) bool { return c.Transport == transport })
}

// softWords go with figures of emulated RDMA.
const softWords = "This RDMA is soft-RoCE (rdma_rxe), a program: it says nothing of RDMA hardware."

// alone speaks of one transport, the other was not measured.
func (r *Report) alone() string {
	last := &r.Cells[len(r.Cells)-1]
	size, best, other := last.Size, last, "RDMA"
	for _, transport := range []string{"rdma", "tcp"} { // UDP only where there is neither
		for _, at := range r.sizes() {
			if c := r.best(transport, at); c != nil {
				size, best = at, c
			}
		}
	}
	switch best.Transport {
	case "rdma":
		other = "TCP"
	case "udp":
		return fmt.Sprintf("Neither RDMA nor TCP was measured; at %s %s moves %s.", Size(size), best.name(), rate(best.Rate.Median))
	}
	why := ""
	for _, s := range r.Skipped {
		if strings.HasPrefix(s.Method, strings.ToLower(other)) {
			why = " (" + s.Reason + ")"
			break
		}
	}
	return fmt.Sprintf("%s was not measured%s; at %s %s moves %s.", other, why, Size(size), best.name(), rate(best.Rate.Median))
}

// spans tells who wins from which size on. Neighbours of one kind are one span; a size that
// not both were measured at is in none.
func spans(matches []match, sizes int) string {
	var words []string
	for i := 0; i < len(matches); {
		j := i + 1
		for j < len(matches) && matches[j].at == matches[j-1].at+1 && matches[j].winner() == matches[i].winner() && matches[j].few() == matches[i].few() {
			j++
		}
		words = append(words, span(matches[i:j], matches[i].at == 0, matches[j-1].at == sizes-1))
		i = j
	}
	return strings.ToUpper(words[0][:1]) + words[0][1:] + strings.Join(append([]string{""}, words[1:]...), "; ")
}

// span speaks of neighbours with one winner. It names the two methods where they are the
// best at each of the sizes, else the transports, and the methods at the largest alone: a
// sentence about sizes has to be true at every one of them.
func span(of []match, first, last bool) string {
	least, most := of[0].size, of[len(of)-1].size
	where := fmt.Sprintf("from %s to %s", Size(least), Size(most))
	switch {
	case first && last && len(of) > 1:
		where = "at every size"
	case len(of) == 1:
		where = "at " + Size(least)
	case last:
		where = fmt.Sprintf("from %s on", Size(least))
	case first:
		where = "up to " + Size(most)
	}
	m := of[len(of)-1]
	ratio, better, worse := m.ratio, m.rdma, m.tcp
	switch m.winner() {
	case "":
		if m.few() {
			return fmt.Sprintf("%s nothing is shown by fewer than %d rounds (rdma / tcp %.2f, %.2f to %.2f at %s)", where, median.Rounds, ratio.Median, ratio.Low, ratio.High, Size(m.size))
		}
		return fmt.Sprintf("%s neither is shown to move more (rdma / tcp %.2f, %.2f to %.2f at %s)", where, ratio.Median, ratio.Low, ratio.High, Size(m.size))
	case "tcp":
		ratio, better, worse = ratioOf(m.tcp.Rates, m.rdma.Rates), m.tcp, m.rdma
	}
	if slices.ContainsFunc(of, func(o match) bool { return o.rdma.Method != m.rdma.Method || o.tcp.Method != m.tcp.Method }) {
		return fmt.Sprintf("%s %s's best method moves more than %s's: %s %.2f times (%.2f to %.2f) what %s does at %s", where,
			better.Transport, worse.Transport, better.name(), ratio.Median, ratio.Low, ratio.High, worse.name(), Size(m.size))
	}
	at := ""
	if len(of) > 1 {
		at = " at " + Size(m.size)
	}
	return fmt.Sprintf("%s %s moves more than %s: %.2f times (%.2f to %.2f)%s", where, better.name(), worse.name(), ratio.Median, ratio.Low, ratio.High, at)
}

// costs compares what processors spend, and how long a round trip takes. The processes'
// share is not all of it: soft-RoCE works in the kernel's threads.
func costs(m match) string {
	hosts := ""
	if a, b := m.rdma.CPU, m.tcp.CPU; a.measured() && b.measured() {
		hosts = fmt.Sprintf(" (the whole hosts, with all that ran there, %.2f here and %.2f there, and %.2f and %.2f)", a.Here.Host, a.There.Host, b.Here.Host, b.There.Host)
	}
	return fmt.Sprintf("At %s %s costs the two processes %.2f CPU seconds a GB and %s %.2f%s; one extent alone takes %s and %s.",
		Size(m.size), m.rdma.name(), m.rdma.CPU.Here.process()+m.rdma.CPU.There.process(), m.tcp.name(), m.tcp.CPU.Here.process()+m.tcp.CPU.There.process(), hosts,
		seconds(m.rdma.Trip.Median), seconds(m.tcp.Trip.Median))
}
