package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"github.com/rdmaxfer/rdmaxfer/tcpfallback"
	"github.com/rdmaxfer/rdmaxfer/transfer"
	"github.com/rdmaxfer/rdmaxfer/transfer/wire"
)

// The kinds of servers.
const (
	lane  = "lane"
	http_ = "net/http"
)

var kinds = []string{lane, http_}

// extentSize is a lane's longest answer, bytes.
const extentSize = transfer.DefaultExtentSize

// serveAs is a server's process: it prints where it listens, and serves until its input
// ends.
func serveAs(kind string, size int, method string) error {
	var sockets net.ListenConfig
	if kind == lane { // as the lanes of a host with itself have, set by the end that sends before it dials
		sockets.Control = tcpfallback.SocketOptions{Congestion: "reno"}.Control
	}
	l, err := sockets.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println(l.Addr())
	content := bytes.Repeat([]byte("rdmaxfer"), size/8+1)[:size]
	failed := make(chan error, 1)
	switch kind {
	case lane:
		src, err := fileSource(content)
		if err != nil {
			return err
		}
		defer src.Close()
		go func() { failed <- serveLanes(l, src, method) }()
	case http_:
		go func() { failed <- http.Serve(l, answer(content)) }()
	default:
		return fmt.Errorf("-serve %s: %v", kind, kinds)
	}
	over := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		over <- err
	}()
	select {
	case err := <-failed:
		return err
	case err := <-over:
		return err
	}
}

// answer is a handler that answers with content.
func answer(content []byte) http.Handler {
	length := strconv.Itoa(len(content))
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", length)
		_, _ = w.Write(content) // who has hung up is not answered
	})
}

// memory is where files are in memory alone.
const memory = "/dev/shm"

// fileSource is a file of content, as the only entry of a source. It is gone, but for
// being open, when this returns.
func fileSource(content []byte) (*transfer.Source, error) {
	dir, err := os.MkdirTemp(memory, "rdmaxfer-requests-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "answer")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return nil, err
	}
	src, err := transfer.OpenSource([]string{path}, transfer.SourceOptions{})
	if err != nil {
		return nil, err
	}
	if _, err = src.Next(); err != nil {
		return nil, err
	}
	file, err := src.File(wire.Request{Length: uint32(len(content))}) // it opens it
	if file == nil {
		return nil, fmt.Errorf("%s can't be read: %w", path, err)
	}
	return src, nil
}

// serveLanes serves each connection as a lane of its own.
func serveLanes(l net.Listener, src *transfer.Source, method string) error {
	ctx := context.Background()
	t := tcpfallback.Transport{Method: method, Choice: new(tcpfallback.Choice)}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		p := transfer.LaneParams{ExtentSize: extentSize, Depth: 1, Conn: func(context.Context, transfer.Control) (*net.TCPConn, error) { return conn.(*net.TCPConn), nil }}
		server, err := t.Answer(ctx, p, &wire.OpenLane{TCP: new(wire.TCPLane)}, new(wire.LaneAnswer))
		if err != nil {
			return err
		}
		go func() {
			_ = server.Serve(ctx, src) // a generator that hangs up in the middle is no failure
			server.Close()
		}()
	}
}
