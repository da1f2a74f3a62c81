package tunnel

import (
	"fmt"
	"net/netip"
	"testing"

	"gotest.tools/v3/assert"
)

func TestIdentify(t *testing.T) {
	seen := map[string]bool{}
	for n := range 2000 {
		i := Identify(fmt.Sprint("host", n))
		assert.Equal(t, i.MAC[0]&3, byte(2), "%s", i.MAC)
		assert.Check(t, i.LinkLocal.IsLinkLocalUnicast() && netip.MustParsePrefix("240.0.0.0/4").Contains(i.Own))
		for _, k := range []string{i.MAC.String(), i.LinkLocal.String(), i.Own.String()} {
			assert.Check(t, !seen[k], k)
			seen[k] = true
		}
	}
	// It is as much a format as what is in etcd: hosts of two versions must
	// agree.
	assert.Equal(t, fmt.Sprint(Identify("host1")), "{be:ba:07:0e:a2:59 fe80::8f7:de8:9370:e66 246.25.46.208}")
}

func TestNext(t *testing.T) {
	i := Identify("host1")
	assert.Equal(t, i.Next(netip.MustParseAddr("10.0.0.1")), netip.MustParseAddr("10.0.0.1"))
	assert.Equal(t, i.Next(netip.MustParseAddr("2001:db8::1")), i.Own)
}
