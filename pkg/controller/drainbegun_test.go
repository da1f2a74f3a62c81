package controller

import (
	"errors"
	"testing"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store/storetest"

	"gotest.tools/v3/assert"
)

// Whoever detaches must not have to wait for the first move, which may take as
// long as an image does.
func TestDrainTellsThatItHasBegun(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1", "h2")
	c.awaitLead(t)
	enough := errors.New("enough")
	var told []*api.Step
	err := c.DrainHost(t.Context(), "h2", func(p api.Progress) error {
		told = append(told, p.Step)
		return enough
	})
	assert.ErrorIs(t, err, enough)
	assert.Equal(t, len(told), 1)
	assert.Equal(t, told[0].Action, "drain")
	h, err := c.Host(t.Context(), "h2")
	assert.NilError(t, err)
	assert.Equal(t, h.State, record.HostDraining, "it goes on")
}
