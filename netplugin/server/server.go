// Package server is the face of the network plugin: it speaks the engine's
// plugin protocol (HTTP and JSON over unix sockets) and hands each call on to
// a network driver and an IPAM driver. It answers from the moment its sockets
// are open, before the host belongs to a fleet and while etcd is away.
//
// It never touches the kernel, etcd or the engine.
//
// Design page: docs/design/networks.md.
package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"
	"github.com/docker/go-plugins-helpers/sdk"
)

// manifest is the answer to Plugin.Activate: one process, both interfaces.
const manifest = `{"Implements": ["NetworkDriver", "IpamDriver"]}`

// maxBody bounds a request's body in bytes. The largest that an engine sends
// is a list of published ports, a few kilobytes.
const maxBody = 1 << 20

// Network is what answers NetworkDriver calls: the driver interface of the
// plugin helpers, and the call that Engine 28 added.
type Network interface {
	network.Driver
	GwAllocCheck(*GwAllocCheckRequest) (*GwAllocCheckResponse, error)
}

// Capabilities is the reply to NetworkDriver.GetCapabilities. GwAllocChecker
// makes engines from 28 on call GwAllocCheck before anything else when a
// network is created; older ones do not read it.
type Capabilities struct {
	Scope             string
	ConnectivityScope string
	GwAllocChecker    bool
}

// GwAllocCheckRequest carries the options of a network about to be created.
type GwAllocCheckRequest struct {
	Options map[string]any
}

// GwAllocCheckResponse tells the engine which families need no gateway
// address.
type GwAllocCheckResponse struct {
	SkipIPv4 bool
	SkipIPv6 bool
}

// Drivers is the pair of drivers that answers at present.
type Drivers struct {
	Network Network
	IPAM    ipam.Ipam
}

// Server answers on any number of sockets. What it is (capabilities, address
// spaces) it says at once; other calls wait for [Server.Use].
type Server struct {
	log     *slog.Logger
	handler sdk.Handler
	// always answers what never changes.
	always  Drivers
	current atomic.Pointer[Drivers]
	ready   chan struct{} // closed by the first Use
	once    sync.Once
}

// patience is how long a call waits for drivers: an engine that starts makes
// calls that must not be lost while the plugin starts too.
const patience = 20 * time.Second

// errStarting means that a call has waited for long enough.
var errStarting = errors.New("the network plugin has not finished starting: see its log")

// New returns a server that has no drivers yet. spaces is what it says of the
// IPAM driver's address spaces.
func New(log *slog.Logger, spaces ipam.AddressSpacesResponse) *Server {
	s := &Server{log: log, handler: sdk.NewHandler(manifest), always: Refuse(errStarting, spaces), ready: make(chan struct{})}
	s.networkCalls()
	s.ipamCalls()
	return s
}

// Use makes the server answer with these drivers from now on.
func (s *Server) Use(d Drivers) {
	s.current.Store(&d)
	s.once.Do(func() { close(s.ready) })
}

// drivers waits for drivers to answer with.
func (s *Server) drivers() Drivers {
	select {
	case <-s.ready:
	default:
		select {
		case <-s.ready:
		case <-time.After(patience):
			return s.always
		}
	}
	return *s.current.Load()
}

