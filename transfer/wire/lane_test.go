package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func TestLaneHeadersLieAsDocumented(t *testing.T) {
	var b [HeaderSize]byte
	for i := range b {
		b[i] = 0xee // what a header does not set must not show through
	}
	r := Request{ID: 0x01020304, File: 5, Length: 0x00100000, RKey: 0x0b0c, Offset: 0x0a0000000000, Addr: 0x0d}
	r.Put(b[:])
	if got, want := hex.EncodeToString(b[:]), "52584c52"+"01020304"+"00000005"+"00000000"+"00100000"+"00000b0c"+"00000a0000000000"+"000000000000000d"+"0000000000000000"; got != want {
		t.Errorf("request %s, want %s", got, want)
	}
	if got, err := ParseRequest(b[:]); got != r || err != nil {
		t.Errorf("%+v came back as %+v, %v", r, got, err)
	}
	for i := range b {
		b[i] = 0xee
	}
	a := Answer{ID: 0xfffffffe, Length: MaxExtent, RKey: 0x0e, Addr: 0x0f}
	a.Put(b[:])
	if got, want := hex.EncodeToString(b[:]), "52584c41"+"fffffffe"+"00000000"+"01000000"+"0000000e"+"00000000"+"000000000000000f"+"00000000000000000000000000000000"; got != want {
		t.Errorf("answer %s, want %s", got, want)
	}
	if got, err := ParseAnswer(b[:]); got != a || err != nil {
		t.Errorf("%+v came back as %+v, %v", a, got, err)
	}
}

func TestParseRequestRefuses(t *testing.T) {
	good := func() []byte {
		b := make([]byte, HeaderSize)
		(&Request{ID: 1, File: MaxEntries - 1, Length: MaxExtent, Offset: MaxSize}).Put(b)
		return b
	}
	if _, err := ParseRequest(good()); err != nil {
		t.Fatal(err)
	}
	set := func(r Request) []byte {
		b := make([]byte, HeaderSize)
		r.Put(b)
		return b
	}
	flip := func(i int) []byte {
		b := good()
		b[i] ^= 1
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"a byte short":    good()[:HeaderSize-1],
		"a byte long":     append(good(), 0),
		"an answer":       func() []byte { b := good(); (&Answer{}).Put(b); return b }(),
		"magic":           flip(3),
		"padding":         flip(47),
		"too big a pack":  set(Request{Count: MaxPack + 1}),
		"part of a pack":  set(Request{Count: 2, Offset: 1}),
		"length":          set(Request{Length: MaxExtent + 1}),
		"file":            set(Request{File: MaxEntries}),
		"offset":          set(Request{Offset: MaxSize + 1}),
		"negative offset": set(Request{Offset: -1}),
	} {
		if r, err := ParseRequest(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v; want it refused", name, r, err)
		}
	}
}

func TestParseAnswerRefuses(t *testing.T) {
	good := func() []byte {
		b := make([]byte, HeaderSize)
		(&Answer{ID: 1, Status: StatusFailed}).Put(b)
		return b
	}
	if _, err := ParseAnswer(good()); err != nil {
		t.Fatal(err)
	}
	set := func(a Answer) []byte {
		b := make([]byte, HeaderSize)
		a.Put(b)
		return b
	}
	flip := func(i int) []byte {
		b := good()
		b[i] ^= 1
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"a byte short":      good()[:HeaderSize-1],
		"a byte long":       append(good(), 0),
		"a request":         func() []byte { b := good(); (&Request{}).Put(b); return b }(),
		"magic":             flip(0),
		"padding":           flip(20),
		"more padding":      flip(32),
		"last padding":      flip(47),
		"length":            set(Answer{Length: MaxExtent + 1}),
		"status":            set(Answer{Status: statusEnd}),
		"bytes of a failed": set(Answer{Status: StatusFailed, Length: 1}),
	} {
		if a, err := ParseAnswer(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v; want it refused", name, a, err)
		}
	}
}

func TestPreamble(t *testing.T) {
	p := Preamble{Session: [16]byte{1, 15: 2}, Lane: 0x01020304, Proof: [32]byte{3, 31: 4}}
	b := make([]byte, PreambleSize)
	p.Put(b)
	if b[0] != LaneMagic || b[0] == 0x16 {
		t.Errorf("it begins with %#x, which must tell it from TLS", b[0])
	}
	if got, err := ParsePreamble(b); got != p || err != nil {
		t.Errorf("%+v came back as %+v, %v", p, got, err)
	}
	other := bytes.Clone(b)
	other[3]++ // the version
	for name, b := range map[string][]byte{"nothing": nil, "short": b[:PreambleSize-1], "long": append(bytes.Clone(b), 0), "version": other} {
		if _, err := ParsePreamble(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v; want it refused", name, err)
		}
	}
}

func TestLaneProofIsOfOneEndOfOneLane(t *testing.T) {
	type args struct {
		ticket  [32]byte
		session [16]byte
		lane    uint32
		role    string
	}
	base := args{[32]byte{1}, [16]byte{2}, 3, "dial"}
	proofs := make(map[[32]byte]string)
	for name, a := range map[string]args{
		"itself":          base,
		"another ticket":  {[32]byte{9}, base.session, base.lane, base.role},
		"another session": {base.ticket, [16]byte{9}, base.lane, base.role},
		"another lane":    {base.ticket, base.session, 9, base.role},
		"the other end":   {base.ticket, base.session, base.lane, "listen"},
	} {
		p := LaneProof(a.ticket, a.session, a.lane, a.role)
		if p != LaneProof(a.ticket, a.session, a.lane, a.role) {
			t.Errorf("%s: two proofs of the same", name)
		}
		if same, ok := proofs[p]; ok {
			t.Errorf("%s has the proof of %s", name, same)
		}
		proofs[p] = name
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, r := range []Request{{}, {ID: 1, File: 2, Length: 3, Offset: 4}, {File: MaxEntries - 1, Length: MaxExtent, Offset: MaxSize}, {Offset: -1}} {
		b := make([]byte, HeaderSize)
		r.Put(b)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRequest(b)
		if err != nil {
			return
		}
		again := make([]byte, HeaderSize)
		if r.Put(again); !bytes.Equal(again, b) {
			t.Fatalf("%+v has two forms: %x and %x", r, b, again)
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	for _, a := range []Answer{{}, {ID: 1, Length: MaxExtent}, {ID: 2, Status: StatusFailed}, {Status: statusEnd}} {
		b := make([]byte, HeaderSize)
		a.Put(b)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAnswer(b)
		if err != nil {
			return
		}
		again := make([]byte, HeaderSize)
		if a.Put(again); !bytes.Equal(again, b) {
			t.Fatalf("%+v has two forms: %x and %x", a, b, again)
		}
	})
}
