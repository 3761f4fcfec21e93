package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/rdma"
)

// parse gives what newRDMA makes of a command line.
func parse(t *testing.T, args ...string) (got *rdma.Transport, err error) {
	t.Helper()
	app := &cli.App{
		Flags:          append(rdmaFlags(), memoryFlag()),
		ExitErrHandler: func(*cli.Context, error) {},
		Action: func(c *cli.Context) error {
			got, err = newRDMA(c)
			return nil
		},
	}
	if err := app.Run(append([]string{"rdmaxfer"}, args...)); err != nil {
		t.Fatal(err)
	}
	return got, err
}

// TestRDMAFlags: each flag arrives, and what makes no sense is said.
func TestRDMAFlags(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	got, err := parse(t, "--device", "mlx5_0", "--device", "mlx5_1/2", "--gid-index", "3", "--gid-type", "rocev1", "--rail", "mlx5_0=mlx5_4",
		"--sl", "0", "--traffic-class", "cs3", "--flow-label", "0xfffff", "--pkey", "0x8001", "--qp-timeout", "18", "--retries", "0", "--mtu", "2048")
	if err != nil {
		t.Fatal(err)
	}
	s, f := got.Selection, got.Fabric
	if strings.Join(s.Devices, " ") != "mlx5_0 mlx5_1/2" || *s.GIDIndex != 3 || s.GIDType != "RoCE v1" || s.Rails[0].Here != "mlx5_0" || s.Rails[0].There != "mlx5_4" {
		t.Errorf("%+v", s)
	}
	if *f.ServiceLevel != 0 || *f.TrafficClass != 96 || *f.FlowLabel != 0xfffff || *f.PKey != 0x8001 || *f.Timeout != 18 || *f.Retries != 0 || *f.MTU != 4 {
		t.Errorf("%+v", f)
	}
	if got, err := parse(t); err != nil || got.Fabric != (rdma.Fabric{}) || got.Selection.GIDIndex != nil {
		t.Errorf("of nothing: %+v, %v", got, err)
	}
	for _, bad := range []string{"--gid-index=256", "--gid-type=ib", "--rail=mlx5_0", "--rail==b", "--sl=16", "--traffic-class=256", "--traffic-class=gold",
		"--flow-label=0x100000", "--pkey=0x8000", "--pkey=x", "--qp-timeout=0", "--qp-timeout=32", "--retries=8", "--mtu=1500", "--config=/nowhere.toml"} {
		if _, err := parse(t, bad); exitCode(err) != transfer.CodeUsage || !strings.Contains(err.Error(), strings.Trim(strings.Split(bad, "=")[1], "-")) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestRDMAFlagsElsewhere: the command line before the environment, that before the files.
func TestRDMAFlagsElsewhere(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	t.Setenv("RDMAXFER_SL", "4")
	t.Setenv("RDMAXFER_QP_TIMEOUT", "20")
	file := filepath.Join(dir, "rdmaxfer.toml")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("sl = 1\nretries = 2\ntraffic-class = 106\ndevice = [\"a\", \"b/2\"]\npkey = \"0x8001\"\n")
	got, err := parse(t, "--qp-timeout", "17")
	if err != nil {
		t.Fatal(err)
	}
	f := got.Fabric
	if *f.Timeout != 17 || *f.ServiceLevel != 4 || *f.Retries != 2 || *f.TrafficClass != 106 || *f.PKey != 0x8001 || strings.Join(got.Selection.Devices, " ") != "a b/2" {
		t.Errorf("%+v %+v", f, got.Selection)
	}
	for content, words := range map[string]string{
		"limit = 3\n":           `there is no "limit"`,
		"retries = \"x\"\n":     "retries = x",
		"retries = 9\n":         "--retries 9",
		"retries = [\n":         file,
		"config = \"/other\"\n": "", // known, and of no use there
	} {
		write(content)
		if _, err := parse(t); words != "" && (exitCode(err) != transfer.CodeUsage || !strings.Contains(err.Error(), words)) {
			t.Errorf("%q: %v", content, err)
		}
	}
	// One that is named is the only one.
	other := filepath.Join(dir, "other.toml")
	if err := os.WriteFile(other, []byte("mtu = 1024\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	write("retries = 3\n")
	if got, err := parse(t, "--config", other); err != nil || *got.Fabric.MTU != 3 || got.Fabric.Retries != nil {
		t.Errorf("%+v, %v", got.Fabric, err)
	}
}

// TestConfigurationOfAnotherUser: a HOME that this user can't look into, or that is none, has
// nothing to say. What was named must be there.
func TestConfigurationOfAnotherUser(t *testing.T) {
	dir := t.TempDir()
	file, shut := filepath.Join(dir, "file"), filepath.Join(dir, "shut")
	if err := errors.Join(os.WriteFile(file, nil, 0o644), os.Mkdir(shut, 0)); err != nil {
		t.Fatal(err)
	}
	try := func(home string, why error) {
		t.Helper()
		t.Setenv("XDG_CONFIG_HOME", home)
		if _, err := parse(t); err != nil {
			t.Errorf("%s: %v", home, err)
		}
		_, err := parse(t, "--config", filepath.Join(home, "rdmaxfer.toml"))
		if exitCode(err) != transfer.CodeUsage || !strings.Contains(err.Error(), why.Error()) || !strings.Contains(err.Error(), "--config FILE") {
			t.Errorf("named: %v, want %v", err, why)
		}
	}
	try(file, syscall.ENOTDIR)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	was, err := unix.SetfsuidRetUid(65534) // root may look into everything; to others it means nothing
	if err != nil {
		t.Fatal(err)
	}
	defer unix.SetfsuidRetUid(was)
	try(shut, syscall.EACCES)
}

// TestDoctorWithoutRDMA: a host that has none is told what would help; it is exit status 9.
func TestDoctorWithoutRDMA(t *testing.T) {
	p := host{}.start(t, "doctor")
	code, _ := p.wait()
	if out := p.plain.String(); code == int(transfer.CodeNoRDMA) && !strings.Contains(out, "!!") || code != int(transfer.CodeNoRDMA) && code != 0 {
		t.Errorf("exit %d:\n%s", code, out)
	}
	host{}.start(t, "doctor", "a", "b").want(transfer.CodeUsage, "one argument")
	host{}.start(t, "doctor", "--sl", "99").want(transfer.CodeUsage, "--sl 99")
}
