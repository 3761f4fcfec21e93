package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// stateWords are what a row's state is called, in JSON and in the table.
var stateWords = map[wire.PathState]string{
	wire.PathUntried: "untried",
	wire.PathFailed:  "failed",
	wire.PathSpare:   "spare",
	wire.PathChosen:  "chosen",
}

// Paths tells how RDMA reaches the other host: programs always, people with --verbose.
func (o *output) Paths(r *transfer.PathReport) {
	o.event("paths", pathFields(r))
	if !o.verbose {
		return
	}
	for line := range strings.Lines(pathTable(r)) {
		o.say("%s", strings.TrimRight(line, " \n"))
	}
}

// pathFields are a report in JSON.
func pathFields(r *transfer.PathReport) map[string]any {
	rows := []map[string]any{}
	for _, p := range r.Rows {
		rows = append(rows, map[string]any{
			"here": addressFields(&p.Here), "there": addressFields(&p.There), "state": stateWords[p.State],
			"mtu_bytes": p.MTU, "seconds": p.Took.Seconds(), "reason": p.Reason,
		})
	}
	return map[string]any{
		"rows": rows, "refused_here": refusedFields(r.Here), "refused_there": refusedFields(r.There),
		"reason": r.Reason, "seconds": r.Took.Seconds(),
	}
}

func addressFields(c *wire.Candidate) map[string]any {
	return map[string]any{
		"device": c.Device, "port": c.Port, "gid_index": c.GIDIndex, "address": ibverbs.GID(c.GID).Addr().String(),
		"gid_type": ibverbs.GIDType(c.GIDType).String(), "lid": c.LID, "netdev": c.Netdev,
		"bits_per_second": int64(c.Mbps) * 1e6, "numa_node": c.Node, "mtu_bytes": ibverbs.MTU(c.MTU).Bytes(),
	}
}

func refusedFields(list []wire.Refusal) []map[string]any {
	fields := []map[string]any{}
	for _, r := range list {
		fields = append(fields, map[string]any{"device": r.Device, "port": r.Port, "reason": r.Reason})
	}
	return fields
}

// pathTable is a report for people: a line a pair of addresses, then what neither host
// could offer.
func pathTable(r *transfer.PathReport) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	if len(r.Rows) > 0 {
		fmt.Fprintln(w, "THIS HOST\tTHE OTHER\tMTU\tRATE\tANSWER\tLANES")
	}
	untried := 0
	for _, p := range r.Rows {
		if p.State == wire.PathUntried && p.Reason == "" {
			untried++
			continue
		}
		mtu, took := "-", "-"
		if p.MTU > 0 {
			mtu = fmt.Sprint(p.MTU)
		}
		if p.Took > 0 {
			took = p.Took.Round(time.Microsecond).String()
		}
		words := map[wire.PathState]string{wire.PathChosen: "yes", wire.PathSpare: "not needed", wire.PathFailed: "no", wire.PathUntried: "not tried"}[p.State]
		if p.Reason != "" {
			words += ": " + transfer.Printable(p.Reason)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", addressWords(&p.Here), addressWords(&p.There), mtu, rateWords(min(p.Here.Mbps, p.There.Mbps)), took, words)
	}
	w.Flush()
	if untried > 0 {
		fmt.Fprintf(&b, "and %d more, which were not needed and not tried\n", untried)
	}
	for _, side := range []struct {
		host string
		list []wire.Refusal
	}{{"this host", r.Here}, {"the other", r.There}} {
		for _, f := range side.list {
			fmt.Fprintf(&b, "%s: %s %s\n", side.host, transfer.Printable(f.Device), transfer.Printable(f.Reason))
		}
	}
	if r.Reason != "" {
		fmt.Fprintf(&b, "no lane over RDMA: %s\n", r.Reason)
	}
	return b.String()
}

func addressWords(c *wire.Candidate) string {
	s := fmt.Sprintf("%s/%d gid %d %v", transfer.Printable(c.Device), c.Port, c.GIDIndex, ibverbs.GID(c.GID).Addr())
	if !c.Ethernet {
		s = fmt.Sprintf("%s/%d lid %d", transfer.Printable(c.Device), c.Port, c.LID)
	}
	return s
}

func rateWords(mbps uint32) string {
	if mbps == 0 {
		return "-"
	}
	return fmt.Sprintf("%g Gbit/s", float64(mbps)/1000)
}
