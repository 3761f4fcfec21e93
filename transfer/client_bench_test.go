package transfer_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rdmaxfer/rdmaxfer/tcpfallback"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// BenchmarkSends sends one file of 64 KiB again and again over TCP on loopback: over one
// session, and over a session each. Nothing is synced.
func BenchmarkSends(b *testing.B) {
	key := transfer.NewKey()
	listener, err := transfer.Listen(b.Context(), "127.0.0.1:0", key)
	if err != nil {
		b.Fatal(err)
	}
	go listener.Serve(b.Context())
	go func() {
		for {
			session, err := listener.Accept(b.Context())
			if err != nil {
				return
			}
			r := &transfer.Receiver{Listener: listener, Sink: transfer.Discard{}, Transport: transfer.TransportTCP, TCP: tcpfallback.Transport{}, Observer: quiet{}}
			go r.Receive(b.Context(), session)
		}
	}()
	file := filepath.Join(b.TempDir(), "file")
	if err := os.WriteFile(file, make([]byte, 64<<10), 0o644); err != nil {
		b.Fatal(err)
	}
	sender := func() *transfer.Sender {
		return &transfer.Sender{Addr: listener.Addr().String(), Key: key, Transport: transfer.TransportTCP, Verify: transfer.VerifyBLAKE3, TCP: tcpfallback.Transport{Method: "auto"}, Observer: quiet{}}
	}
	b.Run("one session", func(b *testing.B) {
		client, err := sender().Open(b.Context(), transfer.SourceOptions{})
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := client.Send(b.Context(), file); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := client.Close(); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("a session each", func(b *testing.B) {
		for b.Loop() {
			s := sender()
			if s.Source, err = transfer.OpenSource([]string{file}, transfer.SourceOptions{}); err != nil {
				b.Fatal(err)
			}
			if _, err := s.Send(b.Context()); err != nil {
				b.Fatal(err)
			}
			s.Source.Close()
		}
	})
}
