package fleet

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

func TestListsOfHostsAreReadInEveryForm(t *testing.T) {
	want := []Listed{
		{Endpoint: "ssh://root@a", Name: "one", At: "l:1"},
		{Endpoint: "tcp://b:2376", At: "l:3"},
	}
	for name, text := range map[string]string{
		"lines": "ssh://root@a one # the first\n\ntcp://b:2376\n",
		"YAML":  "- {endpoint: 'ssh://root@a', name: one}\n\n- tcp://b:2376\n",
		"hosts": "hosts: [{endpoint: 'ssh://root@a', name: one},\n\n 'tcp://b:2376']\n",
	} {
		got, err := ReadList(strings.NewReader(text), "l")
		assert.NilError(t, err, name)
		assert.DeepEqual(t, got, want)
	}
	got, err := ReadList(strings.NewReader("- endpoint: ssh://a\n  address: 10.0.0.1\n  hostKey: ssh-ed25519 AAAA\n  labels: {disk: ssd}\n- endpoint: ssh://b\n  labels: [x=1, y]\n"), "l")
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []Listed{
		{Endpoint: "ssh://a", Address: "10.0.0.1", HostKey: "ssh-ed25519 AAAA", Labels: map[string]string{"disk": "ssd"}, At: "l:1"},
		{Endpoint: "ssh://b", Labels: map[string]string{"x": "1", "y": ""}, At: "l:5"},
	})
}

func TestEveryProblemOfAListIsToldWithItsLine(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"empty":          {"", []string{"l:1: it lists no host"}},
		"no endpoint":    {"server-1\n", []string{`l:1: "server-1" is not ENDPOINT`}},
		"too many words": {"ssh://a b c\nssh://d\nx y z\n", []string{`l:1: "ssh://a b c"`, `l:3: "x y z"`}},
		"keys":           {"- {endpoint: 'ssh://a', colour: red}\n- {name: b}\n", []string{`l:1: unknown key "colour"`, "l:2: a host has no endpoint"}},
		"twice":          {"- ssh://a\n- ssh://a\n", []string{"l:2: ssh://a stands at l:1 already"}},
		"names":          {"- {endpoint: 'ssh://a', name: X_}\n- {endpoint: 'ssh://b', name: c}\n- {endpoint: 'ssh://d', name: c}\n", []string{"l:1: host \"X_\"", "l:3: the name c stands at l:2 already"}},
		"address":        {"- {endpoint: 'ssh://a', address: here}\n", []string{`l:1: "here" is not an address`}},
		"labels":         {"- {endpoint: 'ssh://a', labels: 3}\n- {endpoint: 'ssh://b', labels: [[]]}\n", []string{"l:1: labels are", "l:2: a label is"}},
		"another map":    {"servers: []\n", []string{`l:1: unknown key "servers"`, "l:1: no key hosts"}},
		"broken":         {"hosts: [\n", []string{"neither YAML"}},
	} {
		_, err := ReadList(strings.NewReader(tc.text), "l")
		assert.Assert(t, err != nil, name)
		for _, w := range tc.want {
			assert.ErrorContains(t, err, w, name)
		}
		assert.Equal(t, strings.Count(err.Error(), "\n")+1, len(tc.want), "%s: %v", name, err)
	}
}

func FuzzReadList(f *testing.F) {
	f.Add("- ssh://a\n")
	f.Add("hosts: [{endpoint: 'ssh://a', labels: [x=1]}]")
	f.Add("ssh://a b\n#x")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ReadList(strings.NewReader(text), "l")
		if err == nil && len(l) == 0 {
			t.Fatal("neither hosts nor a problem")
		}
		for _, h := range l {
			if IsList(h.Endpoint) {
				t.Fatalf("%q is no endpoint", h.Endpoint)
			}
		}
	})
}
