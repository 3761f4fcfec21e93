package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/BurntSushi/toml"
	"github.com/urfave/cli/v2"

	"github.com/rdmaxfer/rdmaxfer/ibverbs"
	"github.com/rdmaxfer/rdmaxfer/transfer/rdma"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// rdmaFlags are what both ends can say about devices and the network between them. Each
// can also stand in the environment, as RDMAXFER_QP_TIMEOUT for --qp-timeout, and in a
// configuration file.
func rdmaFlags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringSliceFlag{Name: "device", Usage: "use this RDMA device alone: `NAME`, or NAME/PORT; may be repeated (see: rdmaxfer devices)"},
		&cli.IntFlag{Name: "gid-index", Usage: "use entry `N` of each GID table, whatever it is", DefaultText: "those that both hosts' networks have in common, RoCE v2"},
		&cli.StringFlag{Name: "gid-type", Usage: "use GIDs of `TYPE`: rocev2, or rocev1, which is not routed"},
		&cli.StringSliceFlag{Name: "rail", Usage: "run lanes on this pair of devices alone, this host's and the other's: `HERE=THERE`; may be repeated"},
		&cli.IntFlag{Name: "sl", Usage: "service level `N`, 0 to 15"},
		&cli.StringFlag{Name: "traffic-class", Usage: "RoCE's traffic `CLASS`: 0 to 255, or a DSCP name such as af41 (default: what the administrator has configured; of bench without --lane: 0)"},
		&cli.StringFlag{Name: "flow-label", Usage: "`LABEL` of RoCE's packets: auto (one of its own for each lane, which spreads them over equal paths; of bench without --lane: 0), or a number of 20 bits"},
		&cli.StringFlag{Name: "pkey", Usage: "InfiniBand partition `KEY`, such as 0x8001 (default: one that both ports are in)"},
		&cli.IntFlag{Name: "qp-timeout", Usage: "acknowledgement time-out of 4.096 µs × 2^`N`, 1 to 31", DefaultText: "15, which is 134 ms; of bench without --lane perftest's: 14"},
		&cli.IntFlag{Name: "retries", Usage: "send again `N` times, 0 to 7", DefaultText: "6; soft-RoCE takes 7 for ever"},
		&cli.IntFlag{Name: "mtu", Usage: "RDMA packets of `BYTES` at the most: 256, 512, 1024, 2048 or 4096", DefaultText: "the largest that both ports have, and the path lets through"},
	}
	for _, f := range flags {
		env := []string{envName(f.Names()[0])}
		switch f := f.(type) {
		case *cli.StringSliceFlag:
			f.EnvVars = env
		case *cli.StringFlag:
			f.EnvVars = env
		case *cli.IntFlag:
			f.EnvVars = env
		}
	}
	return append(flags, &cli.StringFlag{Name: "config", EnvVars: []string{envName("config")},
		Usage: "take what of the RDMA flags is not given from `FILE` (TOML; default: /etc/rdmaxfer.toml, and over it rdmaxfer.toml in the user's configuration directory)"})
}

