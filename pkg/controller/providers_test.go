package controller

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/crypto/ssh"
	"gotest.tools/v3/assert"
)

// sshKeys makes a private key, with a passphrase if one is given, and a host
// key.
func sshKeys(t *testing.T, passphrase string) (private, host string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	assert.NilError(t, err)
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	assert.NilError(t, err)
	signer, err := ssh.NewPublicKey(pub)
	assert.NilError(t, err)
	return string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer)))
}

func problems(err error) string {
	var call *api.CallError
	if !errors.As(err, &call) {
		return ""
	}
	return strings.Join(call.Body.Problems, "\n")
}

func TestProvidersSecretIsNowhereInClear(t *testing.T) {
	client := storetest.Start(t)
	y := newYard(t, store.New(client, "f"))
	c, _ := scaleController(t, client, "f", y)
	private, host := sshKeys(t, "")
	made, err := c.AddProvider(t.Context(), api.ProviderRequest{
		Name: "rack", Kind: "byon", SSHKey: private, CPU: 4e9, Memory: 8 << 30,
		Machines: []record.ProviderMachine{{Endpoint: "ssh://root@10.0.0.7", HostKey: host}},
	})
	assert.NilError(t, err)
	assert.Assert(t, made.Sealed && made.Free == 1)
	secret := strings.Split(private, "\n")[1]
	all, err := client.Get(t.Context(), "", clientv3.WithPrefix())
	assert.NilError(t, err)
	for _, kv := range all.Kvs {
		assert.Assert(t, !strings.Contains(string(kv.Value), secret) && !strings.Contains(string(kv.Value), "PRIVATE KEY"), "%s", kv.Key)
	}
	shown, err := json.Marshal(made)
	assert.NilError(t, err)
	it, err := store.Get[record.Provider](t.Context(), y.s, y.s.Keys.Provider("rack"))
	assert.NilError(t, err)
	assert.Assert(t, !strings.Contains(string(shown), it.Value.Secret))
	got, err := c.unseal(it.Value.Secret)
	assert.NilError(t, err)
	assert.Assert(t, got.SSHKey == private)
}

func TestEverythingWrongWithAProviderComesAtOnce(t *testing.T) {
	client := storetest.Start(t)
	y := newYard(t, store.New(client, "f"))
	y.stand("h1", nil)
	c, _ := scaleController(t, client, "f", y)
	locked, host := sshKeys(t, "secret")
	_, err := c.AddProvider(t.Context(), api.ProviderRequest{
		Name: "Bad_Name", Kind: "byon", SSHKey: locked,
		Machines: []record.ProviderMachine{
			{Endpoint: "ssh://root@10.0.0.7"},
			{Endpoint: "ssh://root@10.0.0.7", HostKey: host},
			{Endpoint: "ssh://root:pw@10.0.0.8", HostKey: host},
			{Endpoint: "tcp://10.0.0.9:2376"},
			{Endpoint: "context:other"},
			{Endpoint: "ssh://root@10.0.0.10", HostKey: "nonsense", Name: "No Name"},
		},
	})
	assert.ErrorIs(t, err, api.ErrInvalid)
	for _, want := range []string{
		`provider "Bad_Name"`, "machine ssh://root@10.0.0.7: its SSH host key is not known: give --ssh-known-hosts FILE",
		"machine ssh://root@10.0.0.7 is listed twice", "it holds a password", "machines of a byon provider are reached over SSH",
		"machine context:other: a controller reaches machines at", "read host key", "No Name", "the private key has a passphrase",
	} {
		assert.Assert(t, strings.Contains(problems(err), want), "%q lacks %q", problems(err), want)
	}
	assert.Assert(t, !strings.Contains(problems(err), ":pw@"), problems(err))
	_, err = c.AddProvider(t.Context(), api.ProviderRequest{Name: "x", Kind: "ec2"})
	assert.Assert(t, strings.Contains(problems(err), `kind "ec2" is not known`) && strings.Contains(problems(err), "it lists no machine"), problems(err))

	private, host := sshKeys(t, "")
	add := func(name, endpoint string) error {
		_, err := c.AddProvider(t.Context(), api.ProviderRequest{Name: name, Kind: "byon", SSHKey: private, Machines: []record.ProviderMachine{{Endpoint: endpoint, HostKey: host, Name: "m" + name}}})
		return err
	}
	assert.NilError(t, add("a", "ssh://root@10.0.0.7"))
	err = add("b", "ssh://root@10.0.0.7")
	assert.ErrorIs(t, err, api.ErrConflict)
	assert.Assert(t, strings.Contains(problems(err), "is in the list of provider a already"), problems(err))
	assert.ErrorIs(t, add("a", "ssh://root@10.0.0.8"), api.ErrConflict)
}

