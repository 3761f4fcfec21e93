package ibverbs

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

var (
	// ErrNoLibrary says that libibverbs could not be loaded. The error that
	// wraps it says which packages bring it.
	ErrNoLibrary = errors.New("libibverbs.so.1 not found")
	// ErrUnsupported says that this build, this library, this kernel or this
	// device lacks what was asked for.
	ErrUnsupported = errors.New("not supported here")
	// ErrNoDevice says that there is no RDMA device of that name, or none at all.
	ErrNoDevice = errors.New("no RDMA device")
	// ErrDeviceGone says that the device was removed while it was in use. Every
	// object can still be closed.
	ErrDeviceGone = errors.New("RDMA device was removed")
	// ErrClosed says that the object was closed before.
	ErrClosed = errors.New("already closed")
)

// Error is a verb that failed.
type Error struct {
	Op   string        // the C call, e.g. "ibv_reg_mr"
	Err  syscall.Errno // its errno
	Hint string        // how to mend it; may be empty
}

// Error names the call, the reason and, where there is one, the mend.
func (e *Error) Error() string {
	s := e.Op + ": " + e.Err.Error()
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap gives the errno, so that errors.Is(err, syscall.ENOMEM) works.
// ENOSYS, EOPNOTSUPP and EPROTONOSUPPORT also match [ErrUnsupported].
func (e *Error) Unwrap() error { return e.Err }

// Is makes errnos that mean "not supported" match [ErrUnsupported], and those
// that a removed device gives match [ErrDeviceGone].
func (e *Error) Is(target error) bool {
	switch target {
	case ErrUnsupported:
		return e.Err == syscall.ENOSYS || e.Err == syscall.EOPNOTSUPP || e.Err == syscall.EPROTONOSUPPORT
	case ErrDeviceGone:
		return e.Err == syscall.EIO || e.Err == syscall.ENODEV
	}
	return false
}

// opError makes an *Error of a helper's answer: negative is −errno, anything
// else is success.
func opError(op string, rc int) error {
	if rc >= 0 {
		return nil
	}
	return &Error{Op: op, Err: syscall.Errno(-rc)}
}

// withHint adds a mend to an *Error.
func withHint(err error, hint string) error {
	if e, ok := err.(*Error); ok {
		e.Hint = hint
	}
	return err
}

// BusyError says that a parent was not closed because children of it live.
type BusyError struct {
	Parent   string // e.g. "PD"
	Children int
}

// Error names the parent and how many children it still has.
func (e *BusyError) Error() string {
	return fmt.Sprintf("%s has %d live children: close those first", e.Parent, e.Children)
}

// WCStatus is the status of a completion (enum ibv_wc_status).
type WCStatus uint32

// The completion statuses that a program may want to tell apart; the others are
// known by name alone.
const (
	WCSuccess          WCStatus = 0
	WCLocLenErr        WCStatus = 1
	WCLocProtErr       WCStatus = 4
	WCFlushErr         WCStatus = 5
	WCRemInvReqErr     WCStatus = 9
	WCRemAccessErr     WCStatus = 10
	WCRemOpErr         WCStatus = 11
	WCRetryExcErr      WCStatus = 12
	WCRNRRetryExcErr   WCStatus = 13
	WCFatalErr         WCStatus = 19
	WCRespTimeoutErr   WCStatus = 20
	wcStatusOutOfRange WCStatus = 24
)

// Class says where the cause of a failed completion lies.
type Class int

// The classes of a failed completion.
const (
	ClassUnknown Class = iota
	ClassLocal         // this program asked for something wrong
	ClassRemote        // the peer refused, or asked for something wrong
	ClassPath          // the network or the peer's host did not answer
	ClassFlush         // only a flush: the real cause was another completion
)

var classNames = [...]string{"unknown", "local", "remote", "path", "flush"}

// String names the class in one word.
func (c Class) String() string { return classNames[c] }

// wcStatuses is indexed by status: the C library's name without IBV_WC_, the
// class, and a hint.
var wcStatuses = [wcStatusOutOfRange]struct {
	name  string
	class Class
	hint  string
}{
	{"SUCCESS", ClassUnknown, ""},
	{"LOC_LEN_ERR", ClassLocal, "a message was longer than the posted receive"},
	{"LOC_QP_OP_ERR", ClassLocal, "the work request does not fit the queue pair"},
	{"LOC_EEC_OP_ERR", ClassLocal, ""},
	{"LOC_PROT_ERR", ClassLocal, "an lkey does not cover the buffer or lacks the access"},
	{"WR_FLUSH_ERR", ClassFlush, "the queue pair went into error earlier"},
	{"MW_BIND_ERR", ClassLocal, ""},
	{"BAD_RESP_ERR", ClassRemote, ""},
	{"LOC_ACCESS_ERR", ClassLocal, "a write arrived for memory without write access"},
	{"REM_INV_REQ_ERR", ClassRemote, "the peer's receive was too short, or the operation is not enabled there"},
	{"REM_ACCESS_ERR", ClassRemote, "the rkey does not cover the range or lacks the access"},
	{"REM_OP_ERR", ClassRemote, "the peer could not complete the operation"},
	{"RETRY_EXC_ERR", ClassPath, "no acknowledgement: the peer is gone, or UDP port 4791 is filtered"},
	{"RNR_RETRY_EXC_ERR", ClassRemote, "the peer posted no receive in time"},
	{"LOC_RDD_VIOL_ERR", ClassLocal, ""},
	{"REM_INV_RD_REQ_ERR", ClassRemote, ""},
	{"REM_ABORT_ERR", ClassRemote, "the peer gave the operation up"},
	{"INV_EECN_ERR", ClassLocal, ""},
	{"INV_EEC_STATE_ERR", ClassLocal, ""},
	{"FATAL_ERR", ClassLocal, "the device failed or was removed"},
	{"RESP_TIMEOUT_ERR", ClassPath, "no response from the peer"},
	{"GENERAL_ERR", ClassUnknown, ""},
	{"TM_ERR", ClassLocal, ""},
	{"TM_RNDV_INCOMPLETE", ClassLocal, ""},
}

// String gives the name that the C library has for it, e.g.
// "IBV_WC_RETRY_EXC_ERR", and the number for one that is not known here.
func (s WCStatus) String() string {
	if s < wcStatusOutOfRange {
		return "IBV_WC_" + wcStatuses[s].name
	}
	return fmt.Sprintf("IBV_WC_STATUS_%d", uint32(s))
}

// Class says where the cause lies.
func (s WCStatus) Class() Class {
	if s < wcStatusOutOfRange {
		return wcStatuses[s].class
	}
	return ClassUnknown
}

// WCError is a completion that failed.
type WCError struct {
	Status    WCStatus
	Opcode    WCOpcode // undefined, as of each completion that failed: WC.ID says what it was
	VendorErr uint32
	QPN       uint32
}

// Error names the status as the C library does, its class and, where one is
// known, the likely cause.
func (e *WCError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "completion %v (%v", e.Status, e.Status.Class())
	if e.VendorErr != 0 {
		fmt.Fprintf(&b, ", vendor 0x%x", e.VendorErr)
	}
	if e.Status < wcStatusOutOfRange && wcStatuses[e.Status].hint != "" {
		b.WriteString("; " + wcStatuses[e.Status].hint)
	}
	b.WriteString(")")
	return b.String()
}

// Class says where the cause lies.
func (e *WCError) Class() Class { return e.Status.Class() }
