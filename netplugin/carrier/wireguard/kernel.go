package wireguard

import (
	"fmt"
	"net"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// kernel is the kernel's own device.
type kernel struct{ client *wgctrl.Client }

// startKernel sets the device up. What it knows from an earlier process goes:
// the first changes say everything again, and the sessions begin anew.
func startKernel(key wgtypes.Key) (engine, error) {
	c, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("open WireGuard: %w", err)
	}
	port := Port
	err = c.ConfigureDevice(DeviceName, wgtypes.Config{PrivateKey: &key, ListenPort: &port, ReplacePeers: true})
	if err != nil {
		_ = c.Close() // the other error counts
		return nil, fmt.Errorf("listen on UDP port %d: %w", Port, err)
	}
	return kernel{c}, nil
}

func (k kernel) apply(all []change) error {
	if len(all) == 0 {
		return nil
	}
	return k.client.ConfigureDevice(DeviceName, wgtypes.Config{Peers: peerConfigs(all)})
}

// peerConfigs are changes as the kernel takes them.
func peerConfigs(all []change) []wgtypes.PeerConfig {
	out := make([]wgtypes.PeerConfig, 0, len(all))
	for _, c := range all {
		p := wgtypes.PeerConfig{
			PublicKey: c.key, Remove: c.remove, UpdateOnly: !c.fresh && !c.remove, ReplaceAllowedIPs: c.replace,
		}
		if c.endpoint.IsValid() {
			p.Endpoint = net.UDPAddrFromAddrPort(c.endpoint)
		}
		if c.call {
			every := keepalive
			p.PersistentKeepaliveInterval = &every
		}
		for _, x := range c.add {
			p.AllowedIPs = append(p.AllowedIPs, net.IPNet{IP: x.Addr().AsSlice(), Mask: net.CIDRMask(x.Bits(), x.Addr().BitLen())})
		}
		out = append(out, p)
	}
	return out
}

func (k kernel) status() (map[wgtypes.Key]status, error) {
	d, err := k.client.Device(DeviceName)
	if err != nil {
		return nil, fmt.Errorf("read device: %w", err)
	}
	all := map[wgtypes.Key]status{}
	for _, p := range d.Peers {
		s := status{handshake: p.LastHandshakeTime, received: p.ReceiveBytes}
		if p.Endpoint != nil {
			s.endpoint = p.Endpoint.AddrPort()
		}
		all[p.PublicKey] = s
	}
	return all, nil
}

func (k kernel) close() { _ = k.client.Close() } // the device goes on by itself
