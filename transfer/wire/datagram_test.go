package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

var tag = [TagSize]byte{0: 0xaa, 15: 0xbb}

func TestDatagramsLieAsDocumented(t *testing.T) {
	b := bytes.Repeat([]byte{0xee}, AskSize)
	a := Ask{Request{ID: 0x01020304, Length: 0x00100000, Offset: 0x200000}, 0x1000, 0x2000}
	a.Put(b, &tag)
	begin := "aa" + strings.Repeat("00", 14) + "bb"
	want := begin + "52584c52" + "01020304" + "00000000" + "00000000" + "00100000" + "00000000" + "0000000000200000" + strings.Repeat("00", 16) + "00001000" + "00002000"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("ask %s, want %s", got, want)
	}
	if got, err := ParseAsk(b, &tag); got != a || err != nil {
		t.Errorf("%+v came back as %+v, %v", a, got, err)
	}
	b = append(bytes.Repeat([]byte{0xee}, DatagramHeaderSize), "payload"...)
	d := Datagram{0x05060708, 0x09}
	d.Put(b, &tag)
	if got, want := hex.EncodeToString(b), begin+"05060708"+"00000009"+hex.EncodeToString([]byte("payload")); got != want {
		t.Errorf("datagram %s, want %s", got, want)
	}
	if got, payload, err := ParseDatagram(b, &tag); got != d || string(payload) != "payload" || err != nil {
		t.Errorf("%+v came back as %+v, %q, %v", d, got, payload, err)
	}
}

func TestDatagramsOfStrangersAreRefused(t *testing.T) {
	set := func(a Ask) []byte {
		b := make([]byte, AskSize)
		a.Put(b, &tag)
		return b
	}
	good := func() []byte { return set(Ask{Request{ID: 1, Length: 5}, 2, 3}) }
	if _, err := ParseAsk(good(), &tag); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseAsk(set(Ask{}), &tag); err != nil { // a trial
		t.Fatal(err)
	}
	flip := func(b []byte, i int) []byte {
		b[i] ^= 1
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":              nil,
		"a byte short":         good()[:AskSize-1],
		"a byte long":          append(good(), 0),
		"another tag":          flip(good(), 0),
		"another tag's end":    flip(good(), TagSize-1),
		"no request":           flip(good(), TagSize),
		"beyond the extent":    set(Ask{Request{Length: 5}, 2, 4}),
		"after the extent":     set(Ask{Request{Length: 5}, 6, 0}),
		"far after":            set(Ask{Request{Length: 5}, 1<<32 - 1, 3}),
		"none of it":           set(Ask{Request{Length: 5}, 2, 0}),
		"some of nothing":      set(Ask{Request{}, 0, 1}),
		"too large an extent":  set(Ask{Request{Length: MaxExtent + 1}, 0, 1}),
		"a negative beginning": set(Ask{Request{Length: 1, Offset: -1}, 0, 1}),
	} {
		if a, err := ParseAsk(b, &tag); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v; want it refused", name, a, err)
		}
	}
	b := make([]byte, DatagramHeaderSize)
	Datagram{}.Put(b, &tag)
	for name, b := range map[string][]byte{"nothing": nil, "a byte short": b[:DatagramHeaderSize-1], "another tag": flip(bytes.Clone(b), 3)} {
		if d, _, err := ParseDatagram(b, &tag); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v; want it refused", name, d, err)
		}
	}
}

func FuzzParseAsk(f *testing.F) {
	for _, a := range []Ask{{}, {Request{ID: 1, Length: 9}, 0, 9}, {Request{Length: MaxExtent}, MaxExtent - 1, 1}} {
		b := make([]byte, AskSize)
		a.Put(b, &tag)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAsk(b, &tag)
		if err != nil {
			return
		}
		again := make([]byte, AskSize)
		if a.Put(again, &tag); !bytes.Equal(again, b) {
			t.Fatalf("%+v has two forms: %x and %x", a, b, again)
		}
	})
}
