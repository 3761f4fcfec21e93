package wire

import (
	"strings"
	"unicode/utf8"
)

func (m *Hello) check() error {
	if err := m.RDMA.check(); err != nil {
		return err
	}
	if m.Lanes > MaxLanes {
		return malformed("%d lanes", m.Lanes)
	}
	if m.Limit < 0 {
		return malformed("%d bytes a second", m.Limit)
	}
	return texts(m.Transport, m.Op, m.Verify)
}

func (m *Welcome) check() error {
	if n := m.ExtentSize; n < 1<<10 || n > MaxExtent || n&(n-1) != 0 {
		return malformed("extents of %d bytes", n)
	}
	return nil
}

func (l *RDMALane) check() error {
	if l == nil {
		return nil
	}
	if err := l.QP.check(); err != nil {
		return err
	}
	if len(l.Device) > maxDevice {
		return malformed("the name of a device")
	}
	if err := l.Fabric.check(); err != nil {
		return err
	}
	return texts(l.Op, l.Device)
}

func (m *OpenLane) check() error {
	n := 0
	for _, is := range []bool{m.RDMA != nil, m.TCP != nil, m.UDP != nil} {
		if is {
			n++
		}
	}
	if n != 1 {
		return malformed("a lane that is not of one transport")
	}
	if err := m.UDP.check(); err != nil {
		return err
	}
	if m.Depth < 1 || m.Depth > 1024 {
		return malformed("a lane of depth %d", m.Depth)
	}
	if m.TCP != nil {
		return texts(m.TCP.Kernel)
	}
	return m.RDMA.check()
}

func (m *LaneAnswer) check() error {
	if err := m.RDMA.check(); err != nil {
		return err
	}
	if err := m.UDP.check(); err != nil {
		return err
	}
	return texts(m.Reason, m.Method)
}

func (m *LaneDown) check() error { return texts(m.Reason) }

func (m *Plan) check() error {
	if len(m.Lanes) > MaxLanes {
		return malformed("a plan of %d lanes", len(m.Lanes))
	}
	return texts(m.Transport, m.Reason)
}

// Check says what is wrong with an entry, as the peer would: that ends a transfer, so who
// sends leaves such a one out. Errors: [ErrMalformed].
func (m *Entry) Check() error { return m.check() }

func (m *Entry) check() error {
	if m.Size < 0 || m.Size > MaxSize {
		return malformed("a file of %d bytes", m.Size)
	}
	if m.File >= MaxEntries {
		return malformed("file number %d", m.File)
	}
	links := m.Kind == Symlink || m.Kind == HardLink
	if m.Kind >= entryEnd || m.Kind != File && (m.Size != 0 || m.Sparse) || links != (m.Link != "") || len(m.Link) > MaxPath {
		return malformed("an entry of kind %d, %d bytes, that links to %d bytes", m.Kind, m.Size, len(m.Link))
	}
	if m.Kind == HardLink {
		if m.First >= m.File {
			return malformed("entry %d is another name of entry %d", m.File, m.First)
		}
		if err := CheckPath(m.Link); err != nil {
			return err
		}
	} else if m.First != 0 {
		return malformed("an entry of kind %d with another name", m.Kind)
	}
	if !utf8.ValidString(m.Link) || strings.ContainsRune(m.Link, 0) { // CBOR's text is that, and no link has NUL
		return malformed("a link to %+q: not UTF-8, or with NUL", m.Link)
	}
	if m.Owner != nil {
		if err := texts(m.Owner.User, m.Owner.Group); err != nil {
			return err
		}
	}
	if err := checkAttrs(m.Attrs); err != nil {
		return err
	}
	return CheckPath(m.Path)
}

// checkAttrs lets those pass that are users' own, and access control lists: none that
// gives a program rights (security.capability) or that another system goes by.
func checkAttrs(attrs []Attr) error {
	n := 0
	for _, a := range attrs {
		if n += len(a.Name) + len(a.Value); n > MaxAttrs || len(a.Name) > 255 {
			return malformed("more than %d bytes of extended attributes, or too long a name", MaxAttrs)
		}
		if !strings.HasPrefix(a.Name, "user.") && a.Name != ACLAccess && a.Name != ACLDefault || strings.ContainsRune(a.Name, 0) || !utf8.ValidString(a.Name) {
			return malformed("the extended attribute %+q", a.Name)
		}
	}
	return nil
}

func (m *More) check() error { return nil }

func (m *Grown) check() error {
	if m.Size < 0 || m.Size > MaxSize {
		return malformed("a stream of %d bytes", m.Size)
	}
	return nil
}

func (m *Kept) check() error { return nil }

func (m *ManifestEnd) check() error {
	if m.Bytes < 0 || m.Files > MaxEntries || m.Unsent > MaxEntries {
		return malformed("a manifest of %d files, %d bytes", m.Files, m.Bytes)
	}
	return nil
}

// DigestSize is the length of an extent's digest, bytes.
const DigestSize = 32

func (m *Digests) check() error {
	if len(m.Sums) != DigestSize*len(m.Extents) {
		return malformed("%d digests in %d bytes", len(m.Extents), len(m.Sums))
	}
	return nil
}

func (m *Landed) check() error { return nil }

func (m *Vouch) check() error { return each(m.Files, m.Digests) }

// each bounds files of which one message speaks, and their digests, which may be left out.
func each(files []uint32, digests []byte) error {
	if n := len(files); n < 1 || n > MaxPack {
		return malformed("a word about %d files", n)
	}
	if n := len(digests); n != 0 && n != DigestSize*len(files) {
		return malformed("%d bytes of digests of %d files", n, len(files))
	}
	return nil
}

func (m *FileFailed) check() error { return texts(m.Reason) }

func (m *Receipt) check() error { return each(m.Files, m.Digests) }

func (m *Foreseen) check() error {
	if m.Here < 0 || m.Here > MaxSize {
		return malformed("%d bytes of a file are here", m.Here)
	}
	return nil
}

func (m *Done) check() error {
	if m.Bytes < 0 || m.Nanoseconds < 0 || m.Resumed < 0 || m.Resumed > m.Bytes {
		return malformed("a negative result")
	}
	for _, l := range m.Lanes {
		if l.Bytes < 0 {
			return malformed("a lane of %d bytes", l.Bytes)
		}
	}
	return nil
}

func (m *Abort) check() error { return texts(m.Reason) }
func (m *Ping) check() error  { return nil }
