package ibverbs

import "fmt"

// SRQ is a shared receive queue (struct ibv_srq): receives that any of its queue
// pairs takes, in the order in which messages come.
type SRQ struct {
	object
	depth int
}

// CreateSRQ makes a shared receive queue for depth receives of up to sges stretches
// each (ibv_create_srq).
func (p *PD) CreateSRQ(depth, sges int) (*SRQ, error) {
	if sges < 1 || sges > MaxSGE {
		return nil, &ParamError{"stretches a receive", fmt.Sprint(sges), fmt.Sprintf("must be 1 to %d", MaxSGE)}
	}
	h, rc := sysCreateSRQ(p.h, depth, sges)
	if rc < 0 {
		return nil, withHint(opError("ibv_create_srq", rc), fmt.Sprintf("%d receives: more than the device has? See MaxSRQWR", depth))
	}
	s := &SRQ{depth: depth}
	s.made(kindSRQ, h, &p.object)
	return s, nil
}

// PostRecv posts a batch of receives in one crossing (ibv_post_srq_recv); see
// [QP.PostRecv].
func (s *SRQ) PostRecv(wrs []RecvWR) (int, error) {
	if len(wrs) == 0 {
		return 0, nil
	}
	n, rc := sysPostSRQ(s.h, wrs)
	if rc < 0 {
		return n, queueFull(opError("ibv_post_srq_recv", rc), s.depth)
	}
	return n, nil
}

// Arm asks for one [EventSRQLimitReached] when fewer than limit receives are left
// (ibv_modify_srq).
func (s *SRQ) Arm(limit int) error {
	return opError("ibv_modify_srq", sysSRQLimit(s.h, limit))
}

// Close destroys the queue (ibv_destroy_srq). It is a [*BusyError] while queue pairs
// use it.
func (s *SRQ) Close() error { return s.close(sysDestroySRQ) }
