package transfer

import (
	"context"
	"errors"
	"fmt"
)

// Code is what a failure means, as the command line's exit status says it.
type Code uint8

// The codes of the command line's contract.
const (
	CodeOK        Code = 0
	CodeOther     Code = 1
	CodeUsage     Code = 2
	CodeAuth      Code = 3  // the keys differ
	CodeConnect   Code = 4  // no connection, a time-out, or the peer is gone
	CodePartial   Code = 5  // some files arrived, others did not
	CodeIntegrity Code = 6  // what landed is not what was sent
	CodeLocalIO   Code = 7  // reading or writing files: disk full, a source that changed
	CodeExists    Code = 8  // the destination exists
	CodeNoRDMA    Code = 9  // RDMA was required and is not there, or was lost
	CodeWorse     Code = 10 // worse than the baseline, or not measured any more
)

// Error is a failure with its code.
type Error struct {
	Code Code
	Err  error
}

// Error is the text of the failure alone; the code is for the exit status.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the failure itself.
func (e *Error) Unwrap() error { return e.Err }

// errorf makes an *Error; %w wraps as in fmt.Errorf.
func errorf(c Code, format string, args ...any) error {
	return &Error{Code: c, Err: fmt.Errorf(format, args...)}
}

// CodeOf is the code of an error: that of the outermost *Error in its chain, and
// CodeOther where there is none.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return CodeOK
	case errors.As(err, &e):
		return e.Code
	}
	return CodeOther
}

// causeOf prefers the reason for which ctx was cancelled to the error that the
// cancellation made of it.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}
