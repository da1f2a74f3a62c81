package token

import (
	"errors"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

var fingerprint = strings.Repeat("0f", 32)

func TestTokenSurvivesCopying(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]string{"host", "user"}).Draw(t, "kind")
		fleet := rapid.StringMatching(`[a-z][a-z0-9-]{0,30}`).Draw(t, "fleet")
		controllers := rapid.SliceOfN(rapid.StringMatching(`https://[a-z0-9.:]{1,40}`), 1, 5).Draw(t, "controllers")
		tok, err := New(kind, fleet, controllers, fingerprint)
		assert.NilError(t, err)
		text := tok.String()
		// A terminal wraps it, a mail quotes it with spaces around.
		cut := rapid.IntRange(0, len(text)).Draw(t, "cut")
		got, err := Parse(" " + text[:cut] + "\r\n  " + text[cut:] + "\n")
		assert.NilError(t, err)
		assert.DeepEqual(t, got, tok)
		assert.Assert(t, Matches(got.Secret, Hash(tok.Secret)))
		// Any part of it is none.
		if _, err := Parse(text[:min(cut, len(text)-1)]); !errors.Is(err, ErrToken) {
			t.Fatalf("a part of a token is taken: %v", err)
		}
	})
}

func TestOtherTextIsNoToken(t *testing.T) {
	for _, text := range []string{"", "SWMTKN-1-abc", Prefix, Prefix + "!!", Prefix + "AAAA", Prefix + strings.Repeat("A", maxText)} {
		_, err := Parse(text)
		assert.ErrorIs(t, err, ErrToken, text)
	}
	assert.Assert(t, !Matches("a", Hash("b")))
	_, err := New("nobody", "f", []string{"https://c"}, fingerprint)
	assert.ErrorIs(t, err, ErrToken)
	_, err = New("user", "f", nil, fingerprint)
	assert.ErrorIs(t, err, ErrToken)
}

func FuzzParse(f *testing.F) {
	tok, err := New("user", "f", []string{"https://c:1"}, fingerprint)
	assert.NilError(f, err)
	f.Add(tok.String())
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(tok.String())
		if err != nil || again.String() != tok.String() {
			t.Fatalf("%q reads as %+v, which does not read back: %v", text, tok, err)
		}
	})
}
