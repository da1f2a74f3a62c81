package server

import (
	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"
)

// Refuse returns drivers for a host that cannot serve yet: they tell the
// engine what they are, let it delete whatever it wants, and refuse
// everything else with err.
//
// spaces is what GetDefaultAddressSpaces answers.
func Refuse(err error, spaces ipam.AddressSpacesResponse) Drivers {
	return Drivers{Network: refusingNetwork{err}, IPAM: refusingIPAM{err, spaces}}
}

type refusingNetwork struct{ err error }

func (refusingNetwork) GetCapabilities() (*network.CapabilitiesResponse, error) {
	return &network.CapabilitiesResponse{Scope: network.LocalScope, ConnectivityScope: network.GlobalScope}, nil
}

func (r refusingNetwork) GwAllocCheck(*GwAllocCheckRequest) (*GwAllocCheckResponse, error) {
	return nil, r.err
}

func (r refusingNetwork) CreateNetwork(*network.CreateNetworkRequest) error { return r.err }

func (r refusingNetwork) AllocateNetwork(*network.AllocateNetworkRequest) (*network.AllocateNetworkResponse, error) {
	return nil, r.err
}

func (r refusingNetwork) CreateEndpoint(*network.CreateEndpointRequest) (*network.CreateEndpointResponse, error) {
	return nil, r.err
}

func (r refusingNetwork) Join(*network.JoinRequest) (*network.JoinResponse, error) {
	return nil, r.err
}

func (r refusingNetwork) ProgramExternalConnectivity(*network.ProgramExternalConnectivityRequest) error {
	return r.err
}

func (refusingNetwork) EndpointInfo(*network.InfoRequest) (*network.InfoResponse, error) {
	return &network.InfoResponse{Value: map[string]string{}}, nil
}

func (refusingNetwork) DeleteNetwork(*network.DeleteNetworkRequest) error   { return nil }
func (refusingNetwork) FreeNetwork(*network.FreeNetworkRequest) error       { return nil }
func (refusingNetwork) DeleteEndpoint(*network.DeleteEndpointRequest) error { return nil }
func (refusingNetwork) Leave(*network.LeaveRequest) error                   { return nil }
func (refusingNetwork) DiscoverNew(*network.DiscoveryNotification) error    { return nil }
func (refusingNetwork) DiscoverDelete(*network.DiscoveryNotification) error { return nil }
func (refusingNetwork) RevokeExternalConnectivity(*network.RevokeExternalConnectivityRequest) error {
	return nil
}

type refusingIPAM struct {
	err    error
	spaces ipam.AddressSpacesResponse
}

func (refusingIPAM) GetCapabilities() (*ipam.CapabilitiesResponse, error) {
	return &ipam.CapabilitiesResponse{}, nil
}

func (r refusingIPAM) GetDefaultAddressSpaces() (*ipam.AddressSpacesResponse, error) {
	s := r.spaces
	return &s, nil
}

func (r refusingIPAM) RequestPool(*ipam.RequestPoolRequest) (*ipam.RequestPoolResponse, error) {
	return nil, r.err
}

func (r refusingIPAM) RequestAddress(*ipam.RequestAddressRequest) (*ipam.RequestAddressResponse, error) {
	return nil, r.err
}

func (refusingIPAM) ReleasePool(*ipam.ReleasePoolRequest) error       { return nil }
func (refusingIPAM) ReleaseAddress(*ipam.ReleaseAddressRequest) error { return nil }
