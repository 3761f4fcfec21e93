package transfer

import (
	"sync"

	"github.com/rdmaxfer/rdmaxfer/internal/calls"
)

// atOnce is of how many files the system calls are made at one go, at the most.
const atOnce = 64

// lists are empty ones of such calls.
var lists = sync.Pool{New: func() any { return new(calls.List) }}

func newList() *calls.List { return lists.Get().(*calls.List) }

func freeList(l *calls.List) {
	l.Reset()
	lists.Put(l)
}
