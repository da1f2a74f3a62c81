package redirect

// Settle brings what is redirected to what the topology says now. When it
// returns without an error, no packet of a network with virtual addresses, or
// with ports that every host publishes, goes the short way.
func (k *Keeper) Settle() error {
	if k.r == nil {
		return nil
	}
	return k.apply()
}
