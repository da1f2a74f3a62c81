package redirect

import (
	"errors"

	"clocker.io/clocker/netplugin/topology"
)

// Settle takes every packet of networks with virtual addresses, or with ports
// that every host publishes, the long way. When it returns without an error,
// none of them goes the short way. It waits for no link: services are not
// balanced before, and links may take long to go.
func (k *Keeper) Settle() error {
	if k.r == nil {
		return nil
	}
	defer k.again()
	return k.leave()
}

func (k *Keeper) leave() error {
	k.leaving.Lock()
	defer k.leaving.Unlock()
	var not map[string]bool
	k.Topology.Read(func(t *topology.Topology, _ topology.Knowledge) { not = translated(t) })
	return errors.Join(k.r.Leave(not), k.r.Frames().leaveNetworks(not))
}
