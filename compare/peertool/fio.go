package peertool

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rdmaxfer/rdmaxfer/compare"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// fioFile is how much fio reads and writes, bytes: the same place again after that.
const fioFile = 256 << 20

// Disk is fio on this host, in a directory: how fast files are read and written there, past
// the page cache. A transfer of files is no faster than that.
//
// It leaves its file there from one round to the next; remove removes it.
func Disk(dir string) (peers []compare.Peer, remove func()) {
	if abs, err := filepath.Abs(dir); err == nil { // whatever becomes of this one's
		dir = abs
	}
	name := fmt.Sprintf(".rdmaxfer-fio-%d", os.Getpid())
	for _, rw := range []string{"read", "write"} {
		peers = append(peers, compare.Peer{
			Name: "fio " + rw, Beside: "disk", Normalised: "this host's disk alone, O_DIRECT, one file, as many requests in flight as a lane has; nothing of the network",
			Rate: func(ctx context.Context, l compare.PeerLoad) (*compare.PeerSample, error) {
				return fio(ctx, dir, name, rw, l)
			},
		})
	}
	return peers, func() { os.Remove(filepath.Join(dir, name)) }
}

// diskBlock is what O_DIRECT needs sizes to be multiples of, bytes.
const diskBlock = 4096

// fio runs in the directory, and hears of the file's name alone: in --filename a colon begins
// another file unless a backslash is before it, and a semicolon or # begins a comment whatever
// is before it (fio 3.33).
func fio(ctx context.Context, dir, name, rw string, l compare.PeerLoad) (*compare.PeerSample, error) {
	ctx, cancel := context.WithTimeout(ctx, limit(l.Duration))
	defer cancel()
	if l.Size%diskBlock != 0 {
		return nil, &compare.SizeError{Err: fmt.Errorf("%d bytes past the page cache: sizes are multiples of %d", l.Size, diskBlock)}
	}
	said, cpu, err := runIn(ctx, dir, "fio", []string{"--name=rdmaxfer", "--filename=" + name, fmt.Sprintf("--size=%d", fioFile), "--rw=" + rw, fmt.Sprintf("--bs=%d", l.Size),
		fmt.Sprintf("--iodepth=%d", l.Depth), "--ioengine=libaio", "--direct=1", "--time_based=1", fmt.Sprintf("--runtime=%dms", l.Duration/time.Millisecond), "--output-format=json"})
	if err != nil {
		return nil, err
	}
	v, rate, bytes, err := parseFio(said)
	return &compare.PeerSample{Version: v, Rate: rate, Bytes: bytes, Here: cpu}, err
}

// parseFio gives the version, bytes a second, and bytes, of the one job.
func parseFio(said string) (version string, rate, bytes float64, err error) {
	type side struct {
		Bytes float64 `json:"io_bytes"`
		Rate  float64 `json:"bw_bytes"`
	}
	var report struct {
		Version string `json:"fio version"`
		Jobs    []struct {
			Read, Write side
		}
	}
	if err := json.Unmarshal([]byte(said), &report); err != nil {
		return "", 0, 0, fmt.Errorf("fio printed no report: %w", err)
	}
	if len(report.Jobs) != 1 || report.Jobs[0].Read.Rate+report.Jobs[0].Write.Rate <= 0 {
		return "", 0, 0, fmt.Errorf("fio moved nothing: %s", transfer.Printable(report.Version))
	}
	j := report.Jobs[0]
	return report.Version, j.Read.Rate + j.Write.Rate, j.Read.Bytes + j.Write.Bytes, nil
}
