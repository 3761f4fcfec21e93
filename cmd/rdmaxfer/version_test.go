package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// TestVersionAndHints: which rdmaxfer this is, and where the flags of what was typed are told.
func TestVersionAndHints(t *testing.T) {
	p := twoHosts[0].start(t, "--version")
	p.want(transfer.CodeOK)
	if said, want := p.plain.String(), fmt.Sprintf("rdmaxfer version %s", version()); !strings.Contains(said, want) || !strings.Contains(said, fmt.Sprintf("(protocol %d, ", wire.Version)) {
		t.Errorf("--version: %q, want %q", said, want)
	}
	for _, c := range []struct {
		args string
		code transfer.Code
		want string // in what it says on standard error
	}{
		{"--nosuch", transfer.CodeUsage, "(see: rdmaxfer --help)"},
		{"send --nosuch", transfer.CodeUsage, "(see: rdmaxfer send --help)"},
		{"bench bw --nosuch", transfer.CodeUsage, "(see: rdmaxfer bench bw --help)"},
	} {
		twoHosts[0].start(t, strings.Fields(c.args)...).want(c.code, c.want)
	}
}
