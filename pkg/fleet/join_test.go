package fleet

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/token"
)

func TestOnlyAProfileFromBeforeAChangeOfTheAuthorityIsReplaced(t *testing.T) {
	one := func() ([]byte, string) {
		a, err := ca.Create("f", time.Now)
		assert.NilError(t, err)
		sum, err := ca.Fingerprint(a.Certificate())
		assert.NilError(t, err)
		return a.Certificate(), sum
	}
	old, oldSum := one()
	fresh, freshSum := one()
	here := []string{"https://10.0.0.1:7480", "https://10.0.0.2:7480"}
	for name, tc := range map[string]struct {
		p    Profile
		pin  string
		at   []string
		want bool
	}{
		"before the change": {Profile{CA: old, Controllers: here}, freshSum, here[1:], true},
		"it is good":        {Profile{CA: old, Controllers: here}, oldSum, here, false},
		"during the change": {Profile{CA: append(fresh, old...), Controllers: here}, oldSum, here, false},
		"another fleet":     {Profile{CA: old, Controllers: here}, freshSum, []string{"https://10.0.0.3:7480"}, false},
		"it cannot be read": {Profile{Controllers: here}, freshSum, here, false},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, outdated(&tc.p, token.Token{CAFingerprint: tc.pin, Controllers: tc.at}), tc.want)
		})
	}
}