func (s *Server) networkCalls() {
	driver := func() Network { return s.drivers().Network }
	handle(s, "NetworkDriver.GetCapabilities", func(*struct{}) (*Capabilities, error) {
		c, err := s.always.Network.GetCapabilities()
		if err != nil {
			return nil, err
		}
		return &Capabilities{Scope: c.Scope, ConnectivityScope: c.ConnectivityScope, GwAllocChecker: true}, nil
	})
	handle(s, "NetworkDriver.GwAllocCheck", func(r *GwAllocCheckRequest) (*GwAllocCheckResponse, error) {
		return driver().GwAllocCheck(r)
	})
	handle(s, "NetworkDriver.AllocateNetwork", func(r *network.AllocateNetworkRequest) (*network.AllocateNetworkResponse, error) {
		return driver().AllocateNetwork(r)
	})
	handle(s, "NetworkDriver.CreateEndpoint", func(r *network.CreateEndpointRequest) (*network.CreateEndpointResponse, error) {
		return driver().CreateEndpoint(r)
	})
	handle(s, "NetworkDriver.EndpointOperInfo", func(r *network.InfoRequest) (*network.InfoResponse, error) {
		return driver().EndpointInfo(r)
	})
	handle(s, "NetworkDriver.Join", func(r *network.JoinRequest) (*network.JoinResponse, error) {
		return driver().Join(r)
	})
	act(s, "NetworkDriver.CreateNetwork", func(r *network.CreateNetworkRequest) error { return driver().CreateNetwork(r) })
	act(s, "NetworkDriver.DeleteNetwork", func(r *network.DeleteNetworkRequest) error { return driver().DeleteNetwork(r) })
	act(s, "NetworkDriver.FreeNetwork", func(r *network.FreeNetworkRequest) error { return driver().FreeNetwork(r) })
	act(s, "NetworkDriver.DeleteEndpoint", func(r *network.DeleteEndpointRequest) error { return driver().DeleteEndpoint(r) })
	act(s, "NetworkDriver.Leave", func(r *network.LeaveRequest) error { return driver().Leave(r) })
	act(s, "NetworkDriver.DiscoverNew", func(r *network.DiscoveryNotification) error { return driver().DiscoverNew(r) })
	act(s, "NetworkDriver.DiscoverDelete", func(r *network.DiscoveryNotification) error { return driver().DiscoverDelete(r) })
	act(s, "NetworkDriver.ProgramExternalConnectivity", func(r *network.ProgramExternalConnectivityRequest) error {
		return driver().ProgramExternalConnectivity(r)
	})
	act(s, "NetworkDriver.RevokeExternalConnectivity", func(r *network.RevokeExternalConnectivityRequest) error {
		return driver().RevokeExternalConnectivity(r)
	})
}

func (s *Server) ipamCalls() {
	driver := func() ipam.Ipam { return s.drivers().IPAM }
	handle(s, "IpamDriver.GetCapabilities", func(*struct{}) (*ipam.CapabilitiesResponse, error) {
		return s.always.IPAM.GetCapabilities()
	})
	handle(s, "IpamDriver.GetDefaultAddressSpaces", func(*struct{}) (*ipam.AddressSpacesResponse, error) {
		return s.always.IPAM.GetDefaultAddressSpaces()
	})
	handle(s, "IpamDriver.RequestPool", func(r *ipam.RequestPoolRequest) (*ipam.RequestPoolResponse, error) {
		return driver().RequestPool(r)
	})
	handle(s, "IpamDriver.RequestAddress", func(r *ipam.RequestAddressRequest) (*ipam.RequestAddressResponse, error) {
		return driver().RequestAddress(r)
	})
	act(s, "IpamDriver.ReleasePool", func(r *ipam.ReleasePoolRequest) error { return driver().ReleasePool(r) })
	act(s, "IpamDriver.ReleaseAddress", func(r *ipam.ReleaseAddressRequest) error { return driver().ReleaseAddress(r) })
}

// act registers a call that answers nothing but success.
func act[Q any](s *Server, method string, f func(*Q) error) {
	handle(s, method, func(q *Q) (*struct{}, error) { return &struct{}{}, f(q) })
}

// handle registers a call. Whatever the engine sends, the answer is a reply
// that it understands: an empty body is a request with no arguments, and a
// panic is an error of this call only.
func handle[Q, A any](s *Server, method string, f func(*Q) (*A, error)) {
	s.handler.HandleFunc("/"+method, func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("call panicked", "call", method, "panic", p)
				fail(w, http.StatusInternalServerError, fmt.Errorf("%s: internal error: %v", method, p))
			}
		}()
		q := new(Q)
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(q)
		if err != nil && !errors.Is(err, io.EOF) {
			fail(w, http.StatusBadRequest, fmt.Errorf("read %s request: %w", method, err))
			return
		}
		start := time.Now()
		a, err := f(q)
		s.log.Debug("call", "call", method, "took", time.Since(start))
		if err != nil {
			s.log.Warn("call refused", "call", method, "error", err)
			fail(w, http.StatusInternalServerError, err)
			return
		}
		sdk.EncodeResponse(w, a, false)
	})
}

// fail answers with an error. Network drivers' clients read Err, IPAM
// drivers' clients read Error.
func fail(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", sdk.DefaultContentTypeV1_1)
	w.WriteHeader(code)
	// The engine is gone if this cannot be written; nobody is left to tell.
	_ = json.NewEncoder(w).Encode(struct{ Err, Error string }{err.Error(), err.Error()})
}