func TestHeadroomIsSetAndChecked(t *testing.T) {
	client := storetest.Start(t)
	y := newYard(t, store.New(client, "f"))
	y.stand("h1", nil)
	c, _ := scaleController(t, client, "f", y)
	_, err := c.SetHeadroom(t.Context(), api.HeadroomRequest{Policy: record.HeadroomPolicy{
		Count: 3, Percent: 1.5, CPU: -1, MinHosts: 5, MaxHosts: 2, For: []record.HeadroomFor{{App: "shop", Service: "web", N: 0}},
	}})
	assert.ErrorIs(t, err, api.ErrInvalid)
	for _, want := range []string{
		"a count and a percentage cannot both be kept free", "number of CPUs is negative", "between 0 and 100", "at least 5 hosts and at most 2",
		"room for shop/web: 0 replicas", "there is no application shop",
	} {
		assert.Assert(t, strings.Contains(problems(err), want), "%q lacks %q", problems(err), want)
	}
	h, err := c.SetHeadroom(t.Context(), api.HeadroomRequest{Policy: record.HeadroomPolicy{Count: 4}})
	assert.NilError(t, err)
	assert.Equal(t, h.Decision.Rooms[0].Possible, int64(8))
	assert.Equal(t, h.UpDelay.Seconds(), 30.0)
	_, err = c.SetHeadroom(t.Context(), api.HeadroomRequest{Policy: record.HeadroomPolicy{Count: 9}})
	assert.ErrorIs(t, err, api.ErrConflict)
	_, err = c.SetHeadroom(t.Context(), api.HeadroomRequest{Policy: record.HeadroomPolicy{Count: 9}, Revision: h.Revision})
	assert.NilError(t, err)
	assert.NilError(t, c.RemoveHeadroom(t.Context()))
	h, err = c.Headroom(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, h.Revision, int64(0))
}

// A replica that finds no host asks for one at once, with no policy at all;
// the host comes and the replica runs on it.
func TestReplicaWithoutHostGetsOne(t *testing.T) {
	client := storetest.Start(t)
	y := newYard(t, store.New(client, "f"))
	k := y.s.Keys
	playAgents(t, client, "h1")
	c, _ := scaleController(t, client, "f", y)
	app := application("shop", 1, 2)
	app.Entities[0].Service.Placement.MaxPerHost = 2
	await(t, func() bool { return c.findHost("h1") != "" })
	assert.NilError(t, c.Deploy(t.Context(), "u", api.DeployRequest{Application: app}, func(api.Progress) error { return nil }))
	y.put(k.Provider("pool"), list("pool", "ssh://a", "ssh://b"))
	await(t, c.hasProviders)
	// The host goes, and with it the place of both.
	spec, err := store.Get[record.Host](t.Context(), y.s, k.HostSpec("h1"))
	assert.NilError(t, err)
	spec.Value.State = record.HostCordoned
	txn := y.s.Txn().Put(spec.Key, spec.Value)
	c.cache.mu.RLock()
	for _, a := range c.cache.assignments {
		txn.Delete(a.Key)
	}
	c.cache.mu.RUnlock()
	_, err = txn.Commit(t.Context())
	assert.NilError(t, err)
	id := hostID("ssh://a")
	await(t, func() bool {
		c.cache.mu.RLock()
		defer c.cache.mu.RUnlock()
		n := 0
		for _, a := range c.cache.assignments {
			if a.Value.Host == id {
				n++
			}
		}
		return n == 2
	})
	ms := y.machines()
	assert.Equal(t, len(ms), 1)
	assert.Equal(t, ms[0].For, "shop/s0")
	assert.Assert(t, strings.Contains(ms[0].Why, "of shop cannot be placed"), ms[0].Why)
}

// A deploy that finds no host waits for one that a provider gives; one that no
// machine could help fails with its own reasons and that one.
func TestDeployGetsItsHost(t *testing.T) {
	client := storetest.Start(t)
	y := newYard(t, store.New(client, "f"))
	playAgents(t, client, "h1")
	p := list("pool", "ssh://a", "ssh://b")
	p.Machines[1].Labels = map[string]string{"disk": "ssd"}
	y.put(y.s.Keys.Provider("pool"), p)
	c, _ := scaleController(t, client, "f", y)
	await(t, func() bool { return c.findHost("h1") != "" && c.hasProviders() })
	app := application("shop", 1, 1)
	app.Entities[0].Service.Placement.Constraints = []string{"node.labels.disk == ssd"}
	waited := ""
	err := c.Deploy(t.Context(), "u", api.DeployRequest{Application: app}, func(p api.Progress) error {
		if p.Task != nil && strings.HasPrefix(p.Task.Waiting, "waiting for a host") {
			waited = p.Task.Name + " " + p.Task.Waiting
		}
		return nil
	})
	assert.NilError(t, err)
	assert.Assert(t, strings.HasPrefix(waited, "shop-s0-1 waiting for a host: machine ssh://b"), waited)
	assert.Equal(t, len(y.machines()), 1)
	assert.Equal(t, y.machines()[0].For, "shop/s0")

	app = application("mail", 1, 1)
	app.Entities[0].Service.Placement.Constraints = []string{"node.labels.disk == tape"}
	err = c.Deploy(t.Context(), "u", api.DeployRequest{Application: app}, func(api.Progress) error { return nil })
	assert.ErrorIs(t, err, api.ErrConflict)
	assert.Assert(t, strings.Contains(problems(err), "no host is asked for, as none could take it: ssh://a:"), problems(err))
	assert.Equal(t, len(y.machines()), 1)
}
