package driver

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"

	addresses "clocker.io/clocker/ipam/driver"
	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
)

// machineState is the host's own place on a network (network attach --host).
type machineState struct {
	Network record.Network `json:"network"`
	Leases  []lease        `json:"leases"`
}

// lease is an address with the pool that it is of.
type lease struct {
	Pool    string     `json:"pool"`
	Address netip.Addr `json:"address"`
}

func (m machineState) addrs() []netip.Addr {
	var all []netip.Addr
	for _, l := range m.Leases {
		all = append(all, l.Address)
	}
	return all
}

// machineNetwork stands for an engine's id where no engine has the network.
func machineNetwork(id string) string { return "machine-" + id }

// optName is how engines tell the name that an address stays with.
const optName = "com.docker.network.endpoint.name"

func (f files) machines() string            { return filepath.Join(f.dir, "machines") }
func (f files) machineFile(n string) string { return filepath.Join(f.machines(), n+".json") }

// syncMachines puts the host on the networks that it is attached to, and takes
// it off the others. It is called by Run only.
func (d *Driver) syncMachines() {
	wanted, known := map[string]bool{}, topology.Unknown
	d.Topology.Read(func(t *topology.Topology, k topology.Knowledge) {
		known = k
		for id, hosts := range t.Attached {
			if _, ok := hosts[d.Host]; ok {
				wanted[id] = true
			}
		}
	})
	if known != topology.Followed {
		return
	}
	d.mu.Lock()
	have := maps.Clone(d.machines)
	d.mu.Unlock()
	for id := range wanted {
		if _, ok := have[id]; !ok {
			if err := d.attachMachine(id); err != nil {
				d.Log.Error("host not put on the network, trying again", "network", id, "error", err)
			}
		}
	}
	for id, m := range have {
		if !wanted[id] {
			if err := d.detachMachine(m); err != nil {
				d.Log.Error("host not taken off the network, trying again", "network", id, "error", err)
			}
		}
	}
}

func (d *Driver) attachMachine(id string) error {
	n, err := d.lookUp(options{network: id}, pool{})
	if err != nil {
		return err
	}
	m := machineState{Network: n}
	err = d.lease(&m)
	if err == nil {
		err = d.present(networkState{ID: machineNetwork(id), Network: n})
	}
	if err == nil {
		err = putJSON(d.files.machineFile(id), m, true)
	}
	if err == nil {
		err = d.place(m)
	}
	if err != nil {
		return errors.Join(err, d.detachMachine(m))
	}
	for _, a := range m.addrs() {
		d.Addresses.Annotate(id, a, addresses.Note{MAC: segment.MAC(a).String(), Machine: true})
	}
	d.Log.Info("host put on a network", "network", id, "addresses", m.addrs())
	return nil
}

// lease asks for an address of each family that the network has. It stays with
// the host's name.
func (d *Driver) lease(m *machineState) error {
	for _, f := range []struct {
		subnet string
		v6     bool
	}{{m.Network.Subnet, false}, {m.Network.Subnet6, true}} {
		if f.subnet == "" {
			continue
		}
		p, err := d.Addresses.RequestPool(&ipam.RequestPoolRequest{
			AddressSpace: d.AddressSpace, Pool: f.subnet, V6: f.v6, Options: map[string]string{addresses.OptNetwork: m.Network.ID},
		})
		if err != nil {
			return err
		}
		m.Leases = append(m.Leases, lease{Pool: p.PoolID})
		a, err := d.Addresses.RequestAddress(&ipam.RequestAddressRequest{PoolID: p.PoolID, Options: map[string]string{optName: "host:" + d.Name}})
		if err != nil {
			return err
		}
		got, err := netip.ParsePrefix(a.Address)
		if err != nil {
			return fmt.Errorf("read address: %w", err)
		}
		m.Leases[len(m.Leases)-1].Address = got.Addr()
	}
	return nil
}

// place makes segment and filter take the host for a part of the network.
func (d *Driver) place(m machineState) error {
	d.mu.Lock()
	d.machines[m.Network.ID] = m
	d.mu.Unlock()
	d.readFleet()
	return d.setMachine(m.Network, m.addrs())
}

func (d *Driver) setMachine(n record.Network, addrs []netip.Addr) error {
	sn, err := segmentNetwork(n)
	if err != nil {
		return err
	}
	s, err := d.segmentOf(sn)
	if err != nil {
		return err
	}
	x, ok := s.(segment.Machines)
	if !ok {
		return fmt.Errorf("network %s is %s, and a machine cannot be on such a network", n.ID, n.Segment)
	}
	return x.SetMachine(n.ID, addrs)
}

// detachMachine undoes all of it, as far as it has come.
func (d *Driver) detachMachine(m machineState) error {
	id := m.Network.ID
	d.mu.Lock()
	_, placed := d.machines[id]
	delete(d.machines, id)
	d.mu.Unlock()
	var errs []error
	if placed {
		errs = append(errs, d.setMachine(m.Network, nil))
		d.readFleet()
	}
	for _, l := range m.Leases {
		if l.Address.IsValid() {
			errs = append(errs, d.Addresses.ReleaseAddress(&ipam.ReleaseAddressRequest{PoolID: l.Pool, Address: l.Address.String()}))
		}
		errs = append(errs, d.Addresses.ReleasePool(&ipam.ReleasePoolRequest{PoolID: l.Pool}))
	}
	errs = append(errs, d.DeleteNetwork(&network.DeleteNetworkRequest{NetworkID: machineNetwork(id)}), remove(d.files.machineFile(id)))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	d.Log.Info("host taken off a network", "network", id)
	return nil
}

// restoreMachines puts the host where an earlier run left it.
func (d *Driver) restoreMachines() error {
	all, err := load[machineState](d.files.machines())
	if err != nil {
		return err
	}
	for _, m := range all {
		if err := d.place(m); err != nil {
			d.Log.Error("host not put on the network again", "network", m.Network.ID, "error", err)
		}
	}
	return nil
}

// filterMachines are the host's places as the filter knows them; callers hold
// mu.
func (d *Driver) filterMachines() []policy.Machine {
	var all []policy.Machine
	for _, m := range d.machines {
		all = append(all, policy.Machine{Subnets: subnets(m.Network), Addresses: m.addrs()})
	}
	return all
}

// machineHas reports whether an address is the host's own on a network;
// callers hold mu.
func (d *Driver) machineHas(network string, a netip.Addr) bool {
	return slices.Contains(d.machines[network].addrs(), a)
}
