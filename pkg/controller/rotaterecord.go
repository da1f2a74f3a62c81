package controller

import (
	"fmt"
	"slices"
	"time"
)

// The stages of a change of the fleet's authority.
const (
	// stageTrust: controllers start again, one after the other, until each
	// trusts both authorities. The old one signs.
	stageTrust = "trust"
	// stageIssue: the new one signs; hosts and users get certificates of it.
	stageIssue = "issue"
	// stageServe: controllers show certificates of the new one.
	stageServe = "serve"
	// stageDrop: controllers start again and trust the new one only.
	stageDrop = "drop"
	// stageDone: it is over, and the record holds no key any more.
	stageDone = "done"
)

// rotation is a change of the authority, at [store.Keys.Authority]. Its leader
// moves it on; every controller brings its own files to what it says.
type rotation struct {
	Stage string `json:"stage"`
	// From and To are the certificates, PEM. Taken back, a rotation goes the
	// other way round.
	From string `json:"from"`
	To   string `json:"to"`
	// Key are the keys that controllers hold in this stage, encrypted to the
	// fleet's identity, which is not in etcd.
	Key []byte `json:"key,omitempty"`
	// Turn is the controller that may start again now.
	Turn string `json:"turn,omitempty"`
	// Back says that it is being taken back; Finish that hosts that are away
	// and users are not waited for.
	Back   bool      `json:"back,omitempty"`
	Finish bool      `json:"finish,omitempty"`
	By     string    `json:"by,omitempty"`
	Began  time.Time `json:"began"`
	Since  time.Time `json:"since"`
}

// active reports whether there is anything to do.
func (r rotation) active() bool { return r.Stage != "" && r.Stage != stageDone }

// trusted are the certificates that are trusted, the one that signs first.
func (r rotation) trusted() string {
	switch r.Stage {
	case stageTrust:
		return r.From + r.To
	case stageDrop, stageDone:
		return r.To
	}
	return r.To + r.From
}

// servesOld reports whether controllers show certificates of the old authority:
// users who have not heard of the new one can still call.
func (r rotation) servesOld() bool { return r.Stage == stageTrust || r.Stage == stageIssue }

// held is what a controller says of itself, at [heldKey].
type held struct {
	// Boot is that of its lease.
	Boot string `json:"boot"`
	// Started is what it, and etcd in it, trusts since its start, Files what
	// its files say by now: in the words of trustSet.
	Started string `json:"started"`
	Files   string `json:"files"`
	// Serves names the authority that has signed what it shows, Root that of
	// its own access to etcd.
	Serves string    `json:"serves"`
	Root   string    `json:"root"`
	Until  time.Time `json:"until"`
}

// standing is how somebody's certificate is with regard to a rotation.
type standing struct {
	kind, name string
	// by names the authority, until is the certificate's end.
	by    string
	until time.Time
	// away says that a host or controller is not up.
	away bool
	held held
	// well says that a controller's member of etcd is a healthy voter.
	well bool
}

// move is what the leader does next.
type move struct {
	// stage is the next one, turn the controller that may start again; empty
	// when nothing is to be done but wait, for what waits says.
	stage, turn string
	waits       []string
	// due says that a controller has to start again.
	due bool
}

// sets are the words by which controllers tell what they trust.
type sets struct{ both, to string }

// nextMove decides about a rotation. to names the authority that is to stay, me
// the controller that leads.
func nextMove(r rotation, all []standing, want sets, to, me string) move {
	switch r.Stage {
	case stageTrust:
		return restarts(all, want.both, me, r.Turn, stageIssue)
	case stageIssue, stageServe:
		// A controller that was added from what there was before the change
		// refuses the new authority until it starts again.
		if m := restarts(all, want.both, me, r.Turn, ""); !r.Back && (m.turn != "" || m.due) {
			return m
		}
		kinds, then := []string{"host", "user"}, stageServe
		if r.Stage == stageServe {
			kinds, then = append(kinds, "controller"), stageDrop
		}
		if w := lagging(r, all, to, kinds...); len(w) > 0 {
			return move{waits: w}
		}
		return move{stage: then}
	case stageDrop:
		return restarts(all, want.to, me, r.Turn, stageDone)
	case stageDone:
		// One that was made from what there was before the end.
		return restarts(all, want.to, me, r.Turn, "")
	}
	return move{}
}

// restarts lets controllers start again one after the other, the leader last,
// and none while another one is not well. One that is not well itself may: it
// cannot get worse, and starting is perhaps what it lacks.
func restarts(all []standing, want, me, turn, then string) move {
	var waits, due, ill []string
	for _, s := range all {
		if s.kind != "controller" {
			continue
		}
		late := s.held.Files == want && s.held.Started != want
		switch {
		case s.away:
			waits = append(waits, fmt.Sprintf("controller %s is down: start it, or remove it (docker clocker controller rm --force %s)", s.name, s.name))
		case !s.well && late:
			ill = append(ill, s.name)
		case !s.well:
			waits = append(waits, fmt.Sprintf("controller %s: its member of etcd is not well", s.name))
		case s.held.Files != want:
			waits = append(waits, fmt.Sprintf("controller %s has not taken the authorities over yet", s.name))
		case late:
			due = append(due, s.name)
		}
	}
	if len(ill) > 0 {
		due = ill
	}
	m := move{waits: waits, due: len(due) > 0}
	switch {
	case len(waits) > 0:
		return m
	case len(due) == 0:
		m.stage = then
		return m
	}
	slices.Sort(due)
	next := due[0]
	if next == me && len(due) > 1 {
		next = due[1]
	}
	m.waits = []string{fmt.Sprintf("controller %s starts again", next)}
	if next != turn {
		m.turn = next
	}
	return m
}

// lagging are those whose certificates are of another authority than the one
// that stays.
func lagging(r rotation, all []standing, to string, kinds ...string) []string {
	var out []string
	for _, s := range all {
		if !slices.Contains(kinds, s.kind) {
			continue
		}
		if why := lags(r, s, to); why != "" {
			out = append(out, why)
		}
	}
	return out
}

// lags says why somebody is waited for; empty when nobody waits.
func lags(r rotation, s standing, to string) string {
	if s.kind == "controller" {
		switch {
		case s.away:
			return fmt.Sprintf("controller %s is down: start it, or remove it (docker clocker controller rm --force %s)", s.name, s.name)
		case s.held.Serves != to || s.held.Root != to:
			return fmt.Sprintf("controller %s has no new certificate yet", s.name)
		}
		return ""
	}
	if s.by == to {
		return ""
	}
	switch {
	case s.kind == "host" && !s.away:
		return fmt.Sprintf("host %s has no new certificate yet", s.name)
	case r.Finish:
		return ""
	case s.kind == "host":
		return fmt.Sprintf("host %s is away: bring it back, remove it, or go on without it with --finish (it must be added again then)", s.name)
	}
	return fmt.Sprintf("user %s has not called since: any command renews the certificate; or go on with --finish (they need another token then)", s.name)
}

// behind says how somebody comes back whose certificate is of an authority that
// is trusted no more.
func behind(s standing) string {
	switch s.kind {
	case "host":
		return fmt.Sprintf("is refused since the authority was changed: add it again (docker clocker host add, as the first time; what runs on it stays), or take host %s out", s.name)
	case "user":
		return fmt.Sprintf("is refused since the authority was changed: give another token (docker clocker user add %s), or remove the user", s.name)
	}
	return "has no new certificate yet"
}
