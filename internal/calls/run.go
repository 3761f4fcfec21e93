//go:build cgo

package calls

/*
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

struct call {
	unsigned long number, args[6];
	long least, result;
	int opened, after;
};

// Nothing of it calls back, or keeps what it was given.
#cgo noescape rdmaxfer_calls
#cgo nocallback rdmaxfer_calls
static void rdmaxfer_calls(struct call *list, int n) {
	for (int i = 0; i < n; i++) {
		struct call *x = &list[i];
		unsigned long *a = x->args;
		long r;
		if (x->after >= 0 && list[x->after].result < 0) {
			x->result = -ECANCELED;
			continue;
		}
		if (x->opened >= 0)
			a[0] = list[x->opened].result;
		do
			r = syscall(x->number, a[0], a[1], a[2], a[3], a[4], a[5]);
		while (r == -1 && errno == EINTR && x->number != SYS_close);
		x->result = r == -1 ? -errno : r < x->least ? -ENODATA : r;
	}
}
*/
import "C"

import "unsafe"

// The two have the same shape.
const (
	_ = uint(unsafe.Sizeof(call{}) - C.sizeof_struct_call)
	_ = uint(C.sizeof_struct_call - unsafe.Sizeof(call{}))
)

func run(list []call) {
	C.rdmaxfer_calls((*C.struct_call)(unsafe.Pointer(unsafe.SliceData(list))), C.int(len(list)))
}
