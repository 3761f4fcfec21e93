package ibverbs

import (
	"context"
	"errors"
	"fmt"
)

// DrainID is the ID of the work requests that Drain itself posts. No others may
// have it.
const DrainID = ^uint64(0)

// withMarkers is n places and those for markers of Drain, as far as the device has them.
func withMarkers(n, markers, most int) int { return max(n, min(n+markers, most)) }

// Drain is the first half of a clean end: it moves the queue pair to the error
// state, and takes completions from its queues until none of this queue pair's can
// come any more. each, unless it is nil, sees them, and those of other queue pairs
// that share the queues. Close is the second half. (Without Drain, completions that
// nobody polled outlive the queue pair in its completion queues.)
//
// Nobody else may poll meanwhile. It works by markers: queues complete in order, so
// what was posted before a marker has completed when the marker has.
//
// Receives from an [SRQ] have no marker: when the sends are through, what the completion
// queue of the receives holds is taken. A message that the device is still busy with may
// complete after that. Who must see that too calls Fail, waits for the queue pair's
// [EventQPLastWQEReached], and drains then.
//
// A marker may be refused: in a queue that is full and as long as the device's longest
// (MaxQPWR), or, that of the sends, by drivers which take none in the error state (older
// ones of bnxt_re and ionic). Then what the queues hold is taken as with an SRQ, and the
// refusal is the error. After an error, the context's among them, completions with DrainID
// may come later; Drain may be called again, and a full queue has room then.
func (q *QP) Drain(ctx context.Context, each func(*WC)) error {
	if each == nil {
		each = func(*WC) {}
	}
	recv := 1 // of marks: the receives' queue
	if q.conf.SendCQ == q.conf.RecvCQ {
		recv = 0
	}
	var refused error
	sure := [2]bool{true, true} // that markers tell when all has come
	if q.conf.SRQ != nil {
		sure[recv] = false
	} else if _, err := q.PostRecv([]RecvWR{{ID: DrainID}}); err != nil {
		sure[recv], refused = false, err
	} else {
		q.marks[recv]++
	}
	// The receives' marker comes before the error state, in which soft-RoCE does not flush
	// what is posted then; the sends' comes after it, or it would go out.
	if err := q.Fail(); err != nil {
		return err
	}
	var err error
	marker := SendWR{ID: DrainID, Opcode: OpSend, Flags: SendSignaled}
	if q.conf.Type == QPTypeUD { // to itself: providers look at the handle of what they flush
		var self *AH
		if self, err = q.pd.CreateAH(q.conf.Port, q.conf.GIDIndex, q.local, Path{}); err == nil {
			defer self.Close()
			marker.AH, marker.RemoteQPN, marker.RemoteQKey = self.Ref(), q.local.QPN, q.conf.QKey
		}
	}
	if err == nil {
		_, err = q.PostSend([]SendWR{marker})
	}
	if err != nil {
		sure[0], refused = false, errors.Join(refused, err)
	} else {
		q.marks[0]++
	}
	err = q.takeAll(ctx, q.conf.SendCQ, &q.marks[0], sure[0], each)
	if err == nil && recv == 1 {
		err = q.takeAll(ctx, q.conf.RecvCQ, &q.marks[1], sure[1], each)
	}
	if err = errors.Join(refused, err); err != nil {
		return fmt.Errorf("draining a queue pair: %w", err)
	}
	return nil
}

// takeAll takes completions until all markers have come. Unless those are sure to be the
// last, it goes on until there are none, or as many were taken as the completion queue has
// room for: other queue pairs may go on completing there.
func (q *QP) takeAll(ctx context.Context, cq *CQ, marks *int, sure bool, each func(*WC)) error {
	all := make([]WC, 16)
	see := func(wcs []WC) {
		for i := range wcs {
			if wcs[i].ID == DrainID && wcs[i].QPN == q.local.QPN {
				*marks--
			} else {
				each(&wcs[i])
			}
		}
	}
	for *marks > 0 {
		n, err := cq.WaitPoll(ctx, all)
		if err != nil {
			return err
		}
		see(all[:n])
	}
	for left := cq.depth; !sure && left > 0; {
		n, err := cq.Poll(all)
		if n == 0 || err != nil {
			return err
		}
		see(all[:n])
		left -= n
	}
	return nil
}
