package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/record"
)

func TestHeadroomSetChangesWhatIsGiven(t *testing.T) {
	given := func(names ...string) func(string) bool {
		return func(n string) bool {
			for _, g := range names {
				if g == n {
					return true
				}
			}
			return false
		}
	}
	p := record.HeadroomPolicy{Percent: 0.2, MaxHosts: 8, For: []record.HeadroomFor{{App: "shop", Service: "web", N: 2}}}
	o := headroomFlags{count: 4, cpu: "1.5", memory: "2GiB", rooms: []string{"shop/web=0", "shop/db=1"}, up: 0, down: time.Minute, removeEmpty: true}
	assert.NilError(t, o.change(given("count", "cpu", "memory", "for", "up-delay", "down-delay", "remove-empty"), &p))
	assert.DeepEqual(t, p, record.HeadroomPolicy{
		Count: 4, CPU: 15e8, Memory: 2 << 30, MaxHosts: 8, For: []record.HeadroomFor{{App: "shop", Service: "db", N: 1}},
		UpDelay: -1, DownDelay: time.Minute, RemoveEmpty: true,
	})
	for text, want := range map[string]float64{"20%": 0.2, "0.25": 0.25, "7 %": 0.07} {
		got, err := share(text)
		assert.NilError(t, err)
		assert.Equal(t, got, want)
	}
	// Every problem at once.
	o = headroomFlags{percent: "120%", cpu: "many", memory: "-1", rooms: []string{"shop=1", "/web=2", "shop/web=x"}}
	err := o.change(given("percent", "cpu", "memory", "for"), &p)
	for _, want := range []string{"--percent", "--cpu", "--memory", `"shop=1" is not APP/SERVICE=N`, `"/web=2"`, `"shop/web=x"`} {
		assert.ErrorContains(t, err, want)
	}
	code, _ := Exit(err)
	assert.Equal(t, code, ExitInvalid)
}

func TestProviderAddTellsEveryProblemWithItsLine(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		assert.NilError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH0x6p5pnNn0B9QRDgVV1pMwo0FGbIQvfHOKrHjO4kZu"
	known := write("known_hosts", "10.0.0.7 "+key+"\n[10.0.0.8]:2222 "+key+"\n")
	identity := write("key", "a private key")
	o := providerAddOptions{name: "rack", kind: "byon", labels: []string{"zone=a"}, cpu: "4", memory: "8GiB", reach: reachFlags{fleet.Access{KnownHosts: known, Identity: identity}}}
	o.machines = []string{write("good.yaml", "hosts:\n- ssh://root@10.0.0.7\n- endpoint: ssh://root@10.0.0.8:2222\n  name: eight\n  labels: {disk: ssd}\n")}
	r, err := o.request()
	assert.NilError(t, err)
	assert.Equal(t, len(r.Machines), 2)
	assert.Equal(t, r.Machines[0].HostKey, key)
	assert.Equal(t, r.Machines[1].HostKey, key)
	assert.Equal(t, r.Machines[1].Labels["disk"], "ssd")
	assert.Equal(t, r.SSHKey, "a private key")
	assert.Equal(t, r.CPU, int64(4e9))
	assert.Equal(t, r.Memory, int64(8<<30))

	bad := write("bad.yaml", "hosts:\n- ssh://root@10.0.0.9\n- endpoint: ssh://root@10.0.0.7\n  size: 3\n- endpoint: ssh://root@10.0.0.7\n  address: 10.0.0.7\n")
	o.machines, o.labels, o.memory = []string{bad}, []string{"=x"}, "much"
	o.reach.Identity = filepath.Join(dir, "none")
	_, err = o.request()
	for _, want := range []string{"bad.yaml:4: unknown key \"size\"", `label "=x"`, `"much" is no size`} {
		assert.ErrorContains(t, err, want)
	}
	o.machines = []string{write("keys.yaml", "hosts:\n- ssh://root@10.0.0.7\n- ssh://root@10.0.0.9\n")}
	_, err = o.request()
	for _, want := range []string{"keys.yaml:3: ssh://root@10.0.0.9: its SSH host key is not in", "ssh-keyscan 10.0.0.9", "no such file"} {
		assert.ErrorContains(t, err, want)
	}
	assert.Assert(t, !strings.Contains(err.Error(), "keys.yaml:2"))
}
