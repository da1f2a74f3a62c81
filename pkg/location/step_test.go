package location

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/record"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestWhatIsDoneNext(t *testing.T) {
	host := func(state string, up bool, tasks int) *HostSight {
		return &HostSight{ID: "h", State: state, Up: up, Tasks: tasks}
	}
	for _, c := range []struct {
		name  string
		m     record.Machine
		host  *HostSight
		leave string
		state string // by Settle
		do    Action
	}{
		{"asked for", record.Machine{State: record.MachineRequested}, nil, "", record.MachineRequested, Obtain},
		{"cancelled before", record.Machine{State: record.MachineRequested, Offer: "small", Ordered: true}, nil, "", record.MachineReleasing, Release},
		{"being made", record.Machine{State: record.MachineCreating, Since: noon.Add(-time.Minute)}, nil, "", record.MachineCreating, Poll},
		{"just looked at", record.Machine{State: record.MachineCreating, Since: noon}, nil, "", record.MachineCreating, Wait},
		{"never ready", record.Machine{State: record.MachineCreating, Since: noon.Add(-time.Hour), Handle: "i"}, nil, "", record.MachineReleasing, Release},
		{"ready", record.Machine{State: record.MachineAdopting, Endpoint: "e"}, nil, "", record.MachineAdopting, Adopt},
		{"half adopted", record.Machine{State: record.MachineAdopting, Endpoint: "e"}, host(record.HostActive, false, 0), "", record.MachineAdopting, Adopt},
		{"adopted, not written", record.Machine{State: record.MachineAdopting, Endpoint: "e"}, host(record.HostActive, true, 0), "", record.MachineAdopting, Enrol},
		{"pausing", record.Machine{State: record.MachineAdopting, Endpoint: "e", Attempts: 1, Since: noon.Add(-time.Second)}, nil, "", record.MachineAdopting, Wait},
		{"cancelled in adoption", record.Machine{State: record.MachineAdopting, Endpoint: "e", Ordered: true}, nil, "", record.MachineReleasing, Clear},
		{"host", record.Machine{State: record.MachineHost}, host(record.HostActive, true, 3), "", record.MachineHost, Wait},
		{"may go", record.Machine{State: record.MachineHost}, host(record.HostActive, true, 0), "empty", record.MachineHost, Cordon},
		{"a user's cordon stays", record.Machine{State: record.MachineHost}, host(record.HostCordoned, true, 0), "empty", record.MachineHost, Wait},
		{"removed by a user", record.Machine{State: record.MachineHost, Handle: "i", Endpoint: "e"}, nil, "", record.MachineReleasing, Release},
		{"ordered away", record.Machine{State: record.MachineHost, Ordered: true}, host(record.HostActive, true, 3), "", record.MachineDraining, Cordon},
		{"cordoned, still empty", record.Machine{State: record.MachineDraining}, host(record.HostCordoned, true, 0), "empty", record.MachineDraining, Drain},
		{"cordoned, needed again", record.Machine{State: record.MachineDraining}, host(record.HostCordoned, true, 1), "", record.MachineDraining, Recall},
		{"cordoned, ordered", record.Machine{State: record.MachineDraining, Ordered: true}, host(record.HostCordoned, true, 1), "", record.MachineDraining, Drain},
		{"draining", record.Machine{State: record.MachineDraining}, host(record.HostDraining, true, 1), "", record.MachineDraining, Wait},
		{"drained", record.Machine{State: record.MachineDraining, Endpoint: "e"}, host(record.HostDraining, true, 0), "", record.MachineReleasing, Clear},
		{"gone while draining", record.Machine{State: record.MachineDraining, Endpoint: "e", Handle: "i"}, nil, "", record.MachineReleasing, Clear},
		{"cleaned", record.Machine{State: record.MachineReleasing, Handle: "i"}, nil, "", record.MachineReleasing, Release},
		{"nothing to give back", record.Machine{State: record.MachineReleasing}, nil, "", record.MachineReleasing, Forget},
		{"failed", record.Machine{State: record.MachineFailed, Handle: "i", Attempts: 3}, nil, "", record.MachineFailed, Wait},
		{"failed, ordered", record.Machine{State: record.MachineFailed, Handle: "i", Ordered: true}, nil, "", record.MachineReleasing, Release},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Sight{Now: noon, Host: c.host, Leave: c.leave}
			m, _ := Settle(c.m, s)
			assert.Equal(t, m.State, c.state)
			assert.Equal(t, Next(m, s).Do, c.do)
		})
	}
}

func TestAfterFailures(t *testing.T) {
	bad := errors.New("connection refused")
	m := record.Machine{State: record.MachineAdopting, Endpoint: "e", Handle: "e", Offer: "e"}
	now := noon
	for n := 1; n < Attempts; n++ {
		m, _ = After(m, Adopt, Result{Err: bad}, now, true)
		assert.Equal(t, m.State, record.MachineAdopting)
		assert.Equal(t, m.Attempts, n)
		step := Next(m, Sight{Now: now})
		assert.Equal(t, step.Do, Wait)
		assert.Assert(t, step.Again.After(now))
		now = step.Again
		assert.Equal(t, Next(m, Sight{Now: now}).Do, Adopt)
	}
	m, _ = After(m, Adopt, Result{Err: bad}, now, true)
	assert.Equal(t, m.State, record.MachineReleasing)
	m, _ = After(m, Clear, Result{}, now, true)
	m, gone := After(m, Release, Result{}, now, true)
	assert.Assert(t, !gone)
	assert.Equal(t, m.State, record.MachineFailed)
	assert.Equal(t, m.Error, "connection refused")
	assert.Equal(t, m.Handle, "e") // so that the machine is not taken again

	// An order that can never be met is not repeated.
	m, _ = After(record.Machine{State: record.MachineRequested}, Obtain, Result{Err: fmt.Errorf("create: %w", &OrderError{"no such image"})}, now, false)
	assert.Equal(t, m.State, record.MachineReleasing)
	// A quota is waited for, and then given up.
	m, _ = After(record.Machine{State: record.MachineRequested}, Obtain, Result{Err: &QuotaError{What: "instances", Limit: 2, Used: 2}}, now, false)
	assert.Equal(t, m.State, record.MachineRequested)
	// A machine that vanished is let go.
	m, _ = After(record.Machine{State: record.MachineCreating, Handle: "i"}, Poll, Result{Err: ErrGone}, now, false)
	assert.Equal(t, m.State, record.MachineReleasing)
	// A provider that cannot be asked changes nothing but what is told.
	m, _ = After(record.Machine{State: record.MachineCreating, Handle: "i", Since: noon}, Poll, Result{Err: bad}, noon.Add(time.Minute), false)
	assert.Equal(t, m.State, record.MachineCreating)
	assert.Assert(t, m.Since.Equal(noon))
	// What cannot be cleaned stays to be seen; a machine that will be gone
	// needs no cleaning.
	for lasting, want := range map[bool]string{true: record.MachineFailed, false: record.MachineReleasing} {
		m, _ = After(record.Machine{State: record.MachineReleasing, Endpoint: "e", Attempts: Attempts - 1}, Clear, Result{Err: bad}, now, lasting)
		assert.Equal(t, m.State, want)
	}
}
