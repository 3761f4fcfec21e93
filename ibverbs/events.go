package ibverbs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"unsafe"
)

// EventType says what an asynchronous event is about (enum ibv_event_type).
type EventType uint32

// The events.
const (
	EventCQErr            EventType = 0 // the queue overran
	EventQPFatal          EventType = 1 // a queue pair is broken without a completion that says so
	EventQPReqErr         EventType = 2 // the peer's request was invalid
	EventQPAccessErr      EventType = 3 // the peer's request was not permitted
	EventCommEst          EventType = 4 // the first packet came before RTS
	EventSQDrained        EventType = 5
	EventPathMig          EventType = 6
	EventPathMigErr       EventType = 7
	EventDeviceFatal      EventType = 8  // the device failed or was removed
	EventPortActive       EventType = 9  // the link came up
	EventPortErr          EventType = 10 // the link went down
	EventLIDChange        EventType = 11
	EventPKeyChange       EventType = 12
	EventSMChange         EventType = 13
	EventSRQErr           EventType = 14
	EventSRQLimitReached  EventType = 15 // see [SRQ.Arm]
	EventQPLastWQEReached EventType = 16 // a queue pair in error takes no more from its SRQ
	EventClientReregister EventType = 17
	EventGIDChange        EventType = 18 // the GID table changed: look indices up again
	EventWQFatal          EventType = 19
)

var eventNames = [...]string{
	"CQ_ERR", "QP_FATAL", "QP_REQ_ERR", "QP_ACCESS_ERR", "COMM_EST", "SQ_DRAINED", "PATH_MIG", "PATH_MIG_ERR",
	"DEVICE_FATAL", "PORT_ACTIVE", "PORT_ERR", "LID_CHANGE", "PKEY_CHANGE", "SM_CHANGE", "SRQ_ERR",
	"SRQ_LIMIT_REACHED", "QP_LAST_WQE_REACHED", "CLIENT_REREGISTER", "GID_CHANGE", "WQ_FATAL",
}

// String gives the C library's name, e.g. "IBV_EVENT_PORT_ERR", and the number for
// one that is not known here.
func (t EventType) String() string {
	if int(t) < len(eventNames) {
		return "IBV_EVENT_" + eventNames[t]
	}
	return fmt.Sprintf("IBV_EVENT_%d", uint32(t))
}

// Event is one asynchronous event of a device (struct ibv_async_event).
type Event struct {
	Type EventType
	Port int    // events of ports, else 0
	QPN  uint32 // events of queue pairs, else 0

	element uint64 // events of queues: the handle
}

// About reports whether the event is about that queue. It looks at the handle
// alone, and so may take an event of a closed queue for one of a newer queue.
func (e *Event) About(queue interface{ handle() unsafe.Pointer }) bool {
	return e.Port == 0 && e.element != 0 && e.element == uint64(uintptr(queue.handle()))
}

func (o *object) handle() unsafe.Pointer { return o.h }

// NextEvent waits for the device's next asynchronous event (ibv_get_async_event)
// and acknowledges it, parked in Go's netpoller. It answers the context's error
// when that ends, and [ErrDeviceGone] once [EventDeviceFatal] has been taken: the
// kernel says nothing after that one. Others that call it wait for their turn.
func (c *Context) NextEvent(ctx context.Context) (Event, error) {
	c.eventsMu.Lock()
	defer c.eventsMu.Unlock()
	if c.fatal {
		return Event{}, fmt.Errorf("%w: %s", ErrDeviceGone, c.name)
	}
	if c.events == nil {
		fd := sysAsyncFD(c.h)
		if fd < 0 {
			return Event{}, opError("asynchronous events of "+c.name, fd)
		}
		n := new(notifier)
		if err := n.open(fd, "asynchronous events of "+c.name); err != nil {
			return Event{}, err
		}
		c.events = n
	}
	var e Event
	for {
		rc := 0
		err := c.events.wait(ctx, func(uintptr) bool {
			e, rc = sysNextEvent(c.h)
			return rc != 0
		})
		switch {
		case err == nil && rc > 0:
			c.fatal = e.Type == EventDeviceFatal
			return e, nil
		case err == nil:
			return Event{}, opError("ibv_get_async_event", rc)
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue // the end of an earlier wait's context that came late
		}
		return Event{}, err
	}
}
