//go:build linux

package verbsperf

import (
	"strings"
	"testing"
)

// What a peer may ask for has bounds: each is taken to its own, and one step beyond.
func TestConfigIsBounded(t *testing.T) {
	good := func(f func(*Config)) Config {
		c := Config{Op: OpWrite, Size: 64, Depth: 8, QPs: 1, Chain: 1, Signal: 1, Buffers: 1}
		f(&c)
		return c
	}
	for name, c := range map[string]struct {
		ok, over func(*Config)
		want     string
	}{
		"op":        {func(c *Config) { c.Op = OpUD }, func(c *Config) { c.Op = "atomic" }, "op"},
		"size":      {func(c *Config) { c.Size = 1 }, func(c *Config) { c.Size = 0 }, "size"},
		"depth":     {func(c *Config) { c.Depth = MaxDepth }, func(c *Config) { c.Depth = MaxDepth + 1 }, "depth"},
		"pairs":     {func(c *Config) { c.QPs = MaxQPs }, func(c *Config) { c.QPs = MaxQPs + 1 }, "queue pairs"},
		"chain":     {func(c *Config) { c.Chain = 64 }, func(c *Config) { c.Chain = 65 }, "doorbell"},
		"signal":    {func(c *Config) { c.Signal = 8 }, func(c *Config) { c.Signal = 9 }, "completion"},
		"inline":    {func(c *Config) { c.Inline = 1024 }, func(c *Config) { c.Inline = 1025 }, "inline"},
		"posted":    {func(c *Config) { c.QPs, c.Depth = 8, 4095 }, func(c *Config) { c.QPs, c.Depth = 8, 4096 }, "at once"},
		"receives":  {func(c *Config) { c.Op, c.QPs, c.Depth = OpSend, 10, 1024 }, func(c *Config) { c.Op, c.QPs, c.Depth = OpSend, 11, 1024 }, "at once"},
		"memory":    {func(c *Config) { c.Size, c.Buffers = 1<<20-40, 32 }, func(c *Config) { c.Size, c.Buffers = 1<<20-40, 33 }, "registered"},
		"latency":   {func(c *Config) { c.Latency = true }, func(c *Config) { c.Latency, c.QPs = true, 2 }, "one queue pair"},
		"both":      {func(c *Config) { c.Both = true }, func(c *Config) { c.Both, c.Latency = true, true }, "one queue pair"},
		"events":    {func(c *Config) { c.Latency, c.Op, c.Events = true, OpSend, true }, func(c *Config) { c.Latency, c.Events = true, true }, "no event"},
		"MTU":       {func(c *Config) { c.MTU = 5 }, func(c *Config) { c.MTU = 6 }, "MTU"},
		"no buffer": {func(c *Config) { c.Buffers = 1 }, func(c *Config) { c.Buffers = 0 }, "buffers"},
		"negative":  {func(c *Config) { c.Duration = 1 }, func(c *Config) { c.Duration = -1 }, "negative"},
	} {
		ok, over := good(c.ok), good(c.over)
		if err := ok.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := over.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, beyond: %v", name, err)
		}
	}
}
