package audit

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/record"
)

// sound is a snapshot in which nothing is wrong.
func sound() Snapshot {
	block := func(cidr, host, state string) Block {
		return Block{"n1", cidr, record.Block{Host: host, State: state}}
	}
	return Snapshot{
		Pools: []record.Pool{{Name: "default", CIDR: "10.208.0.0/12", SubnetBits: 20}, {Name: "six", CIDR: "fd12::/48", SubnetBits: 64}},
		Networks: []record.Network{
			{ID: "n1", Name: "web", Subnet: "10.208.0.0/20", Pool: "default", Subnet6: "fd12::/64", Pool6: "six"},
			{ID: "n2", Subnet: "192.168.7.0/24", ByHand: true},
		},
		Uses: []Use{{"n2", record.NetworkUse{Host: "h1"}}},
		Blocks: []Block{
			block("10.208.0.0/26", "h1", record.BlockOwned), block("10.208.0.64/26", "h2", record.BlockOwned),
			block("10.208.1.0/26", "", record.BlockServices), block("10.208.2.0/26", "h9", record.BlockQuarantined),
			block("fd12::/122", "h1", record.BlockOwned),
		},
		Endpoints: []Endpoint{
			{"n1", "10.208.0.2", record.Endpoint{Host: "h1"}}, {"n1", "fd12::2", record.Endpoint{Host: "h1"}},
			{"n1", "10.208.0.70", record.Endpoint{Host: "h1"}}, {"n1", "10.208.9.9", record.Endpoint{Host: "h2"}},
		},
		Pins: []Pin{
			{"n1", "10.208.0.70", record.Pin{Host: "h1", Owner: "h2"}}, {"n1", "10.208.9.9", record.Pin{Host: "h2"}},
			{"n1", "10.208.0.71", record.Pin{Host: "h9", Owner: "h2", Released: true}},
		},
		Services: []Service{{"n1", "10.208.1.1", record.Service{App: "a", Service: "web", Address: "10.208.1.1"}}},
		Hosts:    map[string]string{"h1": "alpha", "h2": "beta"},
	}
}

func TestNothingIsWrong(t *testing.T) {
	for _, f := range Check(sound()) {
		t.Errorf("found: %s", f.Text)
	}
}

func TestFindings(t *testing.T) {
	for text, spoil := range map[string]func(*Snapshot){
		"address pool bad cannot be used":                                                         func(s *Snapshot) { s.Pools = append(s.Pools, record.Pool{Name: "bad", CIDR: "x"}) },
		"subnet of network n2 cannot be used":                                                     func(s *Snapshot) { s.Networks[1].Subnet = "127.0.0.0/8" },
		"subnet 10.208.8.0/24 of network n2 overlaps 10.208.0.0/20 of network web":                func(s *Snapshot) { s.Networks[1].Subnet = "10.208.8.0/24" },
		"network web has its subnet 10.208.0.0/20 from pool gone, which does not exist":           func(s *Snapshot) { s.Networks[0].Pool = "gone" },
		"subnet 192.168.7.0/24 of network n2 is outside its pool default (10.208.0.0/12)":         func(s *Snapshot) { s.Networks[1].Pool = "default" },
		"network n2 was made by hand and no host uses it any more":                                func(s *Snapshot) { s.Uses = nil },
		"block 10.208.0.0/26 of network n9 is of network n9, which does not exist":                func(s *Snapshot) { s.Blocks[0].Network = "n9" },
		"block 10.9.0.0/26 of network web is not in the network's subnets":                        func(s *Snapshot) { s.Blocks[2].CIDR = "10.9.0.0/26" },
		"block 10.208.0.0/26 of network web is owned by host h9, which is not in the fleet":       func(s *Snapshot) { s.Blocks[0].Host = "h9" },
		"block 10.208.0.32/27 of host beta overlaps block 10.208.0.0/26 of host alpha":            func(s *Snapshot) { s.Blocks[1].CIDR = "10.208.0.32/27" },
		`is in the unknown state "odd"`:                                                           func(s *Snapshot) { s.Blocks[0].State = "odd" },
		"pin 10.208.9.9 of network web is for host h9, which is not in the fleet":                 func(s *Snapshot) { s.Pins[1].Pin.Host = "h9" },
		"pin 10.208.9.9 of network web was lent by host beta, but its block is nobody's":          func(s *Snapshot) { s.Pins[1].Owner = "h2" },
		"pin 10.208.0.70 of network web was lent by host alpha, but its block 10.208.0.64/26":     func(s *Snapshot) { s.Pins[0].Owner = "h1" },
		"pin 10.1.1.1 of network web is not in the network's subnets":                             func(s *Snapshot) { s.Pins[0].Address = "10.1.1.1" },
		"address 10.208.0.2 of network web is in use by host beta, but its block 10.208.0.0/26":   func(s *Snapshot) { s.Endpoints[0].Host = "h2" },
		"address 10.208.0.2 of network web is in use by host h9, which is not in the fleet":       func(s *Snapshot) { s.Endpoints[0].Host = "h9" },
		"address 10.208.9.9 of network web is in use by host beta, but in no block":               func(s *Snapshot) { s.Pins = s.Pins[:1] },
		"address 10.208.9.9 of network web is in use by host alpha, but pinned for host beta":     func(s *Snapshot) { s.Endpoints[3].Host = "h1" },
		"address 10.208.0.2 of network web is in use by host alpha, whose block 10.208.0.0/26 is": func(s *Snapshot) { s.Blocks[0].State = record.BlockQuarantined },
		"service address 10.208.0.2 of network web of service web of a is in use by a container":  func(s *Snapshot) { s.Services[0].Service.Address = "10.208.0.2" },
		"service address 10.208.0.9 of network web of service web of a is in no block for":        func(s *Snapshot) { s.Services[0].Service.Address = "10.208.0.9" },
	} {
		s := sound()
		spoil(&s)
		var texts []string
		hit := false
		for _, f := range Check(s) {
			texts = append(texts, f.Text)
			hit = hit || strings.Contains(f.Text, text)
			assert.Equal(t, f.Part, Part)
		}
		if !hit {
			t.Errorf("want %q\nfound %q", text, texts)
		}
	}
}
