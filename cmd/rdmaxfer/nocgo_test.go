//go:build !cgo && !rxe

package main

// noVerbs is what the user of a build without cgo is told.
var noVerbs = []string{"without cgo"}
