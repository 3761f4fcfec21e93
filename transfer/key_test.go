package transfer

import (
	"bytes"
	"strings"
	"testing"
)

// The words are those of BIP 39's own vectors, so that a key that an earlier version, or
// another library, wrote down is the same key.
func TestKeyHasTheWordsOfBIP39(t *testing.T) {
	for _, v := range []struct {
		each  byte
		words string
	}{
		{0x00, "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"},
		{0x7f, "legal winner thank year wave sausage worth useful legal winner thank yellow"},
		{0x80, "letter advice cage absurd amount doctor acoustic avoid letter advice cage above"},
		{0xff, "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong"},
	} {
		key := Key(bytes.Repeat([]byte{v.each}, len(Key{})))
		if got := key.Words(); got != v.words {
			t.Errorf("%x is %q, want %q", key, got, v.words)
		}
		typed := " " + strings.ToUpper(strings.ReplaceAll(v.words, " ", "\n\t")) + "\n"
		if got, err := ParseKey(typed); err != nil || got != key {
			t.Errorf("%q is %x (%v), want %x", typed, got, err, key)
		}
	}
}

func TestParseKeyTellsATypingErrorFromAKey(t *testing.T) {
	for _, text := range []string{
		"",
		"legal winner thank year wave sausage worth useful legal winner thank",       // eleven
		"legal winner thank year wave sausage worth useful legal winner thank yelow", // no such word
		"legal winner thank year wave sausage worth useful legal winner thank thank", // does not check
		strings.Repeat("abandon ", 14) + "address",                                   // of 160 bits
		strings.Repeat("\x00", 12),
	} {
		if key, err := ParseKey(text); CodeOf(err) != CodeUsage {
			t.Errorf("%q is taken for %x (%v)", text, key, err)
		}
	}
}
