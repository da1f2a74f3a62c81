// Package token is the text by which somebody joins a fleet: one word that
// names the fleet and its controllers, pins the fleet's certificate authority
// by its fingerprint, and carries an id and a secret that are good for one
// use. Controllers keep the secret's hash only.
//
// It packs and unpacks text; it asks nobody and stores nothing. Whether a
// token is still good is decided by the controllers.
//
// Design page: docs/design/security.md.
package token

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"unicode"
)

// Prefix starts every token's text: people, and programs that look for leaked
// secrets, know one by it.
const Prefix = "clocker1_"

// ErrToken means that a text is no token, or not all of one.
var ErrToken = errors.New("this is no token of docker clocker")

// Token is what a token's text says.
type Token struct {
	// Kind is record.TokenHost or record.TokenUser.
	Kind  string
	Fleet string
	// Controllers are URLs: https://address:port.
	Controllers []string
	// CAFingerprint is that of ca.Fingerprint: the SHA-256 of the authority's
	// certificate in hexadecimal.
	CAFingerprint string
	// ID names the token's record; it is no secret.
	ID string
	// Secret is shown once, to whoever asked for the token.
	Secret string
}

const (
	idSize     = 8
	secretSize = 20
	// maxText bounds what is read.
	maxText = 8 << 10
)

// New makes a token with an id and a secret of its own.
func New(kind, fleet string, controllers []string, fingerprint string) (Token, error) {
	b := make([]byte, idSize+secretSize)
	if _, err := rand.Read(b); err != nil {
		return Token{}, fmt.Errorf("make token: %w", err)
	}
	t := Token{
		Kind: kind, Fleet: fleet, Controllers: controllers, CAFingerprint: fingerprint,
		ID: hex.EncodeToString(b[:idSize]), Secret: hex.EncodeToString(b[idSize:]),
	}
	if _, err := Parse(t.String()); err != nil {
		return Token{}, fmt.Errorf("make token: %w", err)
	}
	return t, nil
}

// Hash is what is kept of a secret.
func Hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Matches compares a secret with a hash in constant time.
func Matches(secret, hash string) bool {
	return subtle.ConstantTimeCompare([]byte(Hash(secret)), []byte(hash)) == 1
}

// String is the token's text: letters, digits, - and _ only. It holds the
// secret; it is for the person who joins, never for a log.
//
// The layout is the kind (a byte), fingerprint, id, secret, fleet and
// controllers (each with a length before it), and a CRC-32 that finds texts
// copied in part.
func (t Token) String() string {
	var b bytes.Buffer
	kind := byte('?')
	if t.Kind != "" {
		kind = t.Kind[0]
	}
	b.WriteByte(kind)
	for _, part := range []string{t.CAFingerprint, t.ID, t.Secret} {
		raw, _ := hex.DecodeString(part) // Parse finds what is no hexadecimal
		b.Write(raw)
	}
	text := func(s string) {
		b.WriteByte(byte(min(len(s), 255)))
		b.WriteString(s[:min(len(s), 255)])
	}
	text(t.Fleet)
	b.WriteByte(byte(min(len(t.Controllers), 255)))
	for _, c := range t.Controllers {
		text(c)
	}
	sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(b.Bytes()))
	b.Write(sum)
	return Prefix + base64.RawURLEncoding.EncodeToString(b.Bytes())
}

// Parse reads a token's text. White space in it, as a terminal adds when it
// wraps a line, does not matter.
func Parse(text string) (Token, error) {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text)
	body, ok := strings.CutPrefix(text, Prefix)
	if !ok || len(text) > maxText {
		return Token{}, fmt.Errorf("%w: one starts with %s", ErrToken, Prefix)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil || len(raw) < 4 {
		return Token{}, fmt.Errorf("%w: copy it again, all of it", ErrToken)
	}
	raw, sum := raw[:len(raw)-4], binary.BigEndian.Uint32(raw[len(raw)-4:])
	if crc32.ChecksumIEEE(raw) != sum {
		return Token{}, fmt.Errorf("%w: a part of it is missing or wrong: copy it again, all of it", ErrToken)
	}
	r := reader{raw}
	t := Token{}
	switch kind := r.take(1); {
	case string(kind) == "h":
		t.Kind = "host"
	case string(kind) == "u":
		t.Kind = "user"
	default:
		return Token{}, fmt.Errorf("%w: it is of a kind that this program does not know: upgrade it", ErrToken)
	}
	t.CAFingerprint = hex.EncodeToString(r.take(sha256.Size))
	t.ID, t.Secret = hex.EncodeToString(r.take(idSize)), hex.EncodeToString(r.take(secretSize))
	t.Fleet = r.text()
	if n := r.take(1); n != nil {
		for range n[0] {
			t.Controllers = append(t.Controllers, r.text())
		}
	}
	if r.rest == nil || len(r.rest) > 0 || t.Fleet == "" || len(t.Controllers) == 0 {
		return Token{}, fmt.Errorf("%w: what it says cannot be read", ErrToken)
	}
	return t, nil
}

// reader takes parts off a text; rest is nil once there was too little.
type reader struct{ rest []byte }

func (r *reader) take(n int) []byte {
	if r.rest == nil || len(r.rest) < n {
		r.rest = nil
		return nil
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *reader) text() string {
	n := r.take(1)
	if n == nil {
		return ""
	}
	return string(r.take(int(n[0])))
}
