package model_test

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/model"
)

// withNetwork is an application whose one service joins one network.
func withNetwork(n model.Network, a model.Attachment, replicas int) *model.Application {
	n.Name, a.Network = "front", "front"
	return &model.Application{Name: "app", Dialect: "compose", Networks: []*model.Network{&n}, Entities: []*model.Entity{{
		ID: "web", Kind: model.KindService,
		Service: &model.Service{Image: "docker.io/library/web:1", Replicas: replicas, Networks: []model.Attachment{a}, Restart: model.Restart{Policy: "no"}},
	}}}
}

func TestNetworkSettings(t *testing.T) {
	v4 := model.Network{Subnet: "10.1.0.0/16"}
	for _, c := range []struct {
		name     string
		network  model.Network
		join     model.Attachment
		replicas int
		want     string // in the problems; empty means none
	}{
		{"both families", model.Network{Subnet: "10.1.0.0/16", Gateway: "10.1.0.9", Range: "10.1.8.0/24", Reserved: []string{"10.1.0.5", "fd12::7"},
			Subnet6: "fd12::/64", Gateway6: "fd12::1", Range6: "fd12::1000/120"}, model.Attachment{Address: "10.1.8.8", Address6: "fd12::1008", MAC: "02:42:00:00:00:01"}, 1, ""},
		{"settings", model.Network{Segment: "bridged", Carrier: "vxlan", Egress: "engine", MTU: 1400, DNSServers: []model.Value{model.Text("192.0.2.53")},
			DNSSearch: []string{"example.com"}, Unfiltered: true}, model.Attachment{}, 3, ""},
		{"IPv4 as IPv6", model.Network{Subnet6: "10.1.0.0/16"}, model.Attachment{}, 1, `"10.1.0.0/16" is no IPv6 subnet`},
		{"bits", model.Network{Subnet6: "fd12::1/64"}, model.Attachment{}, 1, "such as fd12::/64"},
		{"small", model.Network{Subnet: "10.1.0.0/30"}, model.Attachment{}, 1, "no room for containers"},
		{"gateway", model.Network{Subnet: "10.1.0.0/16", Gateway: "10.2.0.1"}, model.Attachment{}, 1, "gateway 10.2.0.1 is not inside 10.1.0.0/16"},
		{"range", model.Network{Subnet: "10.1.0.0/16", Range: "10.2.0.0/24"}, model.Attachment{}, 1, "range 10.2.0.0/24 is not inside"},
		{"reserved", model.Network{Subnet: "10.1.0.0/16", Reserved: []string{"10.2.0.1"}}, model.Attachment{}, 1, "reserved address 10.2.0.1"},
		{"neither family", model.Network{NoIPv4: true}, model.Attachment{}, 1, "neither IPv4 nor IPv6"},
		{"MTU for IPv6", model.Network{IPv6: true, MTU: 1000}, model.Attachment{}, 1, "1280 to 65535"},
		{"carrier", model.Network{Carrier: "pigeon"}, model.Attachment{}, 1, `"pigeon" is no carrier`},
		{"server", model.Network{DNSServers: []model.Value{model.Text("dns")}}, model.Attachment{}, 1, `"dns" is no address of a name server`},
		{"domain", model.Network{DNSSearch: []string{"a b"}}, model.Attachment{}, 1, `"a b" is no domain`},
		{"address of several", v4, model.Attachment{Address: "10.1.0.20"}, 2, "one address cannot be that of 2 replicas"},
		{"address outside", v4, model.Attachment{Address: "10.2.0.20"}, 1, "address 10.2.0.20 is not inside network front"},
		{"address of the other family", v4, model.Attachment{Address: "fd12::1"}, 1, `"fd12::1" is no such address`},
		{"address without a subnet", model.Network{}, model.Attachment{Address: "10.2.0.20"}, 1, "needs a network with a fixed subnet"},
		{"MAC", v4, model.Attachment{MAC: "01:00:5e:00:00:01"}, 1, "is no hardware address"},
		{"external with more", model.Network{External: true, ExternalName: "x", MTU: 1400}, model.Attachment{}, 1, "exists already and is what it is"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := model.Validate(withNetwork(c.network, c.join, c.replicas))
			if c.want == "" {
				assert.Equal(t, len(err), 0, "%v", err)
				return
			}
			assert.Assert(t, len(err) > 0 && strings.Contains(err.Error(), c.want), "%v", err)
		})
	}
}
