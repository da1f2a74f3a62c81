package location

import (
	"fmt"
	"strings"
	"testing"

	"filippo.io/age"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/record"
)

func TestListOffersEachMachineOnce(t *testing.T) {
	p, err := Open(record.Provider{
		Name: "pool", Kind: KindBYON, Labels: map[string]string{"zone": "a", "disk": "hdd"}, Config: map[string]string{ConfigCPU: "4000000000", ConfigMemory: "1024"},
		Machines: []record.ProviderMachine{
			{Endpoint: "ssh://root@10.0.0.7", Name: "big", HostKey: "ssh-ed25519 AAAA", Labels: map[string]string{"disk": "ssd"}},
			{Endpoint: "ssh://root@10.0.0.8"},
		},
	})
	assert.NilError(t, err)
	os := p.Offers()
	assert.Equal(t, len(os), 2)
	assert.Assert(t, os[0].Single && os[0].Name == "big" && os[0].Capacity.NanoCPUs == 4e9 && os[0].Capacity.MemoryBytes == 1024)
	assert.DeepEqual(t, os[0].Labels, map[string]string{"zone": "a", "disk": "ssd"})
	m, err := p.Create(t.Context(), Order{Tag: "x", Offer: "ssh://root@10.0.0.7"})
	assert.NilError(t, err)
	assert.DeepEqual(t, m, Machine{
		Handle: "ssh://root@10.0.0.7", State: Ready, Endpoint: "ssh://root@10.0.0.7", HostKey: "ssh-ed25519 AAAA",
		Labels: map[string]string{"zone": "a", "disk": "ssd"},
	})
	_, err = p.Create(t.Context(), Order{Offer: "ssh://root@10.0.0.9"})
	assert.ErrorContains(t, err, "lists no machine")
	_, err = p.Status(t.Context(), "ssh://root@10.0.0.9")
	assert.ErrorIs(t, err, ErrGone)
	_, err = Open(record.Provider{Name: "x", Kind: "ec2"})
	assert.ErrorIs(t, err, ErrKind)
}

func TestCredentialsAreSealedToTheFleetsIdentity(t *testing.T) {
	identity := func() []byte {
		id, err := age.GenerateX25519Identity()
		assert.NilError(t, err)
		return []byte("# made by a test\n" + id.String() + "\n")
	}
	mine, other := identity(), identity()
	c := Credentials{SSHKey: "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n", Key: "topsecret"}
	sealed, err := c.Seal(mine)
	assert.NilError(t, err)
	assert.Assert(t, !strings.Contains(sealed, "secret") && !strings.Contains(sealed, "PRIVATE"))
	got, err := Unseal(sealed, mine)
	assert.NilError(t, err)
	assert.Assert(t, got == c)
	_, err = Unseal(sealed, other)
	assert.ErrorIs(t, err, ErrSealed)
	_, err = Unseal(sealed[:len(sealed)-8], mine)
	assert.ErrorContains(t, err, "damaged")
	_, err = Unseal("%%", mine)
	assert.ErrorContains(t, err, "damaged")
	none, err := Credentials{}.Seal(mine)
	assert.NilError(t, err)
	assert.Equal(t, none, "")
	got, err = Unseal("", mine)
	assert.NilError(t, err)
	assert.Assert(t, got == Credentials{})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		assert.Assert(t, !strings.Contains(fmt.Sprintf(verb, c), "secret"))
	}
}

func TestFailuresLetAProviderRest(t *testing.T) {
	now := noon
	assert.Assert(t, Rest(nil, now).IsZero())
	one := []record.Machine{{Since: now}}
	assert.Equal(t, Rest(one, now).Sub(now).Seconds(), 15.0)
	assert.Assert(t, Rest(one, now.Add(16e9)).IsZero())
	assert.Equal(t, Rest(append(one, one...), now).Sub(now).Seconds(), 30.0)
	var many []record.Machine
	for range 50 {
		many = append(many, record.Machine{Since: now})
	}
	assert.Equal(t, Rest(many, now).Sub(now).Minutes(), 10.0)
}
