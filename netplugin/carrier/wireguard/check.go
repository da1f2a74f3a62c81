package wireguard

import (
	"fmt"
	"net"

	"clocker.io/clocker/netplugin/underlay"
	"clocker.io/clocker/pkg/finding"
)

// check compares the device with what it must be; callers hold mu.
func (d *device) check(fix bool) ([]finding.Finding, error) {
	var found []finding.Finding
	add := func(f finding.Finding) {
		f.Part = "carrier"
		found = append(found, f)
	}
	for _, peers := range d.users {
		for _, p := range peers {
			if err := reachable(p); err != nil {
				add(finding.Finding{Subject: "wireguard to host " + p.Host, Text: err.Error(), Hint: "see whether the network plugin of that host runs"})
			}
		}
	}
	wrong, err := d.wrong()
	if err != nil {
		return found, err
	}
	if fix && len(wrong) > 0 {
		err = d.sync()
	}
	for _, text := range wrong {
		add(finding.Finding{Subject: DeviceName, Text: text, Fixed: fix && err == nil})
	}
	if err != nil || d.engine == nil {
		return found, err
	}
	seen, err := d.engine.status()
	if err != nil {
		return found, err
	}
	for _, k := range sorted(d.have) {
		r, s := d.have[k], seen[k]
		if d.Now().Sub(s.handshake) < silence {
			continue
		}
		add(finding.Finding{
			Subject: "wireguard to host " + r.host, Text: fmt.Sprintf("host %s has not proved who it is for %s, from %s", r.host, silence, s.endpoint),
			Hint: fmt.Sprintf("let UDP port %d through between the hosts, and see whether their clocks are right", Port),
		})
	}
	return found, nil
}

// wrong says what is not as it must be.
func (d *device) wrong() ([]string, error) {
	peers := d.peers()
	l, err := d.find()
	switch {
	case err != nil:
		return nil, err
	case l == nil && len(peers) == 0:
		return nil, nil
	case l == nil:
		return []string{"the device is not there"}, nil
	case len(peers) == 0:
		return []string{"the device is there, and no host is reached by it"}, nil
	case d.engine == nil || d.index != l.Attrs().Index:
		return []string{"nobody serves the device"}, nil
	}
	under, err := underlay.Find(d.Handle, d.Address)
	if err != nil {
		return nil, err
	}
	var all []string
	if mtu := under.MTU - d.overhead(); l.Attrs().MTU != mtu {
		all = append(all, fmt.Sprintf("its MTU is %d instead of %d", l.Attrs().MTU, mtu))
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		all = append(all, "it is down")
	}
	return all, nil
}
