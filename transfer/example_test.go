package transfer_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/rdmaxfer/rdmaxfer/tcpfallback"
	"github.com/rdmaxfer/rdmaxfer/transfer"
)

// quiet hears what happens and says nothing. A receiver's Observer would tell progress.
type quiet struct{}

func (quiet) Planned(transfer.Plan)      {}
func (quiet) File(transfer.FileResult)   {}
func (quiet) Paths(*transfer.PathReport) {}

// One session carries many sends: a program that produces files hands each over when it is
// ready, and knows when Send returns that it is durable at the other host. Over RDMA it
// would be the same, with an rdma.Transport beside that of TCP, at both ends.
func ExampleClient() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	into, err := os.MkdirTemp("", "into")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(into)
	from, err := os.MkdirTemp("", "from")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(from)

	// The receiver, in a real program another host's.
	key := transfer.Key{1, 2, 3} // see NewKey and LoadKey
	listener, err := transfer.Listen(ctx, "127.0.0.1:0", key)
	if err != nil {
		log.Fatal(err)
	}
	go listener.Serve(ctx)
	sink, err := transfer.OpenDirectory(into, transfer.OverwriteAlways)
	if err != nil {
		log.Fatal(err)
	}
	defer sink.Close()
	received := make(chan *transfer.Result)
	go func() {
		session, err := listener.Accept(ctx)
		if err != nil {
			log.Fatal(err)
		}
		r := &transfer.Receiver{Listener: listener, Sink: sink, Transport: transfer.TransportTCP, TCP: tcpfallback.Transport{}, Observer: quiet{}}
		result, err := r.Receive(ctx, session)
		if err != nil {
			log.Fatal(err)
		}
		received <- result
	}()

	// The sender.
	s := &transfer.Sender{
		Addr: listener.Addr().String(), Key: key, Transport: transfer.TransportTCP, Verify: transfer.VerifyBLAKE3,
		TCP: tcpfallback.Transport{Method: "auto"}, Observer: quiet{},
	}
	client, err := s.Open(ctx, transfer.SourceOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for step := range 3 {
		checkpoint := filepath.Join(from, "checkpoint")
		if err := os.WriteFile(checkpoint, fmt.Appendf(nil, "step %d", step), 0o644); err != nil {
			log.Fatal(err)
		}
		if _, err := client.Send(ctx, checkpoint); err != nil {
			log.Fatal(err)
		}
		there, err := os.ReadFile(filepath.Join(into, "checkpoint"))
		fmt.Printf("%s %v\n", there, err)
	}
	if _, err := client.Close(); err != nil {
		log.Fatal(err)
	}
	result := <-received
	fmt.Println(result.Files, "files over", len(result.Lanes), "lane")
	// Output:
	// step 0 <nil>
	// step 1 <nil>
	// step 2 <nil>
	// 3 files over 1 lane
}
