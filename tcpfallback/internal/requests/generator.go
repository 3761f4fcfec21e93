package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// turn is what one server did in one round.
type turn struct {
	rate   float64 // requests a second
	took   *hdrhistogram.Histogram
	cpu    float64 // of the server, µs a request, warming up and start included
	memory float64 // its peak, MiB
}

// take starts a server, drives it, and ends it.
func take(ctx context.Context, o *options, kind string, size int) (*turn, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.duration+30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "-serve", kind, "-sizes", strconv.Itoa(size), "-method", o.method)
	cmd.Stderr = os.Stderr
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	var t *turn
	var all int64
	if err == nil {
		t, all, err = drive(ctx, o, kind, strings.TrimSpace(addr), size)
	}
	hold.Close()
	if werr := cmd.Wait(); err != nil || werr != nil {
		return nil, errors.Join(err, werr)
	}
	used := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	t.cpu = float64((used.Utime.Nano()+used.Stime.Nano())/1e3) / float64(all)
	t.memory = float64(used.Maxrss) / 1024
	return t, nil
}

// drive asks over all connections at once. all counts what was asked while they warmed up
// too.
func drive(ctx context.Context, o *options, kind, addr string, size int) (t *turn, all int64, err error) {
	const warmUp = 300 * time.Millisecond
	var mu sync.Mutex
	var wg sync.WaitGroup
	t = &turn{took: newHistogram()}
	start := time.Now().Add(warmUp)
	end := start.Add(o.duration)
	for range o.connections {
		wg.Go(func() {
			took := newHistogram()
			n, aerr := ask(ctx, kind, addr, size, start, end, took)
			mu.Lock()
			defer mu.Unlock()
			err = errors.Join(err, aerr)
			all += n
			t.took.Merge(took)
		})
	}
	wg.Wait()
	if err == nil && t.took.TotalCount() == 0 {
		err = fmt.Errorf("no answer within %v", o.duration)
	}
	t.rate = float64(t.took.TotalCount()) / o.duration.Seconds()
	return t, all, err
}

// ask asks over one connection, one request at a time, and takes the times of those that
// began and ended between start and end.
func ask(ctx context.Context, kind, addr string, size int, start, end time.Time, took *hdrhistogram.Histogram) (n int64, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(end.Add(10 * time.Second)); err != nil {
		return 0, err
	}
	p := protocols[kind]
	question := p.request(size)
	in := bufio.NewReaderSize(conn, 64<<10)
	for began := time.Now(); began.Before(end); n++ {
		if _, err := conn.Write(question); err != nil {
			return n, err
		}
		if err := p.answer(in, size); err != nil {
			return n, err
		}
		now := time.Now()
		if began.After(start) && now.Before(end) {
			if err := took.RecordValue(int64(now.Sub(began))); err != nil {
				return n, err
			}
		}
		began = now
	}
	return n, nil
}

// protocol is how one request is asked, and its answer read.
type protocol struct {
	request func(size int) []byte
	answer  func(in *bufio.Reader, size int) error
}

var protocols = map[string]protocol{
	lane: {
		func(size int) []byte {
			b := make([]byte, wire.HeaderSize)
			r := wire.Request{Length: uint32(size)}
			r.Put(b)
			return b
		},
		func(in *bufio.Reader, size int) error {
			head, err := in.Peek(wire.HeaderSize)
			if err != nil {
				return err
			}
			a, err := wire.ParseAnswer(head)
			if err != nil || a.Status != wire.StatusOK || int(a.Length) != size {
				return fmt.Errorf("an answer %+v, %v", a, err)
			}
			_, err = in.Discard(wire.HeaderSize + size)
			return err
		},
	},
	http_: {
		func(int) []byte { return []byte("GET / HTTP/1.1\r\nHost: requests\r\n\r\n") },
		func(in *bufio.Reader, size int) error {
			length := -1
			for first := true; ; first = false {
				line, err := in.ReadSlice('\n')
				if err != nil {
					return err
				}
				line = bytes.TrimRight(line, "\r\n")
				value, ok := bytes.CutPrefix(line, []byte("Content-Length: "))
				switch {
				case first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")):
					return fmt.Errorf("an answer %q", line)
				case ok:
					if length, err = strconv.Atoi(string(value)); err != nil {
						return err
					}
				}
				if len(line) == 0 {
					break
				}
			}
			if length != size {
				return fmt.Errorf("an answer of %d bytes, not %d", length, size)
			}
			_, err := in.Discard(size)
			return err
		},
	},
}
