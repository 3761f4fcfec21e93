package transfer

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ebellocchia/go-bip39" // which has one language and makes nothing of it before it is asked
)

// Key is the secret that both hosts share: 128 bits of chance. Its text form is
// twelve words, the last of which checks the others (BIP 39), so that a typing
// error is told from a wrong key.
type Key [16]byte

// NewKey makes a key.
func NewKey() Key {
	var k Key
	rand.Read(k[:]) // never fails: crypto/rand ends the program instead
	return k
}

// Words is the key's text form.
func (k Key) Words() string {
	mnemonic, err := bip39.MnemonicFromEntropy(k[:])
	if err != nil {
		panic(err) // 128 bits is a length that BIP 39 has
	}
	return mnemonic.Words
}

// ParseKey reads the text form; case and white space don't matter.
func ParseKey(text string) (Key, error) {
	words := strings.Join(strings.Fields(strings.ToLower(text)), " ")
	raw, err := bip39.MnemonicFromString(words).ToEntropy()
	if err != nil || len(raw) != len(Key{}) {
		return Key{}, errorf(CodeUsage, "that is not a key: it must be twelve words, as in the file that rdmaxfer keygen makes, or as recv shows them (a misspelt or missing word?)")
	}
	return Key(raw), nil
}

// maxKeyFile bounds what is read of a key file, bytes.
const maxKeyFile = 4096

// ReadKey reads a key's text form from r, for instance a descriptor.
func ReadKey(r io.Reader) (Key, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxKeyFile))
	if err != nil {
		return Key{}, errorf(CodeLocalIO, "reading the key: %w", err)
	}
	return ParseKey(string(text))
}

// LoadKey reads a key file. One that others may read is refused, as ssh refuses
// such a private key; pipes and descriptors under /dev/fd are taken as they are.
func LoadKey(path string) (Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return Key{}, errorf(CodeUsage, "key file: %w (make one: rdmaxfer keygen FILE, and copy it to the other host)", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Key{}, errorf(CodeUsage, "key file: %w", err)
	}
	if st.Mode().IsRegular() && st.Mode().Perm()&0o077 != 0 {
		return Key{}, errorf(CodeUsage, "key file %s can be read by others (mode %04o): chmod 600 %s, and make a new key if it may have been seen", path, st.Mode().Perm(), path)
	}
	k, err := ReadKey(f)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// SaveKey writes a new key file with mode 0600. An existing file is never
// replaced: a key that is in use would be lost.
func SaveKey(path string, k Key) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return errorf(CodeExists, "%s exists: remove it first if its key is not in use", path)
	}
	if err != nil {
		return errorf(CodeLocalIO, "key file: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = errorf(CodeLocalIO, "key file: %w", cerr)
		}
		if err != nil {
			os.Remove(path)
		}
	}()
	if _, err := fmt.Fprintln(f, k.Words()); err != nil {
		return errorf(CodeLocalIO, "key file: %w", err)
	}
	if err := f.Sync(); err != nil {
		return errorf(CodeLocalIO, "key file: %w", err)
	}
	return nil
}
