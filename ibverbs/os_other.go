//go:build !linux

package ibverbs

func mapMemory(int, MemoryOptions) ([]byte, error) { return nil, ErrUnsupported }
func mapReadOnlyFile() ([]byte, error)             { return nil, ErrUnsupported }
func memlockLimit() string                         { return "an unknown amount" }
func dupCloexec(int) (int, error)                  { return -1, ErrUnsupported }
func openEventFD() (int, error)                    { return -1, ErrUnsupported }
func raiseEventFD(int)                             {}
func closeFD(int) error                            { return ErrUnsupported }
func unmap([]byte) error                           { return ErrUnsupported }
