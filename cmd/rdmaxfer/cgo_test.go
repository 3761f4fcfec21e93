//go:build cgo && !rxe

package main

// noVerbs is what a host without the library is told.
var noVerbs = []string{"libibverbs.so.1 not found", "apt install libibverbs1 ibverbs-providers"}