func envName(flag string) string {
	return "RDMAXFER_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// newRDMA makes a session's transport of what rdmaFlags and --memory say.
func newRDMA(c *cli.Context) (*rdma.Transport, error) {
	if err := configure(c); err != nil {
		return nil, err
	}
	t := new(rdma.Transport)
	var err error
	if t.Memory, err = budget(c); err != nil {
		return nil, err
	}
	if t.Selection, err = selection(c); err != nil {
		return nil, err
	}
	t.Fabric, err = fabric(c)
	t.Selection.PKey = t.Fabric.PKey
	return t, err
}

func selection(c *cli.Context) (s rdma.Selection, err error) {
	s.Devices = c.StringSlice("device")
	if c.IsSet("gid-index") {
		n := c.Int("gid-index")
		if n < 0 || n > 255 {
			return s, usagef("--gid-index %d: from 0 to 255 (see: rdmaxfer devices)", n)
		}
		s.GIDIndex = &n
	}
	switch v := c.String("gid-type"); v {
	case "":
	case "rocev2":
		s.GIDType = ibverbs.GIDTypeRoCEv2.String()
	case "rocev1":
		s.GIDType = ibverbs.GIDTypeRoCEv1.String()
	default:
		return s, usagef("--gid-type %s: it must be rocev2 or rocev1", v)
	}
	for _, v := range c.StringSlice("rail") {
		here, there, ok := strings.Cut(v, "=")
		if !ok || here == "" || there == "" || len(v) > 64 || strings.ContainsFunc(v, unicode.IsControl) {
			return s, usagef("--rail %s: HERE=THERE, a device of this host and one of the other, such as mlx5_0=mlx5_1", v)
		}
		s.Rails = append(s.Rails, wire.Rail{Here: here, There: there})
	}
	if len(s.Rails) > wire.MaxRails {
		return s, usagef("--rail: %d of them; %d at the most", len(s.Rails), wire.MaxRails)
	}
	return s, nil
}

func fabric(c *cli.Context) (f rdma.Fabric, err error) {
	small := func(flag string, least, most int) (*uint8, error) {
		if !c.IsSet(flag) {
			return nil, nil
		}
		n := c.Int(flag)
		if n < least || n > most {
			return nil, usagef("--%s %d: from %d to %d", flag, n, least, most)
		}
		v := uint8(n)
		return &v, nil
	}
	if f.ServiceLevel, err = small("sl", 0, 15); err != nil {
		return f, err
	}
	if f.Timeout, err = small("qp-timeout", 1, 31); err != nil {
		return f, err
	}
	if f.Retries, err = small("retries", 0, 7); err != nil {
		return f, err
	}
	if v := c.String("traffic-class"); v != "" {
		n, err := trafficClass(v)
		if err != nil {
			return f, err
		}
		f.TrafficClass = &n
	}
	if v := c.String("flow-label"); v != "" && v != "auto" {
		n, err := strconv.ParseUint(v, 0, 20)
		if err != nil {
			return f, usagef("--flow-label %s: auto, or a number from 0 to 0xfffff", v)
		}
		label := uint32(n)
		f.FlowLabel = &label
	}
	if v := c.String("pkey"); v != "" {
		n, err := strconv.ParseUint(v, 0, 16)
		if err != nil || n&0x7fff == 0 {
			return f, usagef("--pkey %s: a partition key, such as 0x8001", v)
		}
		key := uint16(n)
		f.PKey = &key
	}
	if c.IsSet("mtu") {
		for m := uint8(1); m <= 5; m++ {
			if ibverbs.MTU(m).Bytes() == c.Int("mtu") {
				f.MTU = &m
			}
		}
		if f.MTU == nil {
			return f, usagef("--mtu %d: 256, 512, 1024, 2048 or 4096", c.Int("mtu"))
		}
	}
	return f, nil
}

// trafficClass understands the whole octet as a number, and names of DSCPs, which are its
// upper six bits.
func trafficClass(v string) (uint8, error) {
	if n, err := strconv.ParseUint(v, 0, 8); err == nil {
		return uint8(n), nil
	}
	if n, ok := dscpNames()[strings.ToLower(v)]; ok {
		return uint8(n << 2), nil
	}
	return 0, usagef("--traffic-class %s: from 0 to 255, or a DSCP name: cs0 to cs7, af11 to af43, ef, le", v)
}

// configure sets those of rdmaFlags that neither the command line nor the environment has
// set, from the configuration files.
func configure(c *cli.Context) error {
	known := make(map[string]bool)
	for _, f := range rdmaFlags() {
		known[f.Names()[0]] = true
	}
	type file struct {
		path   string
		values map[string]any
	}
	var list []file
	for _, f := range configFiles(c) {
		values := make(map[string]any)
		var unread *fs.PathError
		switch _, err := toml.DecodeFile(f.path, &values); {
		case f.none(err):
			continue
		case errors.As(err, &unread):
			return usagef("configuration: %w (it must be a file that this user may read; --config FILE names another)", err)
		case err != nil:
			return usagef("configuration %s: %w", f.path, err)
		}
		for name := range values {
			if !known[name] {
				return usagef("configuration %s: there is no %q; it may have the flags about RDMA, such as traffic-class = 106 (see: rdmaxfer send --help)", f.path, name)
			}
		}
		list = append(list, file{f.path, values})
	}
	for name := range known {
		if name == "config" || c.IsSet(name) {
			continue
		}
		for i := len(list) - 1; i >= 0; i-- { // what is the user's goes over what is the host's
			if v, ok := list[i].values[name]; ok {
				if err := setFlag(c, name, v); err != nil {
					return usagef("configuration %s: %s = %v: %w", list[i].path, name, v, err)
				}
				break
			}
		}
	}
	return nil
}

func setFlag(c *cli.Context, name string, v any) error {
	values, ok := v.([]any)
	if !ok {
		values = []any{v}
	}
	for _, v := range values {
		if err := c.Set(name, fmt.Sprint(v)); err != nil {
			return err
		}
	}
	return nil
}

// configFile is a file that may be there.
type configFile struct {
	path   string
	absent []syscall.Errno // what says that it is not, and that this is as good
}

func (f *configFile) none(err error) bool {
	return slices.ContainsFunc(f.absent, func(e syscall.Errno) bool { return errors.Is(err, e) })
}

// configFiles are those that there may be, the weaker first. Whoever runs this for another user
// may have left HOME as it was: what this user can't look into is not this user's.
func configFiles(c *cli.Context) []configFile {
	if path := c.String("config"); path != "" {
		return []configFile{{path: path}}
	}
	files := []configFile{{"/etc/rdmaxfer.toml", []syscall.Errno{syscall.ENOENT}}}
	if dir, err := os.UserConfigDir(); err == nil {
		files = append(files, configFile{filepath.Join(dir, "rdmaxfer.toml"), []syscall.Errno{syscall.ENOENT, syscall.ENOTDIR, syscall.EACCES}})
	}
	return files
}
