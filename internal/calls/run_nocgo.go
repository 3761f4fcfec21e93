//go:build !cgo

package calls

func run(list []call) { loop(list) }
