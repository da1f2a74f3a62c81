package driver

import (
	"fmt"

	"github.com/docker/go-plugins-helpers/network"
)

// ProgramExternalConnectivity publishes the endpoint's ports: it is the one
// that the container's way out goes by.
func (d *Driver) ProgramExternalConnectivity(r *network.ProgramExternalConnectivityRequest) error {
	defer d.exclusive(r.EndpointID)()
	e, n, ok := d.known(r.EndpointID)
	if !ok {
		return fmt.Errorf("publish ports: endpoint %s is not known on this host", r.EndpointID)
	}
	wanted, told, err := bindings(r.Options)
	if err != nil {
		return err
	}
	if told {
		e.Wanted = wanted
	}
	if n.Network.Egress != egressPlugin || n.Network.Internal || len(e.Wanted) == 0 {
		return nil
	}
	if e.Published, err = d.ports.Hold(e.ID, e.families(), e.Wanted); err != nil {
		return err
	}
	err = d.remember(e)
	if err == nil {
		err = d.Filter.PutEndpoint(filterEndpoint(e))
	}
	if err != nil {
		d.withdraw(e)
		return fmt.Errorf("publish ports: %w", err)
	}
	d.annotate(e)
	return nil
}

// RevokeExternalConnectivity withdraws the endpoint's ports.
func (d *Driver) RevokeExternalConnectivity(r *network.RevokeExternalConnectivityRequest) error {
	defer d.exclusive(r.EndpointID)()
	if e, _, ok := d.known(r.EndpointID); ok {
		d.withdraw(e)
	}
	return nil
}

// families are those that the endpoint has addresses of.
func (e endpointState) families() families {
	return families{v4: e.Address.IsValid(), v6: e.Address6.IsValid()}
}

// withdraw takes the published ports of an endpoint back.
func (d *Driver) withdraw(e endpointState) {
	had := len(e.Published) > 0
	e.Published = nil
	if err := d.remember(e); err != nil {
		d.Log.Error("endpoint not written", "endpoint", e.ID, "error", err)
	}
	if had {
		if err := d.Filter.PutEndpoint(filterEndpoint(e)); err != nil {
			d.Log.Error("ports not withdrawn", "endpoint", e.ID, "error", err)
		}
		d.annotate(e)
	}
	d.ports.Release(e.ID)
}
