package main

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"testing"
	"time"
)

// serving starts a server in this process.
func serving(t *testing.T, kind string, size int) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	content := bytes.Repeat([]byte("x"), size)
	if kind == http_ {
		go http.Serve(l, answer(content))
		return l.Addr().String()
	}
	src, err := fileSource(content)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(src.Close)
	go serveLanes(l, src, "auto")
	return l.Addr().String()
}

// TestBothServersAnswer what the generator asks, again and again over one connection, and
// nothing else passes for an answer.
func TestBothServersAnswer(t *testing.T) {
	for _, kind := range kinds {
		for _, size := range []int{1, 1024, 1 << 20} {
			conn, err := net.Dial("tcp", serving(t, kind, size))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Minute))
			in := bufio.NewReader(conn)
			p := protocols[kind]
			for range 3 {
				conn.Write(p.request(size))
				if err := p.answer(in, size); err != nil || in.Buffered() != 0 {
					t.Errorf("%s, %d bytes: %v, and %d bytes more", kind, size, err, in.Buffered())
				}
			}
			conn.Write(p.request(size))
			if err := p.answer(in, size+1); err == nil {
				t.Errorf("%s: %d bytes pass for %d", kind, size, size+1)
			}
		}
	}
}
