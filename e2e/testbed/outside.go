package testbed

// Hub is the machine in the middle of the links: to the hosts it is the world
// outside. Only its addresses and its namespaces are of use to tests.
func (t *Testbed) Hub() (*Host, error) {
	s, err := loadState(t.dir)
	if err != nil {
		return nil, err
	}
	return newHost(t, s.Hub), nil
}
