package wire

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// texts bounds what a peer says in words: users see it, so there is nothing in it
// that a terminal would obey.
func texts(words ...string) error {
	for _, w := range words {
		switch {
		case len(w) > MaxText:
			return malformed("%d bytes of text", len(w))
		case !utf8.ValidString(w), strings.ContainsFunc(w, unicode.IsControl):
			return malformed("text with control characters, or not UTF-8")
		}
	}
	return nil
}

// Clip makes of any text one that a message may carry: on one line, in UTF-8, and
// not too long.
func Clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r // what is not UTF-8 comes as U+FFFD
	}, s)
	if len(s) <= MaxText {
		return s
	}
	return strings.ToValidUTF8(s[:MaxText-3], "") + "..."
}

// CheckPath refuses every name that could lead out of a directory or deceive a
// terminal: absolute or empty ones, "." and ".." elements, doubled or trailing
// slashes, NUL and control characters, what is not UTF-8, elements and paths
// that are too long.
func CheckPath(p string) error {
	bad := func(why string) error { return malformed("path %+q: %s", p, why) }
	switch {
	case p == "":
		return bad("empty")
	case len(p) > MaxPath:
		return malformed("a path of %d bytes", len(p))
	case p[0] == '/':
		return bad("absolute")
	case !utf8.ValidString(p):
		return bad("not UTF-8")
	case strings.ContainsFunc(p, unicode.IsControl):
		return bad("control characters")
	}
	for e := range strings.SplitSeq(p, "/") {
		switch {
		case e == "" || e == "." || e == "..":
			return bad("has an element " + strconv.Quote(e))
		case len(e) > 255:
			return bad("an element longer than 255 bytes")
		}
	}
	return nil
}
