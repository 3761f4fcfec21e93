package ibverbs

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// What a kernel or a device can do is tried once, never taken from its version.
// Each probe answers nil, an error that matches [ErrUnsupported], or another one
// when it could not be tried at all (which is then tried again).

// probes remembers the answers of one device in this process.
type probes struct {
	mu      sync.Mutex
	answers map[probeKey]error
}

type probeKey struct {
	what   string
	access Access
}

// probe runs try once.
func (c *Context) probe(key probeKey, try func(*PD) error) error {
	c.probes.mu.Lock()
	defer c.probes.mu.Unlock()
	if err, known := c.probes.answers[key]; known {
		return err
	}
	pd, err := c.AllocPD()
	if err != nil {
		return err
	}
	err = try(pd)
	if cerr := pd.Close(); cerr != nil {
		return errors.Join(err, cerr)
	}
	if err == nil || errors.Is(err, ErrUnsupported) {
		if c.probes.answers == nil {
			c.probes.answers = make(map[probeKey]error)
		}
		c.probes.answers[key] = err
	}
	return err
}

// CanRegisterReadOnly tries whether pages of a file that is mapped MAP_SHARED and
// read-only can be registered: kernels before 6.2 always ask for write access, and
// answer EFAULT. (Some file systems refuse what tmpfs, on which this is tried,
// allows.)
func (c *Context) CanRegisterReadOnly() error {
	return c.probe(probeKey{what: "read-only"}, func(pd *PD) error {
		b, err := mapReadOnlyFile()
		if err != nil {
			return err
		}
		defer unmap(b)
		return tryRegister(pd, b, AccessRemoteRead, "registering read-only pages of a file", syscall.EFAULT)
	})
}

// CanODP tries whether memory can be registered for paging on demand with that
// access, and whether the device can do those operations on it over RC.
func (c *Context) CanODP(access Access, ops ODPOps) error {
	access |= AccessOnDemand
	err := c.probe(probeKey{"on-demand paging", access}, func(pd *PD) error {
		b, err := mapMemory(os.Getpagesize(), MemoryOptions{})
		if err != nil {
			return err
		}
		defer unmap(b)
		return tryRegister(pd, b, access, "on-demand paging")
	})
	if err != nil {
		return err
	}
	attr, err := c.QueryDevice()
	if err != nil {
		return err
	}
	if missing := ops &^ attr.ODP.RC; missing != 0 {
		return fmt.Errorf("on-demand paging of operations %#x over RC: %w", uint32(missing), ErrUnsupported)
	}
	return nil
}

// CanUseHugePages tries whether the system's pool has a huge page that the device
// takes: the pool is often empty (vm.nr_hugepages).
func (c *Context) CanUseHugePages() error {
	return c.probe(probeKey{what: "huge pages"}, func(pd *PD) error {
		b, err := mapMemory(hugePageSize, MemoryOptions{HugePages: true, Require: true})
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		defer unmap(b)
		return tryRegister(pd, b, AccessLocalWrite, "registering huge pages")
	})
}

// hugePageSize is the size of the pages that HugePages asks for.
const hugePageSize = 2 << 20

// tryRegister registers b for a moment. The errnos that mean "can't" besides the
// usual ones come last.
func tryRegister(pd *PD, b []byte, access Access, what string, also ...syscall.Errno) error {
	mr, err := pd.RegisterMR(b, access)
	if err == nil {
		return mr.Close()
	}
	for _, errno := range also {
		if errors.Is(err, errno) {
			return fmt.Errorf("%s: %w: %w", what, ErrUnsupported, err)
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}
