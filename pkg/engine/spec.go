package engine

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// Labels on what Clocker makes on engines.
const (
	LabelFleet   = record.LabelFleet
	LabelApp     = record.LabelApp
	LabelService = record.LabelService
	LabelSlot    = record.LabelSlot
	LabelTask    = record.LabelTask
	LabelHash    = record.LabelHash
	// LabelNetwork holds the fleet's id of a network.
	LabelNetwork = record.LabelNetwork
	// LabelSystem marks Clocker's own containers: "agent", "controller" or
	// "probe".
	LabelSystem = record.LabelSystem
	// LabelFence holds how long a container may run without etcd.
	LabelFence = record.LabelFence
)

// ContainerRequest is a container to make.
type ContainerRequest struct {
	Spec record.ContainerSpec
	// Labels are added to the spec's own and win over them.
	Labels map[string]string
	// Networks are the engine's names of the networks to join, in the order
	// of Spec.Networks. None means a container that has only a loopback.
	Networks []string
	// DNS are the servers that the container's resolver forwards to, DNSSearch
	// the domains it tries.
	DNS       []netip.Addr
	DNSSearch []string
}

// createOptions turns a request into the engine's terms. Networks after the
// first are left out unless all of them can be given at once (API 1.44).
func createOptions(r ContainerRequest, several bool) (client.ContainerCreateOptions, error) {
	s := r.Spec
	cfg := &container.Config{
		Hostname:    s.Hostname,
		Env:         s.Env,
		Cmd:         s.Command,
		Entrypoint:  s.Entrypoint,
		Image:       s.Image,
		Labels:      make(map[string]string, len(s.Labels)+len(r.Labels)),
		Healthcheck: healthcheck(s.Health),
		StopTimeout: stopTimeout(s.StopGracePeriod),
	}
	for k, v := range s.Labels {
		cfg.Labels[k] = v
	}
	for k, v := range r.Labels {
		cfg.Labels[k] = v
	}
	host := &container.HostConfig{
		NetworkMode:   network.NetworkNone,
		RestartPolicy: restartPolicy(s.Restart),
		ExtraHosts:    s.ExtraHosts,
	}
	if err := ports(cfg, host, s.Ports); err != nil {
		return client.ContainerCreateOptions{}, err
	}
	mounts(host, s.Mounts)
	resources(host, s.Resources)
	runsOn, err := platform(s.Platform)
	if err != nil {
		return client.ContainerCreateOptions{}, err
	}
	o := client.ContainerCreateOptions{Name: s.Name, Config: cfg, HostConfig: host, Platform: runsOn}
	if len(r.Networks) > 0 {
		host.NetworkMode = container.NetworkMode(r.Networks[0])
		host.DNS = r.DNS
		// A dot means no search domains: a host's own would turn "redis"
		// into "redis.example.com" and ask the world for it.
		host.DNSSearch = []string{"."}
		if len(r.DNSSearch) > 0 {
			host.DNSSearch = r.DNSSearch
		}
		o.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}
		for i, n := range r.Networks {
			if i == 0 || several {
				ep, err := endpoint(s.Networks, i)
				if err != nil {
					return client.ContainerCreateOptions{}, fmt.Errorf("join network %s: %w", n, err)
				}
				o.NetworkingConfig.EndpointsConfig[n] = ep
			}
		}
	}
	return o, nil
}

// endpoint is what a container is to have in the i-th of its networks.
func endpoint(joins []record.NetworkJoin, i int) (*network.EndpointSettings, error) {
	ep := &network.EndpointSettings{}
	if i >= len(joins) {
		return ep, nil
	}
	j := joins[i]
	ep.GwPriority = j.GatewayPriority
	if j.Address != "" || j.Address6 != "" {
		ep.IPAMConfig = &network.EndpointIPAMConfig{}
	}
	var err error
	if j.Address != "" {
		if ep.IPAMConfig.IPv4Address, err = netip.ParseAddr(j.Address); err != nil {
			return nil, err
		}
	}
	if j.Address6 != "" {
		if ep.IPAMConfig.IPv6Address, err = netip.ParseAddr(j.Address6); err != nil {
			return nil, err
		}
	}
	if j.MAC != "" {
		mac, err := net.ParseMAC(j.MAC)
		if err != nil {
			return nil, err
		}
		ep.MacAddress = network.HardwareAddr(mac)
	}
	return ep, nil
}

func ports(cfg *container.Config, host *container.HostConfig, ps []model.Port) error {
	for _, p := range ps {
		port, ok := network.PortFrom(p.ContainerPort, network.IPProtocol(p.Protocol))
		if !ok {
			return fmt.Errorf("publish port %d/%s: unknown protocol", p.ContainerPort, p.Protocol)
		}
		if cfg.ExposedPorts == nil {
			cfg.ExposedPorts, host.PortBindings = network.PortSet{}, network.PortMap{}
		}
		cfg.ExposedPorts[port] = struct{}{}
		b := network.PortBinding{}
		if p.HostPort != 0 {
			b.HostPort = strconv.Itoa(int(p.HostPort))
		}
		if p.HostIP != "" {
			ip, err := netip.ParseAddr(p.HostIP)
			if err != nil {
				return fmt.Errorf("publish port %d/%s: %w", p.ContainerPort, p.Protocol, err)
			}
			b.HostIP = ip
		}
		host.PortBindings[port] = append(host.PortBindings[port], b)
	}
	return nil
}

// mounts uses the short form where the engine shall make a missing directory
// and the long one where it shall complain: only newer engines have a field
// for it.
func mounts(host *container.HostConfig, ms []model.Mount) {
	for _, m := range ms {
		if m.Type == model.MountBind && m.CreateHostPath {
			b := m.Source + ":" + m.Target
			if m.ReadOnly {
				b += ":ro"
			}
			host.Binds = append(host.Binds, b)
			continue
		}
		host.Mounts = append(host.Mounts, mount.Mount{
			Type: mount.Type(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly,
		})
	}
}

func healthcheck(h *model.Healthcheck) *container.HealthConfig {
	switch {
	case h == nil:
		return nil
	case h.Disable:
		return &container.HealthConfig{Test: []string{"NONE"}}
	}
	return &container.HealthConfig{
		Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, Retries: h.Retries,
		StartPeriod: h.StartPeriod, StartInterval: h.StartInterval,
	}
}

func restartPolicy(r model.Restart) container.RestartPolicy {
	p := container.RestartPolicy{Name: container.RestartPolicyMode(r.Policy)}
	if p.IsOnFailure() {
		p.MaximumRetryCount = r.MaxRetries
	}
	return p
}

// stopTimeout is in whole seconds for the engine; a part of one counts as one.
func stopTimeout(d time.Duration) *int {
	if d <= 0 {
		return nil
	}
	s := int(math.Ceil(d.Seconds()))
	return &s
}
